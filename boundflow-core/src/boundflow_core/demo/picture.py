"""The demo's picture: certified accuracy against eps, a panel per network and a line per method.

matplotlib is imported when a picture is drawn, not before: it comes with the extra `boundflow-core[demo]`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.demo.digits import Curve, DemoResult
from boundflow_core.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_output", "draw", "have_matplotlib", "save"]

FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}

# Okabe & Ito, "Color Universal Design" (2008): told apart with any common colour blindness. Markers differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
EXAMPLES = (4, 42)  # the test images drawn beneath the panels: a legible 3 and 5
INK, GREY, FAINT = "#222222", "#6b6b6b", "#e4e4e4"

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.fonttype": "none",  # text stays text: small files, searchable
    "svg.hashsalt": "boundflow",  # the same picture is the same file
}


def have_matplotlib() -> bool:
    return find_spec("matplotlib") is not None


def check_output(path: Path) -> None:
    """Complain before the work is done rather than after it.

    Raises:
        InputError: the suffix names no picture format, or the folder does not exist or cannot be written to.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a picture ends in one of {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it or choose another --output")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise InputError(f"{path}: cannot be written; choose another --output")


def save(result: DemoResult, images: NDArray[np.float32], path: Path) -> None:
    """Draw and write; the format follows the suffix, and the file appears whole or not at all.

    Args:
        images: the test images [n, 8, 8] in [0, 1]; one per panel shows what eps means.

    Raises:
        InputError: see `check_output`.
    """
    import matplotlib

    check_output(path)
    format_ = FORMATS[path.suffix.lower()]
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        metadata: dict[str, Any] = {} if format_ == "png" else {"Date" if format_ == "svg" else "CreationDate": None}
        draw(result, images).savefig(content, format=format_, dpi=200, metadata=metadata)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.getvalue())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def draw(result: DemoResult, images: NDArray[np.float32]) -> Figure:
    """The figure, not yet written. Call it within `rc_context(STYLE)`."""
    from matplotlib.figure import Figure

    networks = list(dict.fromkeys(curve.network for curve in result.curves))
    methods = list(dict.fromkeys(curve.method for curve in result.curves))
    width = 1.1 + 4.6 * len(networks)
    figure = Figure(figsize=(width, 5.4), facecolor="white")
    left, right = 0.85 / width, 1 - 0.45 / width
    panels = figure.add_gridspec(1, len(networks), left=left, right=right, top=0.74, bottom=0.255, wspace=0.22)
    for column, network in enumerate(networks):
        axes = figure.add_subplot(panels[0, column])
        chosen = [curve for curve in result.curves if curve.network == network]
        panel(axes, network, chosen, methods, first=column == 0)
        thumbnails(axes, images[EXAMPLES[column % len(EXAMPLES)]])
    figure.text(left, 0.945, "How far can these digits be trusted?", fontsize=16, fontweight="bold", va="center")
    figure.text(
        left,
        0.888,
        f"Share of {result.images} test images whose class provably stays right while every pixel moves by up to ε",
        fontsize=10.5,
        color=GREY,
        va="center",
    )
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="center left",
        bbox_to_anchor=(left, 0.828),
        ncols=len(names),
        frameon=False,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.8,
        handletextpad=0.5,
    )
    figure.text(
        left,
        0.03,
        "Below the axes: a test image with each pixel moved up or down by that ε (0 is white, 1 is black).",
        fontsize=8.5,
        color=GREY,
        va="center",
    )
    return figure


def panel(axes: Axes, network: str, curves: Sequence[Curve], methods: Sequence[str], first: bool) -> None:
    """One network: a line per method, the band each method adds beneath it, and the clean accuracy above all."""
    from matplotlib.ticker import PercentFormatter

    below: NDArray[np.float64] | None = None
    for curve in curves:
        style = methods.index(curve.method)
        colour = COLOURS[style % len(COLOURS)]
        eps = np.array([0.0, *(point.eps for point in curve.points)])
        share = np.array([curve.clean_accuracy, *(point.certified_accuracy for point in curve.points)])
        below = np.zeros_like(share) if below is None else below
        axes.fill_between(eps, below, share, where=(share >= below).tolist(), color=colour, alpha=0.1, linewidth=0)
        axes.plot(
            eps,
            share,
            color=colour,
            marker=MARKERS[style % len(MARKERS)],
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.8,
            linewidth=2,
            label=curve.method,
            clip_on=False,
            zorder=3,
        )
        below = np.maximum(below, share)

    last = max((point.eps for curve in curves for point in curve.points), default=0.12)
    clean = curves[0].clean_accuracy
    axes.axhline(clean, color=INK, linewidth=1, linestyle=(0, (4, 3)), zorder=2)
    axes.annotate(
        f"clean accuracy {clean:.1%}",
        (last, clean),
        xytext=(0, -5),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
    )
    axes.set_title(network, loc="left", fontweight="bold", fontsize=11, pad=6)
    axes.set_xlim(0, last)
    axes.set_ylim(0, 1.0)
    axes.set_xticks(ticks(last))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2f}" if value else "ε = 0")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, pad=5)
    axes.spines[["top", "right", "left"]].set_visible(False)
    if first:
        axes.set_ylabel("certified accuracy")
    else:
        axes.tick_params(labelleft=False)


def ticks(last: float) -> NDArray[np.float64]:
    """Seven ticks from 0 to the largest eps."""
    return np.linspace(0, last, 7)


def thumbnails(axes: Axes, image: NDArray[np.float32]) -> None:
    """Under each tick the image [8, 8], every pixel moved by that eps up or down: what the number means to the eye."""
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(8, 8))
    _, last = axes.get_xlim()
    width, height = 0.125, 0.2
    for eps in axes.get_xticks():
        small = axes.inset_axes((eps / last - width / 2, -0.38, width, height))
        small.imshow(np.clip(image + eps * signs, 0, 1), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        small.set_xticks([])
        small.set_yticks([])
        small.spines[:].set(color=FAINT, linewidth=0.8)
