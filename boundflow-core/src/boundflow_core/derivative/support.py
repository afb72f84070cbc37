"""What derivative rules share: the rule of a primitive, sums that undo broadcasting, numbers of a value's type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import DerivativeRule, Op, Value
from boundflow_core.ir.types import Attrs, Shape

__all__ = ["Gradients", "fitted", "number", "primitive", "zeros"]

Gradients = Sequence[Value | None]


def primitive(rule: Callable[[Builder, Attrs, Sequence[Value], Value, Value], Gradients]) -> DerivativeRule:
    """``rule(b, attrs, inputs, output, grad)``, for an operation of one result, as a derivative rule.

    Gradients may have the shape that the operands broadcast to.
    """

    def derivative(
        b: Builder, op: Op, inputs: Sequence[Value], outputs: Sequence[Value], grads: Sequence[Value | None]
    ) -> Gradients:
        (output,), (grad,) = outputs, grads
        if grad is None:
            return [None] * len(inputs)
        parts = rule(b, op.attrs, inputs, output, grad)
        return [
            None if part is None else fitted(b, part, value.shape) for part, value in zip(parts, inputs, strict=True)
        ]

    return derivative


def number(b: Builder, value: float, like: Value) -> Value:
    """A number in the element type of ``like``."""
    return b.cast(b.constant(value), like.type.dtype)


def zeros(b: Builder, like: Value, shape: Shape) -> Value:
    return b.broadcast(number(b, 0.0, like), shape)


def fitted(b: Builder, grad: Value, shape: Shape) -> Value:
    """The adjoint of broadcasting from ``shape``: sums over the axes that were repeated."""
    ahead = grad.rank - len(shape)
    repeated = [axis for axis in range(grad.rank) if axis < ahead or shape[axis - ahead] == 1 != grad.shape[axis]]
    if repeated:
        grad = b.reduce_sum(grad, repeated)
    return b.reshape(grad, shape)
