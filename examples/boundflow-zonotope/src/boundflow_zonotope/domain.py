"""The domain ``zonotope``: affine forms of every element over error terms that elements share, and its least box.

Affine operators lose nothing. Functions and products take an affine form and an error term for what it leaves out, as
in DeepZ: Singh, Gehr, Mirman, Püschel, Vechev, Fast and Effective Robustness Certification, NeurIPS 2018.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from boundflow_core.extension import Domain, Rule, RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, concrete_dim, concrete_shape

__all__ = ["DOMAIN", "Zonotope", "form", "named"]


@dataclass(frozen=True)
class Zonotope:
    """All ``center + sum_i e_i generators_i + d error`` from ``lower`` to ``upper``; e_i and elements of d: -1 to 1.

    Attributes:
        center: [B, *sample].
        generators: [B, count, *sample], by the name of the value whose errors they are. Coefficients that two values
            have under one name are those of the same e_i.
        error: [B, *sample], not negative: one more error term per element, that no other element has; None: zero.
        lower, upper: [B, *sample], the narrower of what follows from the form and of what intervals give.
        order: how many generators there may be; errors that would exceed that stay with their element.
    """

    center: Value
    generators: Mapping[str, Value]
    error: Value | None
    lower: Value
    upper: Value
    order: int


Operand = Zonotope | Value
Box = tuple[Value, Value]
Slope = Callable[[Builder, Value, Value], Value]


def radius(b: Builder, center: Value, generators: Mapping[str, Value], error: Value | None) -> Value:
    """How far elements may be from the center, [B, *sample]."""
    parts = [b.reduce_sum(b.abs(terms), (1,)) for terms in generators.values()]
    first, *others = parts if error is None else [*parts, error]
    return sum(others, start=first)


def form(
    b: Builder, center: Value, generators: Mapping[str, Value], error: Value | None, order: int, box: Box | None
) -> Zonotope:
    """The zonotope, within ``box``: a lower and an upper bound, or None where there is none."""
    spread = radius(b, center, generators, error)
    lower, upper = center - spread, center + spread
    if box is not None:  # rounding may cross the two, and so must not
        lower = b.maximum(lower, box[0])
        upper = b.maximum(b.minimum(upper, box[1]), lower)
    return Zonotope(center, generators, error, lower, upper, order)


def named(b: Builder, x: Zonotope, name: str) -> Zonotope:
    """The elements' own errors as generators, so that they can cancel out later; unless these would be too many."""
    batch, *sample = x.center.shape
    shape = concrete_shape(sample, {})
    count = math.prod(shape)
    held = sum(concrete_dim(terms.shape[1], {}) for terms in x.generators.values())
    if x.error is None or held + count > x.order:
        return x
    numbers = np.arange(count)
    own = b.compare(b.constant(numbers.reshape(count, *[1] * len(shape))), b.constant(numbers.reshape(shape)), "eq")
    terms = b.where(own, b.reshape(x.error, (batch, 1, *shape)), 0.0)
    return replace(x, generators={**x.generators, name: terms}, error=None)


# -- affine operators -------------------------------------------------------------------------------------------------

BIASED = ("linear", "conv2d", "conv_transpose2d")
ADDING = ("add", "where", "concat")


def affine(ctx: RuleContext, *operands: Operand) -> Zonotope:
    """An operator that is affine in all its operands together: its linear part acts on the errors."""
    b, op, emit = ctx.b, ctx.node.op, ctx.node.spec.emit
    attrs = Attrs(ctx.attrs, value=0.0) if op == "pad" else ctx.attrs

    def linear_part(lead: int, terms: Callable[[Zonotope], Value | None], weight: Callable[[Value], Value]) -> Value:
        parts = []
        for number, x in enumerate(operands):
            if op in BIASED and number == 2:
                continue
            part = terms(x) if isinstance(x, Zonotope) else weight(x)
            if part is None or (not isinstance(x, Zonotope) and x.type.dtype.is_float and op in ADDING):
                part = b.constant(np.zeros(concrete_shape(ctx.input_type(number).shape, {})))
            parts.append(part)
        return emit(b, attrs, lead, *parts)

    forms = [x for x in operands if isinstance(x, Zonotope)]
    center = emit(b, ctx.attrs, 1, *(x.center if isinstance(x, Zonotope) else x for x in operands))
    generators = {
        name: linear_part(2, lambda x, name=name: x.generators.get(name), lambda w: w)  # type: ignore[misc]
        for name in dict.fromkeys(name for x in forms for name in x.generators)
    }

    def magnitude(weight: Value) -> Value:
        return b.abs(weight) if weight.type.dtype.is_float else weight

    error = linear_part(1, lambda x: x.error, magnitude) if any(x.error is not None for x in forms) else None
    middles = (x.lower * 0.5 + x.upper * 0.5 if isinstance(x, Zonotope) else x for x in operands)
    middle = emit(b, ctx.attrs, 1, *middles)
    spread = linear_part(1, lambda x: x.upper * 0.5 - x.lower * 0.5, magnitude)
    return form(b, center, generators, error, forms[0].order, (middle - spread, middle + spread))


def mixing(ctx: RuleContext, *operands: Operand) -> Zonotope:
    """The same for operators whose results share errors of one element."""
    names = ctx.node.inputs
    return affine(
        ctx, *(named(ctx.b, x, n) if isinstance(x, Zonotope) else x for x, n in zip(operands, names, strict=True))
    )


# -- functions of one element -----------------------------------------------------------------------------------------


def scaled(b: Builder, x: Zonotope, slope: Value, shift: Value, error: Value, box: Box) -> Zonotope:
    """``slope x + shift``, off by at most ``error``, within ``box``."""
    factor = b.reshape(slope, (slope.shape[0], 1, *slope.shape[1:]))
    generators = {name: factor * terms for name, terms in x.generators.items()}
    own = error if x.error is None else b.abs(slope) * x.error + error
    return form(b, slope * x.center + shift, generators, own, x.order, box)


def relu_line(b: Builder, x: Zonotope) -> tuple[Value, Value]:
    """Slope u / (u - l), and -u l / (2 (u - l)), which is the shift and the error: theorem 3.1."""
    lower, upper = b.minimum(x.lower, 0.0), b.maximum(x.upper, 0.0)
    slope = upper / b.maximum(upper - lower, float(np.finfo(b.dtype.numpy).tiny))
    return slope, slope * lower * -0.5


def relu(ctx: RuleContext, x: Zonotope) -> Zonotope:
    b, (slope, half) = ctx.b, relu_line(ctx.b, x)
    return scaled(b, x, slope, half, half, (b.maximum(x.lower, 0.0), b.maximum(x.upper, 0.0)))


def leaky_relu(ctx: RuleContext, x: Zonotope, steepness: Value) -> Zonotope:
    """``s x + (1 - s) relu(x)``."""
    b, (slope, half) = ctx.b, relu_line(ctx.b, x)
    rest = 1.0 - steepness
    nearest = b.minimum(b.maximum(x.lower, 0.0), x.upper)  # where a function that falls below zero is least
    low, high, least = (ctx.node.spec.emit(b, ctx.attrs, 1, v, steepness) for v in (x.lower, x.upper, nearest))
    box = b.minimum(b.minimum(low, high), least), b.maximum(low, high)
    return scaled(b, x, steepness + rest * slope, rest * half, b.abs(rest) * half, box)


def absolute(ctx: RuleContext, x: Zonotope) -> Zonotope:
    """``2 relu(x) - x``."""
    b, (slope, half) = ctx.b, relu_line(ctx.b, x)
    box = b.maximum(b.maximum(x.lower, -x.upper), 0.0), b.maximum(-x.lower, x.upper)
    return scaled(b, x, 2.0 * slope - 1.0, 2.0 * half, 2.0 * half, box)


def smooth(derivative: Slope) -> Rule:
    """A function f whose derivative does not change sign and is least in magnitude at an end: theorem 3.2.

    With that slope k, f(x) - k x is monotone too, so that its range is that of its ends.
    """

    def rule(ctx: RuleContext, x: Zonotope) -> Zonotope:
        b, lower, upper = ctx.b, x.lower, x.upper
        low, high = (ctx.node.spec.emit(b, ctx.attrs, 1, end) for end in (lower, upper))
        at_lower, at_upper = derivative(b, lower, low), derivative(b, upper, high)
        k = b.where(b.abs(at_lower) < b.abs(at_upper), at_lower, at_upper)
        spread = b.abs(0.5 * (high - low) - k * (0.5 * (upper - lower)))
        box = b.minimum(low, high), b.maximum(low, high)
        return scaled(b, x, k, 0.5 * (low + high) - k * (0.5 * (lower + upper)), spread, box)

    return rule


def reciprocal(ctx: RuleContext, x: Zonotope) -> Zonotope:
    """Nothing is known where zero is within the bounds."""
    found: Zonotope = smooth(lambda b, v, y: -(y * y))(ctx, x)
    away = x.lower * x.upper > 0.0
    lower, upper = (ctx.b.where(away, end, inf) for end, inf in ((found.lower, -math.inf), (found.upper, math.inf)))
    assert found.error is not None
    return replace(found, error=ctx.b.where(away, found.error, math.inf), lower=lower, upper=upper)


def boxed(ctx: RuleContext, x: Zonotope) -> Zonotope:
    """An increasing function of several elements, or one that jumps: its range, without relations to anything."""
    low, high = (ctx.node.spec.emit(ctx.b, ctx.attrs, 1, end) for end in (x.lower, x.upper))
    return form(ctx.b, 0.5 * (low + high), {}, 0.5 * (high - low), x.order, (low, high))


# -- products ---------------------------------------------------------------------------------------------------------


def product(ctx: RuleContext, x: Operand, y: Operand) -> Zonotope:
    """(c + g)(d + h) = c d + c h + g d + g h, where the last is at most the product of the radii."""
    if not (isinstance(x, Zonotope) and isinstance(y, Zonotope)):
        return mixing(ctx, x, y)
    b = ctx.b
    x, y = named(b, x, ctx.node.inputs[0]), named(b, y, ctx.node.inputs[1])

    def times(lead: int, one: Value, other: Value) -> Value:
        return ctx.node.spec.emit(b, ctx.attrs, lead, one, other)

    c, d = (b.reshape(v.center, (v.center.shape[0], 1, *v.center.shape[1:])) for v in (x, y))
    generators = {name: times(2, terms, d) for name, terms in x.generators.items()}
    for name, terms in y.generators.items():
        more = times(2, c, terms)
        generators[name] = generators[name] + more if name in generators else more
    error = times(1, *(radius(b, v.center, v.generators, v.error) for v in (x, y)))
    error = error if x.error is None else error + times(1, x.error, b.abs(y.center))
    error = error if y.error is None else error + times(1, b.abs(x.center), y.error)
    return form(b, times(1, x.center, y.center), generators, error, x.order, None)


# -- the domain -------------------------------------------------------------------------------------------------------


def kept(rule: Rule) -> Rule:
    """Names the errors of a value that is read more than once, while it is one value."""

    def and_named(ctx: RuleContext, *operands: Operand) -> Zonotope:
        found: Zonotope = rule(ctx, *operands)
        uses = sum(node.inputs.count(ctx.node.output) for node in ctx.graph.nodes)
        return named(ctx.b, found, ctx.node.output) if uses > 1 else found

    return and_named


RULES: Mapping[str, Rule] = {
    **dict.fromkeys(("linear", "conv2d", "conv_transpose2d", "reduce_sum"), mixing),
    **dict.fromkeys(("add", "where", "reshape", "permute", "expand", "slice", "pad", "concat", "gather"), affine),
    **dict.fromkeys(("mul", "matmul"), product),
    **dict.fromkeys(("max_pool2d", "reduce_max", "reduce_min", "sign", "floor"), boxed),
    "relu": relu,
    "leaky_relu": leaky_relu,
    "abs": absolute,
    "sigmoid": smooth(lambda b, x, y: y * (1.0 - y)),
    "tanh": smooth(lambda b, x, y: 1.0 - y * y),
    "erf": smooth(lambda b, x, y: 2.0 / math.sqrt(math.pi) * b.exp(-(x * x))),
    "softplus": smooth(lambda b, x, y: b.sigmoid(x)),
    "exp": smooth(lambda b, x, y: y),
    "log": smooth(lambda b, x, y: 1.0 / x),
    "sqrt": smooth(lambda b, x, y: 0.5 / y),
    "reciprocal": reciprocal,
}

DOMAIN = Domain("zonotope", "affine forms over shared error terms", {op: kept(rule) for op, rule in RULES.items()})
