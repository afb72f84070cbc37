"""Rules of one's own operator for other people's domains, and how torch and ONNX networks that have it are read.

The operator is squareplus, f(x) = (x + sqrt(x^2 + 4)) / 2 (Barron, 2021): it rises, and it is convex.

    bf.load(module, example_inputs=(x,), converters=TORCH)  # calls torch.ops.example.squareplus, a torch.library op
    bf.load("net.onnx", converters=ONNX)                    # has the operator Squareplus of the domain example
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from boundflow_core.extension import OpRule, RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal_ops import PrimalOp
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


def f(b: Builder, x: Value) -> Value:
    return 0.5 * (x + b.sqrt(x * x + 4.0))


# The operator: its meaning is tensor code. `lead` is the number of batch axes, which nothing elementwise cares about.
SQUAREPLUS = PrimalOp("squareplus", ("x",), "squareplus", lambda b, attrs, lead, x: f(b, x), elementwise=True)


def interval_rule(ctx: RuleContext, x: Any) -> Any:
    """A rising function takes the ends to the ends; computed, it may fall by the last digit."""
    b, low, high = ctx.b, f(ctx.b, x.lower), f(ctx.b, x.upper)
    return type(x)(b.minimum(low, high), b.maximum(low, high))


def linear_rule(ctx: Any, rows: Value) -> Any:
    """Backward: rows on the result become rows on the operand. The line below is a tangent, the one above the chord."""
    from boundflow_crown import convex, relaxed  # whoever asks for this rule has it installed

    def lines(b: Builder, x: Any, attrs: Attrs, constants: tuple[Value, ...], options: Mapping[str, Any]) -> Any:
        return convex(b, x, lambda v: f(b, v), lambda v: 0.5 * (1.0 + v / b.sqrt(v * v + 4.0)))

    return relaxed(lines)(ctx, rows)


@hookimpl
def boundflow_register_op_rules() -> list[OpRule]:
    return [OpRule("interval", "squareplus", interval_rule), OpRule("linear", "squareplus", linear_rule)]


TORCH = {"example.squareplus": lambda call, x: call.g.op(SQUAREPLUS, x)}
ONNX = {"example::Squareplus": lambda node: node.g.op(SQUAREPLUS, node.operand())}
