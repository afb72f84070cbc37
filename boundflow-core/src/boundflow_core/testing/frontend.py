"""Frontends: the graphs that they read compute what the source computes, and bad sources are refused in words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
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
from boundflow_core.testing.laws import Gaps, declared, drive

__all__ = ["FRONTEND_LAWS", "Sample", "check_frontend", "check_points"]

Array = NDArray[Any]

FRONTEND_LAWS: Mapping[str, str] = {
    "accepts": "the frontend says that it reads the source",
    "graph": "the graph is legal",
    "deterministic": "the same source gives the same graph",
    "outputs": "the graph's outputs at points are the source's",
    "batch": "the outputs of a point do not depend on the others of its batch",
}


@dataclass(frozen=True)
class Sample:
    """A source whose meaning is known.

    Attributes:
        name: what to call it in messages and in ``expected_failures``.
        source: what the frontend loads: a path, or an object.
        function: ``function(points [B, *input]) -> outputs [B, *output]``: what the network computes, float32 in.
        options: options of ``load``.
        tolerance: by how much outputs may differ, relative to the largest.
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
        samples: the sources, or a Hypothesis strategy that draws them.
        broken: sources, or pairs (source, options), that must be refused with a BoundFlowError.
        expected_failures: known gaps with their reasons: "SAMPLE" or "SAMPLE:LAW", laws of :data:`FRONTEND_LAWS`.
        examples: number of sets of points for each sample, or of drawn samples.

    Raises:
        ConformanceError: what does not hold, with the smallest points found as code to paste.
    """
    subject = registry().frontend(frontend) if isinstance(frontend, str) else frontend
    known = expected_failures or {}
    if isinstance(samples, SearchStrategy):

        def run(drawn: tuple[Sample, Array]) -> None:
            sample, points = drawn
            check_points(sample, points, subject, declared(sample.name, known, FRONTEND_LAWS))

        paired = samples.flatmap(lambda sample: st.tuples(st.just(sample), _points(_input_shape(subject, sample))))
        drive(run, paired, examples, shrink)
    else:
        for sample in samples:
            gaps = declared(sample.name, known, FRONTEND_LAWS)
            try:
                shape = _input_shape(subject, sample)
            except BoundFlowError:
                if "" not in gaps.reasons:
                    raise
                continue
            drive(lambda x, s=sample, g=gaps: check_points(s, x, subject, g), _points(shape), examples, shrink, gaps)  # type: ignore[misc]
            gaps.expire()
    for item in broken:
        source, options = item if isinstance(item, tuple) else (item, {})
        _check_refusal(subject, source, options)


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
    want = np.asarray(sample.function(points.astype(np.float32)), dtype=np.float64)
    for dtype in (DType.FLOAT32, DType.FLOAT64):
        got = np.asarray(evaluate_graph(graph, points, dtype), dtype=np.float64)
        if got.shape != want.shape and got.size == want.size:
            want = want.reshape(got.shape)
        scale = float(np.abs(want[np.isfinite(want)]).max(initial=1.0))
        if got.shape != want.shape or not np.allclose(got, want, rtol=0, atol=sample.tolerance * scale, equal_nan=True):
            fail(
                "outputs",
                f"in {dtype} {got.tolist()} of shape {got.shape}, the source gives {want.tolist()} {want.shape}",
            )
    alone = np.concatenate([np.asarray(sample.function(x[None].astype(np.float32)), np.float64) for x in points])
    if not np.allclose(alone.reshape(want.shape), want, rtol=0, atol=sample.tolerance * scale, equal_nan=True):
        fail("batch", "the source itself mixes the points of a batch, so no graph of one sample is right")


def _check_legal(graph: PrimalGraph, fail: Callable[[str, str], None]) -> None:
    try:
        verify_graph(graph)
    except BoundFlowError as error:
        fail("graph", str(error))


def _check_refusal(frontend: Frontend, source: Any, options: Mapping[str, Any]) -> None:
    from boundflow_core.testing.laws import ConformanceError

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
    """One to three points on a coarse grid, zero and larger ones among them."""
    s = Source(draw)
    count, scale = s.whole(1, 3), s.choice((1.0, 0.37, 0.0, 5.0))
    rng = np.random.default_rng(s.whole(0, 2**16))
    return np.asarray((rng.integers(-16, 17, (count, *shape)) / 8.0 * scale).astype(np.float32), dtype=np.float64)


def _shown(frontend: Frontend) -> str:
    return repr(frontend.name) if registry().frontends.get(frontend.name) is frontend else "frontend"
