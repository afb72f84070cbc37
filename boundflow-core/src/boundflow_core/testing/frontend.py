"""Frontends: the graphs that they read compute what the source computes, and bad sources are refused in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from numpy.typing import NDArray

from boundflow_core.errors import BoundFlowError
from boundflow_core.extension import Frontend
from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph, same_graph
from boundflow_core.ir.types import DType
from boundflow_core.ir.verify import verify_graph
from boundflow_core.plugins import registry
from boundflow_core.testing.case import array_code
from boundflow_core.testing.draws import Source
from boundflow_core.testing.laws import ConformanceError, Gaps, check_subjects, declared, drive

__all__ = ["FRONTEND_LAWS", "Sample", "check_frontend", "check_points"]

Array = NDArray[Any]

FRONTEND_LAWS: Mapping[str, str] = {
    "accepts": "the frontend says that it reads the source",
    "graph": "the graph is legal",
    "deterministic": "the same source gives the same graph",
    "outputs": "each of the graph's outputs at points is the source's",
    "batch": "the outputs of a point do not depend on the others of its batch",
}


# Points beyond it are far out: a source may overflow there where a graph of the same meaning does not.
ORDINARY = 10.0
SCALES = (1.0, 0.37, 0.0, 5.0, 500.0)  # of points up to 2
LAST_BITS = 16


@dataclass(frozen=True)
class Sample:
    """A source whose meaning is known.

    Attributes:
        name: what to call it in messages and in ``expected_failures``.
        source: what the frontend loads: a path, or an object.
        function: ``function(points [B, *input]) -> outputs [B, *output]``: what the network computes, float32 in.
        options: options of ``load``.
        tolerance: by how much an output may differ, relative to itself where it exceeds 1. What float32 inputs leave
            open is let pass besides: how far the outputs move where the points move by a last bit.
    """

    name: str
    source: Any
    function: Callable[[Array], Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


def check_frontend(
    frontend: str | Frontend,
    samples: Iterable[Sample] | SearchStrategy[Sample],
    *,
    broken: Iterable[Any] = (),
    expected_failures: Mapping[str, str] | None = None,
    examples: int = 20,
    shrink: bool = True,
) -> None:
    """Checks a frontend on sources whose meaning is known.

    Args:
        frontend: a frontend, or the name of a registered one.
        samples: the sources, or a Hypothesis strategy that draws them. There may be none if there are broken ones.
        broken: sources, or pairs (source, options), that must be refused with a BoundFlowError.
        expected_failures: known gaps with their reasons: "SAMPLE:LAW", laws of :data:`FRONTEND_LAWS`, or of samples
            that are not drawn "SAMPLE".
        examples: number of sets of points for each sample, or of drawn samples.

    Raises:
        ConformanceError: what does not hold, with the smallest points found as code to paste.
        ValueError: there is nothing to check, or a gap is of no sample.
    """
    subject = registry().frontend(frontend) if isinstance(frontend, str) else frontend
    known, broken = expected_failures or {}, list(broken)
    if isinstance(samples, SearchStrategy):
        _check_drawn(subject, samples, known, examples, shrink)
    else:
        _check_each(subject, list(samples), known, examples, shrink, alone=not broken)
    for item in broken:
        source, options = item if isinstance(item, tuple) else (item, {})
        _check_refusal(subject, source, options)


def _check_each(
    frontend: Frontend, samples: Sequence[Sample], known: Mapping[str, str], examples: int, shrink: bool, alone: bool
) -> None:
    if alone and not samples:
        raise ValueError(f"check_frontend({frontend.name!r}): neither samples nor broken sources, so nothing to check")
    check_subjects(known, [sample.name for sample in samples], "samples")
    for sample in samples:
        gaps = declared(sample.name, known, FRONTEND_LAWS)
        try:
            shape = _input_shape(frontend, sample)
        except BoundFlowError:
            if "" not in gaps.reasons:
                raise
            continue

        def run(points: Array, sample: Sample = sample, gaps: Gaps = gaps) -> None:
            check_points(sample, points, frontend, gaps)

        drive(run, _points(shape), examples, shrink, gaps)
        gaps.expire()


def _check_drawn(
    frontend: Frontend, samples: SearchStrategy[Sample], known: Mapping[str, str], examples: int, shrink: bool
) -> None:
    found: dict[str, Gaps] = {}

    def run(drawn: tuple[Sample, Array]) -> None:
        sample, points = drawn
        gaps = found.setdefault(sample.name, declared(sample.name, known, FRONTEND_LAWS))
        check_points(sample, points, frontend, gaps)

    paired = samples.flatmap(lambda sample: st.tuples(st.just(sample), _points(_input_shape(frontend, sample))))
    drive(run, paired, examples, shrink)
    check_subjects(known, found, "samples that were drawn")
    for gaps in found.values():
        gaps.expire()


def check_points(sample: Sample, points: Array, frontend: str | Frontend, gaps: Gaps | None = None) -> None:
    """Checks one sample at points [B, *input]. Raises ConformanceError."""
    subject = registry().frontend(frontend) if isinstance(frontend, str) else frontend
    gaps = gaps or Gaps(sample.name)

    def fail(law: str, what: str) -> None:
        code = (
            "import numpy as np\nfrom boundflow_core.testing.frontend import check_points\n"
            f"points = {array_code(points)}\n"
            f"check_points(sample, points, {_shown(subject)})  # the sample {sample.name!r}"
        )
        gaps.report(law, lambda: f"{subject.name} on {sample.name}, law {law!r}: {what}\n\n{code}")

    path = isinstance(sample.source, (str, os.PathLike))
    reads = os.fspath(sample.source).lower().endswith(tuple(subject.suffixes)) if path else False
    if not (reads or subject.accepts(sample.source)):
        fail("accepts", "the frontend does not accept the source")
    graph = subject.load(sample.source, **sample.options)
    _check_legal(graph, fail)
    if not same_graph(graph, subject.load(sample.source, **sample.options)):
        fail("deterministic", "the same source gives another graph the second time")
    want, exact = _outputs(sample, points), _evaluated(graph, points, DType.FLOAT64)
    if want.shape != exact.shape and want.size == exact.size:
        want = want.reshape(exact.shape)
    if want.shape != exact.shape:
        fail("outputs", f"they have the shape {exact.shape}, those of the source {want.shape}")
        return
    allowed = sample.tolerance * np.maximum(1.0, np.abs(want)) + LAST_BITS * _spread(graph, points, exact)
    counts = np.isfinite(want) | _ordinary(points, want.ndim)
    for dtype, got in ((DType.FLOAT32, _evaluated(graph, points, DType.FLOAT32)), (DType.FLOAT64, exact)):
        if not _near(got, want, allowed)[counts].all():
            fail("outputs", f"in {dtype} they are {got.tolist()}, the source gives {want.tolist()}")
    alone = np.concatenate([_outputs(sample, x[None]) for x in points]).reshape(want.shape)
    if not _near(alone, want, allowed)[counts].all():
        fail("batch", "the source itself mixes the points of a batch, so no graph of one sample is right")


def _outputs(sample: Sample, points: Array) -> Array:
    return np.asarray(sample.function(points.astype(np.float32)), dtype=np.float64)


def _evaluated(graph: PrimalGraph, points: Array, dtype: DType) -> Array:
    return np.asarray(evaluate_graph(graph, points, dtype), dtype=np.float64)


def _spread(graph: PrimalGraph, points: Array, outputs: Array, tries: int = 4) -> Array:
    """How far the outputs [B, *output] move at most where each number of the points [B, *input] moves by a last bit."""
    last_bit = float(np.finfo(np.float32).eps) * np.random.default_rng(0).uniform(-1, 1, (tries, *points.shape))
    moved = _evaluated(graph, (points * (1 + last_bit)).reshape(-1, *points.shape[1:]), DType.FLOAT64)
    with np.errstate(invalid="ignore"):
        moves = np.abs(moved.reshape(tries, *outputs.shape) - outputs).max(axis=0)
    return np.where(np.isfinite(moves), moves, 0.0)


def _ordinary(points: Array, rank: int) -> Array:
    """Which points are not far out: [B, 1, ...], of this rank."""
    return (np.abs(points) <= ORDINARY).reshape(len(points), -1).all(axis=1).reshape(-1, *[1] * (rank - 1))


def _near(got: Array, want: Array, allowed: Array) -> Array:
    """Elementwise; infinities and NaN in the same places."""
    with np.errstate(invalid="ignore"):
        within = (np.abs(got - want) <= allowed) & np.isfinite(want)
    return np.asarray(within | (got == want) | (np.isnan(got) & np.isnan(want)))


def _check_legal(graph: PrimalGraph, fail: Callable[[str, str], None]) -> None:
    try:
        verify_graph(graph)
    except BoundFlowError as error:
        fail("graph", str(error))


def _check_refusal(frontend: Frontend, source: Any, options: Mapping[str, Any]) -> None:
    try:
        frontend.load(source, **options)
    except BoundFlowError as error:
        if not str(error).strip():
            raise ConformanceError("broken", f"{frontend.name} refuses {source!r} without a word") from error
        return
    except Exception as error:
        what = f"raises {type(error).__name__} ({error}) instead of a BoundFlowError"
        raise ConformanceError("broken", f"{frontend.name} on {source!r}: {what}") from error
    raise ConformanceError("broken", f"{frontend.name} loads {source!r}, which is broken")


def _input_shape(frontend: Frontend, sample: Sample) -> tuple[int, ...]:
    return tuple(int(dim) for dim in frontend.load(sample.source, **sample.options).input_type.shape)  # type: ignore[arg-type]


@st.composite
def _points(draw: Callable[[SearchStrategy[Any]], Any], shape: tuple[int, ...]) -> Array:
    """One to three points on coarse grids, zero and some far out among them."""
    s = Source(draw)
    count = s.whole(1, 3)
    scales = np.reshape([s.choice(SCALES) for _ in range(count)], (count, *[1] * len(shape)))
    rng = np.random.default_rng(s.whole(0, 2**16))
    return np.asarray((rng.integers(-16, 17, (count, *shape)) / 8.0 * scales).astype(np.float32), dtype=np.float64)


def _shown(frontend: Frontend) -> str:
    return repr(frontend.name) if registry().frontends.get(frontend.name) is frontend else "frontend"
