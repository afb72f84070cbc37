"""Layered drawing of a directed acyclic graph: in which layer and where in it each node and each edge lies.

The usual steps (Sugiyama, Tagawa and Toda 1981): layers by longest path, a waypoint in each layer that an edge crosses,
orders by the mean place of the neighbours, and coordinates that pull chains straight. No pixels here: a node is 1 wide.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Layers", "arrange"]

SWEEPS = 12
NODE_GAP = 0.14
EDGE_GAP = 0.12  # between an edge and what is beside it


@dataclass(frozen=True)
class Point:
    """A place in a layer: a node, or an edge that passes by (``node`` is -1)."""

    node: int
    layer: int


@dataclass(frozen=True)
class Layers:
    """Where everything lies.

    Attributes:
        layer, x: of each node; ``x`` is its middle, in widths of a node.
        routes: for each edge its x in every layer from the producer's to the consumer's.
        count: number of layers.
    """

    layer: tuple[int, ...]
    x: tuple[float, ...]
    routes: Mapping[tuple[int, int], tuple[float, ...]]
    count: int


def arrange(nodes: int, edges: Iterable[tuple[int, int]]) -> Layers:
    """Places ``nodes``, numbered so that every edge leads to a higher number."""
    pairs = sorted(set(edges))
    layer = _layers(nodes, pairs)
    count = max(layer, default=-1) + 1
    points = [Point(node, layer[node]) for node in range(nodes)]
    chains: dict[tuple[int, int], list[int]] = {}
    for a, b in pairs:
        passing = range(len(points), len(points) + layer[b] - layer[a] - 1)
        points.extend(Point(-1, layer[a] + 1 + step) for step in range(len(passing)))
        chains[a, b] = [a, *passing, b]
    above: list[list[int]] = [[] for _ in points]
    below: list[list[int]] = [[] for _ in points]
    for chain in chains.values():
        for one, other in itertools.pairwise(chain):
            below[one].append(other)
            above[other].append(one)
    rows: list[list[int]] = [[] for _ in range(count)]
    for index, point in enumerate(points):
        rows[point.layer].append(index)
    x = _coordinates(_ordered(rows, above, below), points, above, below)
    return Layers(
        layer=tuple(layer),
        x=tuple(x[node] for node in range(nodes)),
        routes={pair: tuple(x[index] for index in chain) for pair, chain in chains.items()},
        count=count,
    )


def _layers(nodes: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """As early as possible; then each node that reads little is moved to where it is needed."""
    before: list[list[int]] = [[] for _ in range(nodes)]
    after: list[list[int]] = [[] for _ in range(nodes)]
    for a, b in edges:
        before[b].append(a)
        after[a].append(b)
    layer = [0] * nodes
    for node in range(nodes):
        layer[node] = max((layer[other] + 1 for other in before[node]), default=0)
    for node in reversed(range(nodes)):
        if after[node] and len(before[node]) <= len(after[node]):
            layer[node] = min(layer[other] for other in after[node]) - 1
    return layer


def _ordered(rows: list[list[int]], above: list[list[int]], below: list[list[int]]) -> list[list[int]]:
    place = {index: float(at) for row in rows for at, index in enumerate(row)}
    for sweep in range(SWEEPS):
        neighbours = below if sweep % 2 else above
        for row in reversed(rows) if sweep % 2 else rows:
            row.sort(key=lambda index: _mean([place[other] for other in neighbours[index]], place[index]))
            place.update({index: float(at) for at, index in enumerate(row)})
    return rows


def _coordinates(
    rows: list[list[int]], points: Sequence[Point], above: list[list[int]], below: list[list[int]]
) -> list[float]:
    """Each point at the mean of its neighbours, as far as the gaps in its layer allow."""
    x = [0.0] * len(points)
    for row in rows:
        for index, at in zip(row, _spread([0.0] * len(row), row, points), strict=True):
            x[index] = at
    for sweep in range(2 * SWEEPS):
        neighbours = below if sweep % 2 else above
        for row in reversed(rows) if sweep % 2 else rows:
            wanted = [_mean([x[other] for other in neighbours[index]], x[index]) for index in row]
            for index, at in zip(row, _spread(wanted, row, points), strict=True):
                x[index] = at
    return x


def _spread(wanted: Sequence[float], row: Sequence[int], points: Sequence[Point]) -> list[float]:
    """The places nearest to ``wanted``, in the sense of least squares, that keep order and gaps.

    Runs of points that push each other move as one to the mean of what they want (pool adjacent violators).
    """
    offsets = [0.0]
    for left, right in itertools.pairwise(row):
        offsets.append(offsets[-1] + _gap(points[left], points[right]))
    runs: list[tuple[float, int]] = []
    for want, offset in zip(wanted, offsets, strict=True):
        total, count = want - offset, 1
        while runs and runs[-1][0] / runs[-1][1] > total / count:
            total, count = total + runs[-1][0], count + runs[-1][1]
            runs.pop()
        runs.append((total, count))
    starts = [total / count for total, count in runs for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=True)]


def _gap(left: Point, right: Point) -> float:
    """Least distance of two middles."""
    sides = sum(0.5 if point.node >= 0 else 0.0 for point in (left, right))
    return sides + (NODE_GAP if left.node >= 0 and right.node >= 0 else EDGE_GAP)


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
