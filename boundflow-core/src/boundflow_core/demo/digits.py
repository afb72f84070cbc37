"""Certified accuracy of the demo's digit networks, through the public interface alone.

An image counts as certified at eps when the network classifies it right and, for every other class j, the lower bound
of `logit_label - logit_j` over the box of radius eps around it (clipped to [0, 1]) is positive.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import as_file, files
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.plugins import registry

__all__ = [
    "EPS",
    "NETWORKS",
    "Curve",
    "DemoResult",
    "Network",
    "Point",
    "Skipped",
    "TestSet",
    "certified",
    "certify",
    "compile_margins",
]

CLASSES = 10
BRIGHTEST = 16  # pixels of the data set are integers 0..16
BATCH = 90  # images bounded at once: a few tens of MB even for methods with a row per neuron
# Options that spare work where a method has them: no upper bounds are needed, nor bounds better than positive.
SPARING: Mapping[str, Any] = {"side": "lower", "stop": 0.0, "iterations": 8}
EPS = tuple(k / 100 for k in range(13))  # the first, 0, gives the clean accuracy


@dataclass(frozen=True)
class Network:
    """A shipped network; `input_shape` is that of one image."""

    name: str
    file: str
    input_shape: tuple[int, ...]


NETWORKS = (
    Network("MLP", "digits_mlp.onnx", (64,)),
    Network("CNN", "digits_cnn.onnx", (1, 8, 8)),
)


@dataclass(frozen=True)
class TestSet:
    """Images float32 [n, 8, 8] in [0, 1], labels int64 [n]."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Point:
    """Share of the test images certified at `eps`, and the seconds that all of them took."""

    eps: float
    certified_accuracy: float
    seconds: float


@dataclass(frozen=True)
class Curve:
    """One method on one network; `points` in the order of the eps asked for, without eps = 0."""

    network: str
    method: str
    clean_accuracy: float
    compile_seconds: float
    points: tuple[Point, ...]

    @property
    def seconds(self) -> float:
        """All runs, without compilation, which for the first network includes the import of the executor's library."""
        return sum(point.seconds for point in self.points)


@dataclass(frozen=True)
class Skipped:
    """A method that has no answer for a network, and why."""

    network: str
    method: str
    reason: str


@dataclass(frozen=True)
class DemoResult:
    """All that `boundflow demo` found out; `picture` is the file written, None where none was."""

    images: int
    curves: tuple[Curve, ...]
    skipped: tuple[Skipped, ...] = ()
    picture: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The same as plain dicts, lists, strings and numbers."""
        return asdict(self)


def load_test_set() -> TestSet:
    """The 540 shipped test images of scikit-learn's handwritten digits."""
    raw = files("boundflow_core.demo").joinpath("data", "digits_test.npz").read_bytes()
    with np.load(io.BytesIO(raw), allow_pickle=False) as arrays:
        images = arrays["images"].astype(np.float32) / np.float32(BRIGHTEST)
        return TestSet(images, arrays["labels"].astype(np.int64))


def load_network(network: Network) -> PrimalGraph:
    """The shipped network as a normalized graph.

    Raises:
        BoundFlowError: no installed distribution reads ONNX files.
    """
    with as_file(files("boundflow_core.demo").joinpath("data", network.file)) as path:
        return bf.load(path)


def margin_rows(labels: NDArray[np.int64]) -> NDArray[np.float32]:
    """Specification rows [n, 9, 10]: e_label - e_j for every other class j."""
    identity = np.eye(CLASSES, dtype=np.float32)
    rows = identity[labels][:, None, :] - identity[None]
    others = identity[labels] == 0
    result: NDArray[np.float32] = rows[others].reshape(len(labels), CLASSES - 1, CLASSES)
    return result


def box(images: NDArray[np.float32], eps: float) -> bf.Box:
    """All images whose pixels lie within eps of these and in [0, 1]."""
    radius = np.float32(eps)
    return bf.Box(np.clip(images - radius, 0, 1), np.clip(images + radius, 0, 1))


def positive(bounds: bf.Bounds) -> NDArray[np.bool_]:
    """For which regions [n] every row is surely positive: non-finite or contradictory bounds prove nothing."""
    lower, upper = np.asarray(bounds.lower), np.asarray(bounds.upper)
    sure = np.isfinite(lower) & np.isfinite(upper) & (lower > 0) & (upper > 0)
    result: NDArray[np.bool_] = sure.all(axis=1)
    return result


def compile_margins(graph: PrimalGraph, method: str, executor: str = "auto") -> bf.CompiledBounds:
    """What :func:`certified` runs.

    Raises:
        BoundFlowError: the method is unknown or has no rule for an operator of the network.
    """
    known = registry().method(method).options
    options = {name: value for name, value in SPARING.items() if name in known}
    return bf.compile(graph, method=method, spec_rows=CLASSES - 1, batch=None, executor=executor, **options)


def certified(
    run: bf.CompiledBounds, images: NDArray[np.float32], labels: NDArray[np.int64], eps: float
) -> NDArray[np.bool_]:
    """Which images [n] keep their label in the whole box of radius eps; with eps = 0, which are classified right.

    Args:
        run: what `compile_margins` returned.
        images: [n, *input_shape of the network].
        labels: [n].
    """
    batches = [slice(start, start + BATCH) for start in range(0, len(labels), BATCH)]
    return np.concatenate([positive(run(box(images[b], eps), bf.LinearSpec(margin_rows(labels[b])))) for b in batches])


def certify(
    network: Network,
    graph: PrimalGraph,
    method: str,
    test_set: TestSet,
    eps: Sequence[float] = EPS,
    executor: str = "auto",
) -> Curve:
    """Compile once, then certify the whole test set for each eps.

    Clean accuracy is the same computation in boxes of radius 0, where bounds are the value itself. The other eps are
    tried on the images that are classified right.

    Raises:
        BoundFlowError: the method is unknown or has no rule for an operator of the network.
    """
    images = test_set.images.reshape(-1, *network.input_shape)
    started = perf_counter()
    run = compile_margins(graph, method, executor)
    compiled = perf_counter() - started
    right = certified(run, images, test_set.labels, 0.0)
    images, labels = images[right], test_set.labels[right]  # the others never count
    points = []
    for radius in eps:
        if radius == 0:
            continue
        started = perf_counter()
        share = float(certified(run, images, labels, radius).sum() / len(right))
        points.append(Point(radius, share, perf_counter() - started))
    return Curve(network.name, method, float(right.mean()), compiled, tuple(points))
