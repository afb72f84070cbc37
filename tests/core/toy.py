"""A small network and a method of its own, so that the core is tested without any plugin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.builtin import boundflow_register_executors
from boundflow_core.cache import BoundCache
from boundflow_core.compiled import CompiledBounds, CompileOptions
from boundflow_core.extension import Domain, Method, MethodContext, RuleContext
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import DType, size
from boundflow_core.plugins import Registry
from boundflow_core.walk import forward_states

Array = NDArray[Any]
Pair = tuple[Value, Value]
SHAPE = (5,)
OUTPUTS = 3


def _linear(context: RuleContext, x: Pair, weight: Value, bias: Value | None = None) -> Pair:
    b = context.b
    centre, radius = (x[0] + x[1]) * 0.5, (x[1] - x[0]) * 0.5
    middle = b.matmul(centre, weight, transpose_b=True)
    spread = b.matmul(radius, b.abs(weight), transpose_b=True)
    middle = middle if bias is None else middle + bias
    return middle - spread, middle + spread


def _relu(context: RuleContext, x: Pair) -> Pair:
    return context.b.maximum(x[0], 0.0), context.b.maximum(x[1], 0.0)


def _emit(context: MethodContext) -> Pair:
    b = context.b
    region = (context.lower, context.upper)
    states = forward_states(b, context.graph, context.rules["toy"], region, domain="toy")
    lower, upper = states[context.graph.output]
    lower = lower - context.options["slack"]
    if context.spec is None:
        return lower, upper
    rows, offset = context.spec.C, context.spec.offset
    batch, n = lower.shape[0], size(lower.shape[1:])
    positive, negative = b.maximum(rows, 0.0), b.minimum(rows, 0.0)
    low, high = b.reshape(lower, (batch, n, 1)), b.reshape(upper, (batch, n, 1))
    bounds = b.matmul(positive, low) + b.matmul(negative, high), b.matmul(positive, high) + b.matmul(negative, low)
    return tuple(b.reshape(one, one.shape[:2]) + offset for one in bounds)  # type: ignore[return-value]


DOMAIN = Domain("toy", "intervals as pairs", {"linear": _linear, "relu": _relu})
METHOD = Method("toy", "intervals", ("toy",), emit=_emit, options={"slack": 0.0})
EXECUTORS = {executor.name: executor for executor in boundflow_register_executors()}
REGISTRY = Registry(domains={"toy": DOMAIN}, methods={"toy": METHOD}, executors=EXECUTORS)


def network(seed: int = 0, weight: Constant | None = None) -> PrimalGraph:
    """Two layers, 5 -> 4 -> 3; the first layer's weight may be given."""
    numbers = np.random.default_rng(seed)
    g = PrimalBuilder("toy", "x", SHAPE)
    first = weight or frozen(numbers.normal(size=(4, 5)))
    hidden = g.op("relu", g.op("linear", g.input, first, numbers.normal(size=4)))
    return g.finish(g.op("linear", hidden, numbers.normal(size=(OUTPUTS, 4)), numbers.normal(size=OUTPUTS)))


def compiled(
    graph: PrimalGraph | None = None,
    *,
    cache: BoundCache | None = None,
    executor: str = "reference",
    registry: Registry = REGISTRY,
    dtype: DType = DType.FLOAT64,
    slack: float = 0.0,
    **options: Any,
) -> CompiledBounds:
    options = {"dtype": dtype, "cache": cache, "method": {"slack": slack}, **options}
    return CompiledBounds(
        graph or network(), registry.method("toy"), registry, EXECUTORS[executor], CompileOptions(**options)
    )


def with_registry(**changes: Any) -> Registry:
    return replace(REGISTRY, **changes)
