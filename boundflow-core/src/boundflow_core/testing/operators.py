"""Cases for every normalized operator: ``PLANS`` at the bottom has strategies for each, one a kind of use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.ir.primal_builder import PrimalBuilder, Tensor
from boundflow_core.ir.primal_ops import PrimalOp
from boundflow_core.testing.case import OpCase
from boundflow_core.testing.draws import Source

__all__ = ["PLANS", "Plan", "cases", "kinds"]

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """How a case applies its operator.

    Attributes:
        shapes: shapes of the operands that depend on the input.
        apply: ``apply(builder, *operands) -> tensor``.
        positive: the operands must be above zero.
        layer_before: whether a layer may come before it. Not so where the function jumps: rounding before a jump is not
            rounding after it.
        finite: whether its range is bounded; if not, no layer comes after it.
        scales: scales of the region.
    """

    shapes: tuple[Shape, ...]
    apply: Callable[..., Tensor]
    positive: bool = False
    layer_before: bool = True
    finite: bool = True
    scales: tuple[float, ...] = (1.0, 0.37, 50.0)

    @property
    def repeats(self) -> bool:
        """Whether it can be applied to what a layer makes of its own result."""
        return self.layer_before and self.finite and self.scales is not SMALL


SMALL = (1.0, 0.37)  # scales for functions that grow fast
HUGE = (3000.0,)
Make = Callable[[Source], Plan]


def kinds(op: str | PrimalOp, attributes: Mapping[str, Any]) -> tuple[Make, ...]:
    """The kinds of use of ``op``; one that is not of the normalized set is a function of one operand."""
    name = op if isinstance(op, str) else op.name
    return (_one_operand(op, attributes),) if attributes or name not in PLANS else PLANS[name]


@st.composite
def cases(
    draw: Callable[[st.SearchStrategy[Any]], Any], op: str | PrimalOp, uses: Sequence[Make], huge: bool = False
) -> OpCase:
    """Strategy of cases around operator ``op``, used in one of these ways; ``huge``: regions of numbers up to 6000."""
    s = Source(draw)
    name = op if isinstance(op, str) else op.name
    plan = (uses[0] if len(uses) == 1 else s.choice(uses))(s)
    before = plan.layer_before and s.flag()
    after = plan.finite and s.flag()
    twice = plan.repeats and s.choice((False, False, True))  # two nodes of a kind share nothing by mistake
    sizes = [math.prod(shape) for shape in plan.shapes]
    if before:
        shape: Shape = (s.whole(1, 3),)
    else:
        shape = plan.shapes[0] if len(sizes) == 1 else (sum(sizes),)
    g = PrimalBuilder(name, "x", shape)
    x = _layer(s, g, g.input, sum(sizes), plan.positive) if before else g.input
    y = plan.apply(g, *_operands(g, x, plan.shapes, sizes))
    if twice:
        y = plan.apply(g, *_operands(g, _layer(s, g, y, sum(sizes), plan.positive), plan.shapes, sizes))
    if after:
        flat = _flat(g, y)
        y = g.op("linear", flat, s.array((s.whole(1, 2), flat.shape[0])))
    graph = g.finish(y)
    scales = HUGE if huge and plan.scales is not SMALL else plan.scales
    lower, upper, inner_lower, inner_upper = _regions(s, shape, scales, positive=plan.positive and not before)
    count = math.prod(y.shape)
    lead, rows = (1 if s.flag() else len(lower)), s.whole(1, 2)
    return OpCase(
        name,
        graph,
        lower,
        upper,
        inner_lower,
        inner_upper,
        s.array((lead, rows, count)),
        s.array((lead, rows)),
        plan.finite,
    )


def _flat(g: PrimalBuilder, x: Tensor) -> Tensor:
    return g.op("reshape", x, shape=(math.prod(x.shape),)) if len(x.shape) != 1 else x


def _layer(s: Source, g: PrimalBuilder, x: Tensor, count: int, positive: bool) -> Tensor:
    """``count`` numbers, of all of ``x``; above zero if ``positive``."""
    flat = _flat(g, x)
    y: Tensor = g.op("linear", flat, s.array((count, flat.shape[0])), s.array((count,)))
    return g.op("add", g.op("relu", y), g.scalar(0.125)) if positive else y


def _operands(g: PrimalBuilder, x: Tensor, shapes: tuple[Shape, ...], sizes: list[int]) -> list[Tensor]:
    """Consecutive pieces of ``x`` in the shapes wanted; one shape takes all of it."""
    if len(shapes) == 1:
        return [g.op("reshape", x, shape=shapes[0]) if x.shape != shapes[0] else x]
    pieces, start = [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        piece = g.op("slice", x, starts=(start,), stops=(start + size,), steps=(1,))
        pieces.append(g.op("reshape", piece, shape=shape) if piece.shape != shape else piece)
        start += size
    return pieces


def _regions(s: Source, shape: Shape, scales: tuple[float, ...], positive: bool) -> tuple[Array, Array, Array, Array]:
    """One to three boxes, some of them points or points in some coordinates, and a box within each."""
    batch = (s.whole(1, 3), *shape)
    radius = s.positive(batch, (1.0, 0.37, 0.0, 4.0))
    if positive:
        lower = s.positive(batch, scales if scales is HUGE else (1.0, 0.37, 0.0)) + 0.0625
        upper = lower + radius
    else:
        centre = s.array(batch, scales)
        lower, upper = centre - radius, centre + radius
    lower, upper = (np.asarray(end.astype(np.float32), dtype=np.float64) for end in (lower, upper))
    from_lower, from_upper = (np.abs(s.array(batch, (0.25, 0.0))) for _ in range(2))  # shares of at most a half
    inner_lower = (lower + from_lower * (upper - lower)).astype(np.float32).astype(np.float64)
    inner_upper = (upper - from_upper * (upper - lower)).astype(np.float32).astype(np.float64)
    inner_lower = np.minimum(np.maximum(inner_lower, lower), upper)
    return lower, upper, inner_lower, np.minimum(np.maximum(inner_upper, inner_lower), upper)


# -- plans, one function an operator or kind of operators ----------------------------------------------------------


def _linear(s: Source) -> Plan:
    shape, outputs = s.shape(), s.whole(1, 3)
    rest = [s.array((outputs, shape[-1])), *([s.array((outputs,))] if s.flag() else [])]
    return Plan((shape,), lambda g, x: g.op("linear", x, *rest))


def _window(s: Source) -> tuple[list[int], dict[str, Any], list[int]]:
    """Kernel, attributes and span of a sliding window, whose padding is less than its kernel."""
    kernel = [s.whole(1, 3) for _ in range(2)]
    stride, dilation = [s.whole(1, 2) for _ in range(2)], [s.whole(1, 2) for _ in range(2)]
    padding = [s.whole(0, kernel[axis] - 1) for axis in (0, 1, 0, 1)]
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return kernel, {"stride": stride, "padding": padding, "dilation": dilation}, span


def _images(s: Source, channels: int, least: list[int], most: int = 4) -> Shape:
    lead = (s.whole(1, 2),) if s.whole(0, 3) == 3 else ()
    return (*lead, channels, *(s.whole(low, max(low, most)) for low in least))


def _conv2d(s: Source) -> Plan:
    kernel, attributes, span = _window(s)
    groups, inside, outside = s.whole(1, 2), s.whole(1, 2), s.whole(1, 2)
    weight = s.array((groups * outside, inside, *kernel))
    rest = [weight, *([s.array((groups * outside,))] if s.flag() else [])]
    shape = _images(s, groups * inside, span)
    return Plan((shape,), lambda g, x: g.op("conv2d", x, *rest, **attributes, groups=groups))


def _conv_transpose2d(s: Source) -> Plan:
    kernel, attributes, span = _window(s)
    attributes["padding"] = [s.whole(0, (span[axis] - 1) // 2) for axis in (0, 1, 0, 1)]
    attributes["output_padding"] = [s.whole(0, stride - 1) for stride in attributes["stride"]]
    groups, inside, outside = s.whole(1, 2), s.whole(1, 2), s.whole(1, 2)
    rest = [s.array((groups * inside, outside, *kernel)), *([s.array((groups * outside,))] if s.flag() else [])]
    shape = _images(s, groups * inside, [1, 1], 2)
    return Plan((shape,), lambda g, x: g.op("conv_transpose2d", x, *rest, **attributes, groups=groups))


def _max_pool2d(s: Source) -> Plan:
    kernel, attributes, span = _window(s)
    shape = _images(s, s.whole(1, 2), span)
    return Plan((shape,), lambda g, x: g.op("max_pool2d", x, kernel=kernel, **attributes))


def _reduce(s: Source, op: str) -> Plan:
    shape = s.shape()
    axes, keepdims = s.subset(len(shape)), s.flag()
    return Plan((shape,), lambda g, x: g.op(op, x, axes=axes, keepdims=keepdims))


def _binary(kind: str, s: Source, op: str) -> Plan:
    """Two perturbed operands, one of them twice, or a constant on either side."""
    shape = s.shape()
    if kind == "two":
        other = tuple(dim if s.flag() else 1 for dim in shape)
        return Plan((shape, other) if s.flag() else (other, shape), lambda g, x, y: g.op(op, x, y))
    if kind == "twice":
        return Plan((shape,), lambda g, x: g.op(op, x, x))
    constant = s.array(s.broadcasting(shape))
    narrow = tuple(dim if s.flag() else 1 for dim in shape)  # the constant may be wider than the operand
    constant = constant if s.flag() else s.array(shape)
    if kind == "right":
        return Plan((narrow,), lambda g, x: g.op(op, x, constant))
    return Plan((narrow,), lambda g, x: g.op(op, constant, x))


def _matmul(kind: str, s: Source) -> Plan:
    m, k, n = (s.whole(1, 3) for _ in range(3))
    lead = s.shape(0, 1)
    if kind == "two":
        return Plan(((*lead, m, k), (*lead, k, n)), lambda g, x, y: g.op("matmul", x, y))
    if kind == "twice":
        return Plan(((*lead, k, k),), lambda g, x: g.op("matmul", x, x))
    if kind == "right":
        right = s.array((k, n))
        return Plan(((*lead, m, k),), lambda g, x: g.op("matmul", x, right))
    left = s.array((m, k))
    return Plan(((*lead, k, n),), lambda g, x: g.op("matmul", left, x))


def _where(kind: str, s: Source) -> Plan:
    shape = s.shape()
    condition, constant = s.mask(shape), s.array(s.broadcasting(shape))
    if kind == "two":
        return Plan((shape, shape), lambda g, x, y: g.op("where", condition, x, y))
    if kind == "right":
        return Plan((shape,), lambda g, x: g.op("where", condition, x, constant))
    return Plan((shape,), lambda g, x: g.op("where", condition, constant, x))


def _reshape(s: Source) -> Plan:
    shape = s.shape()
    target = s.choice(((math.prod(shape),), shape[::-1], (1, *shape), (math.prod(shape), 1)))
    return Plan((shape,), lambda g, x: g.op("reshape", x, shape=target))


def _permute(s: Source) -> Plan:
    shape = s.shape()
    axes = s.choice((tuple(range(len(shape)))[::-1], (*range(1, len(shape)), 0), tuple(range(len(shape)))))
    return Plan((shape,), lambda g, x: g.op("permute", x, axes=axes))


def _expand(s: Source) -> Plan:
    target = s.shape(1, 3)
    narrow = tuple(dim if s.flag() else 1 for dim in target[s.whole(0, len(target) - 1) :])
    return Plan((narrow,), lambda g, x: g.op("expand", x, shape=target))


def _slice(s: Source) -> Plan:
    shape = s.shape(most=4)
    starts = tuple(s.whole(0, dim - 1) for dim in shape)
    stops = tuple(s.whole(start + 1, dim) for start, dim in zip(starts, shape, strict=True))
    steps = tuple(s.whole(1, 2) for _ in shape)
    return Plan((shape,), lambda g, x: g.op("slice", x, starts=starts, stops=stops, steps=steps))


def _pad(s: Source) -> Plan:
    shape = s.shape()
    low, high = (tuple(s.whole(0, 1) for _ in shape) for _ in range(2))
    value = s.choice((0.0, 1.5, -2.0))
    return Plan((shape,), lambda g, x: g.op("pad", x, low=low, high=high, value=value))


def _concat(kind: str, s: Source) -> Plan:
    shape = s.shape()
    axis = s.whole(0, len(shape) - 1)
    other = (*shape[:axis], s.whole(1, 2), *shape[axis + 1 :])
    if kind == "two":
        return Plan((shape, other), lambda g, x, y: g.op("concat", x, y, axis=axis))
    if kind == "twice":
        return Plan((shape,), lambda g, x: g.op("concat", x, x, axis=axis))
    constant = s.array(other)
    if kind == "right":
        return Plan((shape,), lambda g, x: g.op("concat", x, constant, axis=axis))
    if kind == "left":
        return Plan((shape,), lambda g, x: g.op("concat", constant, x, axis=axis))
    return Plan((shape,), lambda g, x: g.op("concat", x, axis=axis))


def _gather(s: Source) -> Plan:
    shape = s.shape()
    axis = s.whole(0, len(shape) - 1)
    index = np.array([s.whole(0, shape[axis] - 1) for _ in range(s.whole(1, 4))], dtype=np.int64)
    return Plan((shape,), lambda g, x: g.op("gather", x, index, axis=axis))


def _one_operand(op: str | PrimalOp, attributes: Mapping[str, Any]) -> Make:
    return lambda s: Plan((s.shape(1, 2),), lambda g, x: g.op(op, x, **attributes))


def _unary(s: Source, op: str, **keywords: Any) -> Plan:
    return Plan((s.shape(1, 2),), lambda g, x: g.op(op, x), **keywords)


def _leaky_relu(s: Source) -> Plan:
    shape = s.shape()
    slope = s.array(s.broadcasting(shape))
    return Plan((shape,), lambda g, x: g.op("leaky_relu", x, slope))


def _clip(kind: str, s: Source) -> Plan:
    low, high = sorted(float(end) for end in s.array((2,)))
    low, high = (-math.inf if kind == "above" else low), (math.inf if kind == "below" else high)
    return Plan((s.shape(1, 2),), lambda g, x: g.op("clip", x, min=low, max=high))


def _gelu(approximate: str, s: Source) -> Plan:
    return Plan((s.shape(1, 2),), lambda g, x: g.op("gelu", x, approximate=approximate))


def _pow(exponents: Sequence[float], s: Source) -> Plan:
    exponent = s.choice(exponents)
    positive = not exponent.is_integer()
    return Plan((s.shape(1, 2),), lambda g, x: g.op("pow", x, exponent=exponent), positive=positive, scales=SMALL)


def _singular(kind: str, s: Source, op: str, exponents: Sequence[float] = ()) -> Plan:
    """Functions with a pole at zero: on either side of it, or across, where no finite bounds exist."""
    shape = s.shape(1, 2)
    attributes = {"exponent": s.choice(exponents)} if exponents else {}
    if kind == "across":  # not behind a layer: the sign of a zero may be lost in rounding, and with it that of infinity
        return Plan((shape,), lambda g, x: g.op(op, x, **attributes), layer_before=False, finite=False)
    if kind == "left":
        return Plan((shape,), lambda g, x: g.op(op, g.neg(x), **attributes), positive=True)
    return Plan((shape,), lambda g, x: g.op(op, x, **attributes), positive=True)


def _softmax(s: Source) -> Plan:
    shape = s.shape(most=8)
    axis = s.whole(0, len(shape) - 1)
    return Plan((shape,), lambda g, x: g.op("softmax", x, axis=axis))


def _each(make: Callable[..., Plan], choices: Sequence[Any], **keywords: Any) -> tuple[Make, ...]:
    """A kind of use for every choice."""
    return tuple(partial(make, choice, **keywords) for choice in choices)


OPERANDS = ("two", "twice", "right", "left")  # what depends on the input, or on which side the constant is
POLE = ("right", "left", "across")
POWERS = ((2.0, 4.0, 6.0), (3.0, 5.0, 7.0), (0.0, 1.0), (0.5, 1.5, 2.5, -0.5, -1.5))

PLANS: Mapping[str, tuple[Make, ...]] = {
    "linear": (_linear,),
    "conv2d": (_conv2d,),
    "conv_transpose2d": (_conv_transpose2d,),
    "reduce_sum": (partial(_reduce, op="reduce_sum"),),
    "add": _each(_binary, OPERANDS, op="add"),
    "mul": _each(_binary, OPERANDS, op="mul"),
    "matmul": _each(_matmul, OPERANDS),
    "maximum": _each(_binary, OPERANDS, op="maximum"),
    "minimum": _each(_binary, OPERANDS, op="minimum"),
    "where": _each(_where, ("two", "right", "left")),
    "reshape": (_reshape,),
    "permute": (_permute,),
    "expand": (_expand,),
    "slice": (_slice,),
    "pad": (_pad,),
    "concat": _each(_concat, (*OPERANDS, "one")),
    "gather": (_gather,),
    "relu": (partial(_unary, op="relu"),),
    "leaky_relu": (_leaky_relu,),
    "clip": _each(_clip, ("both", "above", "below")),
    "sigmoid": (partial(_unary, op="sigmoid"),),
    "tanh": (partial(_unary, op="tanh"),),
    "erf": (partial(_unary, op="erf"),),
    "gelu": _each(_gelu, ("none", "tanh")),
    "softplus": (partial(_unary, op="softplus"),),
    "exp": (partial(_unary, op="exp", scales=SMALL),),
    "log": (partial(_unary, op="log", positive=True),),
    "sqrt": (partial(_unary, op="sqrt", positive=True),),
    "reciprocal": _each(_singular, POLE, op="reciprocal"),
    "pow": (*_each(_pow, POWERS), *_each(_singular, POLE, op="pow", exponents=(-1.0, -2.0, -3.0, -4.0))),
    "abs": (partial(_unary, op="abs"),),
    "sign": (partial(_unary, op="sign", layer_before=False),),
    "floor": (partial(_unary, op="floor", layer_before=False),),
    "sin": (partial(_unary, op="sin"),),
    "cos": (partial(_unary, op="cos"),),
    "softmax": (_softmax,),
    "max_pool2d": (_max_pool2d,),
    "reduce_max": (partial(_reduce, op="reduce_max"),),
    "reduce_min": (partial(_reduce, op="reduce_min"),),
}
