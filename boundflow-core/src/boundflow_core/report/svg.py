"""Elements of HTML and SVG as text. Attributes and texts are escaped here and nowhere else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["Point", "arrow_path", "element", "number", "smooth", "text"]

Point = tuple[float, float]

VOID = frozenset({"meta", "br"})


def text(content: object) -> str:
    """``content`` as text inside an element."""
    return escape(str(content), quote=False)


def element(tag: str, *children: str, **attributes: object) -> str:
    """``<tag ...>children</tag>``.

    Args:
        children: ready markup, see :func:`text`.
        attributes: None leaves one out; a name may end in "_" (``class_``), and "_" inside stands for "-".
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{given}>" if tag in VOID else f"<{tag}{given}>{''.join(children)}</{tag}>"


def number(value: object) -> str:
    """A coordinate in as few characters as a tenth of a pixel needs; anything else as it is."""
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def smooth(points: Sequence[Point]) -> str:
    """The path downwards through ``points``: vertical at each of them, straight where two lie above each other."""
    parts = [f"M{_at(points[0])}"]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        middle = (y + to_y) / 2
        straight = x == to_x
        parts.append(
            f"L{_at((to_x, to_y))}" if straight else f"C{_at((x, middle))} {_at((to_x, middle))} {_at((to_x, to_y))}"
        )
    return "".join(parts)


def arrow_path(points: Sequence[Point], radius: float) -> str:
    """The path along ``points``, whose pieces are horizontal or vertical, with rounded corners."""
    parts = [f"M{_at(points[0])}"]
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        parts.append(f"L{_at(_toward(corner, before, radius))}Q{_at(corner)} {_at(_toward(corner, after, radius))}")
    return "".join([*parts, f"L{_at(points[-1])}"])


def _toward(start: Point, end: Point, distance: float) -> Point:
    length = abs(end[0] - start[0]) + abs(end[1] - start[1])
    share = min(distance, length / 2) / length if length else 0.0
    return (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)


def _at(point: Iterable[float]) -> str:
    return " ".join(number(float(coordinate)) for coordinate in point)
