"""Evaluation of networks: a graph's own outputs as a program, and in NumPy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import InputError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import DType, SymDim, format_shape

__all__ = ["evaluate_graph", "forward_program", "forward_values"]


def forward_values(builder: Builder, graph: PrimalGraph, x: Value) -> Mapping[str, Value]:
    """Writes the network itself: every value that depends on the input, by name, from the input ``x`` [B, *input]."""
    values = {graph.input: x}
    for node in graph.nodes:
        with builder.origin(node.name):
            operands = [
                values[name] if name in values else builder.constant(graph.constants[name]) for name in node.inputs
            ]
            values[node.output] = node.spec.emit(builder, node.attrs, 1, *operands)
    return values


def forward_program(graph: PrimalGraph, dtype: DType) -> BoundProgram:
    """The network as a program with input ``x`` [B, *input] and output ``y`` [B, *output]."""
    builder = Builder(dtype, graph.name)
    x = builder.input("x", (SymDim.of("B"), *graph.input_type.shape))
    return builder.finish({"y": forward_values(builder, graph, x)[graph.output]})


def evaluate_graph(graph: PrimalGraph, x: NDArray[Any], dtype: DType = DType.FLOAT64) -> NDArray[Any]:
    """Outputs [B, *output] of the network at the points ``x`` [B, *input], by the reference interpreter in ``dtype``.

    Raises:
        InputError: the points have another shape than the network's input.
    """
    if tuple(np.shape(x)[1:]) != graph.input_type.shape or np.ndim(x) == 0:
        raise InputError(
            f"{graph.name} takes points of shape {format_shape(('B', *graph.input_type.shape))}, "  # type: ignore[arg-type]
            f"not {format_shape(np.shape(x))}"
        )
    return evaluate(forward_program(graph, dtype), {"x": x})["y"]
