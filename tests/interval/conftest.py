"""Bounds by the method ibp, written out and run by the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType
from boundflow_core.workshop import write_program
from boundflow_interval import IBP, INTERVAL

Array = NDArray[Any]
Bounds = tuple[Array, Array]


@pytest.fixture
def ibp() -> Callable[..., Bounds]:
    """``ibp(graph, lower, upper, rows=None, offset=None, dtype="float64") -> (lower, upper)``."""

    def run(
        graph: PrimalGraph,
        lower: Any,
        upper: Any,
        rows: Array | None = None,
        offset: Array | None = None,
        dtype: str = "float64",
    ) -> Bounds:
        kind = None if rows is None else ("shared" if rows.shape[0] == 1 else "per region")
        program = write_program(graph, IBP, {"interval": INTERVAL}, dtype=DType(dtype), spec=kind, options={})
        inputs = {"lower": np.asarray(lower), "upper": np.asarray(upper)}
        if rows is not None:
            inputs |= {"C": rows, "offset": np.zeros(rows.shape[:2]) if offset is None else offset}
        results = evaluate(program, inputs)
        return results["lower"], results["upper"]

    return run


@pytest.fixture
def one_op() -> Callable[..., PrimalGraph]:
    """``one_op(op, shape, *constants, **attributes)``: the graph of one operator on the input."""

    def build(op: str, shape: tuple[int, ...], *constants: Array, **attributes: Any) -> PrimalGraph:
        g = PrimalBuilder(op, "x", shape)
        return g.finish(g.op(op, g.input, *constants, **attributes))

    return build
