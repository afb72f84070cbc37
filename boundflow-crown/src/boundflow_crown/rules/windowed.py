"""Rules for rows that are windows of maps. An operator that has none here takes full maps.

``rule(context, window) -> Step``, or None where this case of the operator takes full maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, concrete_shape, size
from boundflow_crown.relax import RELAXATIONS
from boundflow_crown.rows import Rows
from boundflow_crown.rules.activation import relaxed
from boundflow_crown.walk import BackwardContext, BackwardRule, Step, relaxation_slopes
from boundflow_crown.windows import Window, WindowRows, as_window, cleaned, spread

__all__ = ["WINDOW_RULES"]

WindowRule = Callable[[BackwardContext, Window], "Step | None"]


def _rows(ctx: BackwardContext) -> Rows:
    assert isinstance(ctx.rows, Rows)
    return ctx.rows


def conv2d(ctx: BackwardContext, window: Window) -> Step | None:
    """The adjoint of a convolution, on windows: they grow by the kernel. From a single neuron, that is its weights."""
    b, attrs = ctx.b, ctx.attrs
    weight = ctx.constant(1)
    frame = window.frame.below_conv(attrs, concrete_shape(weight.shape[2:], {}))
    extent = concrete_shape(ctx.shape(0)[-2:], {})
    if window.value is None and attrs["groups"] == 1 and tuple(attrs["dilation"]) == (1, 1):
        channel = window.picks.channel()
        below = spread(b, b.gather_rows(b.permute(weight, (0, 2, 3, 1)), channel), _rows(ctx))
        bias = spread(b, b.gather_rows(ctx.constant(2), channel), _rows(ctx)) if len(ctx.node.inputs) == 3 else None
    else:
        value, layout = cleaned(window, _rows(ctx), concrete_shape(ctx.node.type.shape[-2:], {}))
        images = b.permute(b.reshape(value, (size(ctx.rows.front), *value.shape[-3:])), (0, 3, 1, 2))
        inner = Attrs(attrs, padding=(0, 0, 0, 0), input_size=frame.size)
        through = b.permute(b.emit_named("conv2d_input_grad", images, weight, attrs=inner), (0, 2, 3, 1))
        below = b.reshape(through, (*ctx.rows.front, *through.shape[1:]))
        bias = _channel_bias(layout, value, ctx.constant(2)) if len(ctx.node.inputs) == 3 else None
    return Step({0: replace(window, value=below, frame=frame, clean=frame.inside(extent))}, bias)


def _channel_bias(layout: WindowRows, value: Value, bias: Value) -> Value:
    """``value`` [*front, h, w, C] times a constant [C], summed: a product with a vector, one pass over the windows."""
    b, front, window = layout.b, value.shape[:-3], value.shape[-3:]
    each = b.reshape(b.broadcast(bias, window), (size(window), 1))
    return b.reshape(b.matmul(b.reshape(value, (size(front), size(window))), each), front)


def add(ctx: BackwardContext, window: Window) -> Step | None:
    """The rows go to both operands; a constant goes into the bias."""
    if any(not ctx.is_constant(n) and ctx.shape(n) != ctx.node.type.shape for n in (0, 1)):
        return None
    if ctx.node.inputs[0] == ctx.node.inputs[1]:
        value, _ = as_window(window, _rows(ctx))
        return Step({0: replace(window, value=value * 2.0)})
    constants = [number for number in (0, 1) if ctx.is_constant(number)]
    if not constants:
        return Step({0: window, 1: window})
    value, layout = as_window(window, _rows(ctx))
    terms = layout.split(value) * layout.lift_constant(_map(ctx, constants[0]))
    return Step({1 - constants[0]: replace(window, value=value)}, layout.merged(layout.sum(terms)))


def mul(ctx: BackwardContext, window: Window) -> Step | None:
    """Times a constant."""
    for number in (0, 1):
        if ctx.is_constant(number) and ctx.shape(1 - number) == ctx.node.type.shape:
            value, layout = as_window(window, _rows(ctx))
            product = layout.split(value) * layout.lift_constant(_map(ctx, number))
            return Step({1 - number: replace(window, value=layout.merged(product), clean=True)})
    return None


def _map(ctx: BackwardContext, number: int) -> Value:
    """Operand ``number``, a constant, in the shape of the result [C, H, W]."""
    return ctx.b.broadcast(ctx.constant(number), ctx.node.type.shape)


def pad(ctx: BackwardContext, window: Window) -> Step | None:
    """Zeros around a map: the same windows, which reach further out of it."""
    low, high = ctx.attrs["low"], ctx.attrs["high"]
    if ctx.attrs["value"] != 0.0 or low[0] or high[0] or min(*low, *high) < 0:
        return None
    value, _ = as_window(window, _rows(ctx))
    frame = window.frame.moved(low[1:])
    return Step({0: Window(value, frame, window.picks, frame.inside(concrete_shape(ctx.shape(0)[-2:], {})))})


def elementwise(rule: BackwardRule) -> WindowRule:
    """The rule of an activation on windows, whose lines are zero outside of the map."""

    def windowed(ctx: BackwardContext, window: Window) -> Step | None:
        constants = (ctx.constant(number) for number in range(1, len(ctx.node.inputs)))
        if ctx.slopes is not relaxation_slopes and any(size(constant.shape) != 1 for constant in constants):
            return None  # what slopes are kept to would have to be cut out along with the windows
        value, layout = as_window(window, _rows(ctx))
        step = rule(replace(ctx, rows=layout), layout.split(value))
        below = step.rows[0]
        assert isinstance(below, Value)
        bias = None if step.bias is None else layout.merged(step.bias)
        return Step({0: replace(window, value=layout.merged(below), clean=True)}, bias)

    return windowed


WINDOW_RULES: Mapping[str, WindowRule] = {
    "conv2d": conv2d,
    "add": add,
    "mul": mul,
    "pad": pad,
    **{name: elementwise(relaxed(relaxation)) for name, relaxation in RELAXATIONS.items()},
}
