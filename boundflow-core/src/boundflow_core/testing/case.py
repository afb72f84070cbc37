"""One case of the conformance kit: a small network and regions of its input; printed as code to paste."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.forward import forward_program
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import DType

__all__ = ["OpCase", "array_code", "as_code"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False, repr=False)
class OpCase:
    """A network around one operator, with regions.

    All numbers are float32 numbers, so that they are the same in programs of either element type.

    Attributes:
        op: the operator under test.
        graph: the network.
        lower, upper: boxes [B, *input].
        inner_lower, inner_upper: a box within each, [B, *input].
        rows, offset: specification rows [1 or B, S, n] and [1 or B, S].
        finite: whether the operator's range over the regions is bounded, so that bounds must be finite.
    """

    op: str
    graph: PrimalGraph
    lower: Array
    upper: Array
    inner_lower: Array
    inner_upper: Array
    rows: Array
    offset: Array
    finite: bool = True

    @cached_property
    def _forward(self) -> BoundProgram:
        return forward_program(self.graph, DType.FLOAT64)

    def outputs(self, points: Array) -> Array:
        """The network at points [B, K, *input], flat: [B, K, n], in float64."""
        count = points.shape[:2]
        flat = points.reshape(-1, *points.shape[2:])
        return evaluate(self._forward, {"x": flat})["y"].reshape(*count, -1)

    def on_rows(self, outputs: Array) -> Array:
        """Specification rows on outputs [B, K, n]: [B, K, S]."""
        return np.asarray(outputs @ self.rows.swapaxes(-1, -2) + self.offset[:, None, :])

    def __repr__(self) -> str:
        return as_code(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What Hypothesis prints of a failing case, short because the error's message has the code."""
        printer.text(f"OpCase around {self.op!r}, shown as code in the error's message")


def as_code(case: OpCase, call: str = "") -> str:
    """Python code that builds the case, and then makes ``call``.

    Operators of plugins go by their names in it ("_" for "-"), which comments at its head ask for.
    """
    graph = case.graph
    foreign = sorted({node.op for node in graph.nodes if PRIMAL_OPS.get(node.op) is not node.spec})
    names = {graph.input: "g.input"}
    lines = [
        "import numpy as np",
        "from numpy import inf",
        "from boundflow_core.ir.primal_builder import PrimalBuilder",
        "from boundflow_core.testing import Expectations, OpCase, check_case",
        *(f"# {_identifier(op)} = the PrimalOp {op!r} of a plugin, to be imported here" for op in foreign),
        f"g = PrimalBuilder({graph.name!r}, {graph.input!r}, {graph.input_type.shape!r})",
    ]
    for number, node in enumerate(graph.nodes):
        operands = [names[name] if name in names else array_code(graph.constants[name].numpy()) for name in node.inputs]
        attributes = [f"{key}={value!r}" for key, value in node.attrs.items()]
        op = repr(node.op) if PRIMAL_OPS.get(node.op) is node.spec else _identifier(node.op)
        names[node.output] = f"v{number}"
        lines.append(f"v{number} = g.op({', '.join([op, *operands, *attributes])})")
    lines.append("case = OpCase(")
    lines.append(f"    {case.op!r}, g.finish({names[graph.output]}), finite={case.finite},")
    for name in ("lower", "upper", "inner_lower", "inner_upper", "rows", "offset"):
        lines.append(f"    {name}={array_code(getattr(case, name))},")
    return "\n".join([*lines, ")", *([call] if call else [])])


def _identifier(name: str) -> str:
    return re.sub(r"\W", "_", name)


def array_code(array: Array) -> str:
    """Python code of an array, which needs the names ``np`` and ``inf``."""
    if array.size == 0:
        return f"np.zeros({array.shape}, {array.dtype.name!r})"
    text = f"np.array({array.tolist()!r}"
    return f"{text})" if array.dtype == np.float64 else f"{text}, {array.dtype.name!r})"
