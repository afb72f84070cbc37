"""Rounding errors of contractions, reductions, layout and indexing: ``rule(b, attrs, operands, result)``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.program import Value
from boundflow_core.ir.types import Attrs, DType
from boundflow_core.rounding.support import Near, Rule, gamma, terms_of, up

__all__ = ["bilinear", "concat", "gather", "reduce_sum", "reduced", "scatter", "scatter_add", "TERMS", "moved"]


def bilinear(name: str) -> Rule:
    """Of products of sums, with X = |x|, Y = |y|, errors e and f, and g of :func:`gamma` for the number of terms:
    the operation itself on sizes and errors, ``X (g Y + f) + e (Y + f)``."""

    def rule(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
        one, other = xs
        part = gamma(TERMS[name](attrs, one.value, other.value))
        sizes = b.abs(one.value), b.abs(other.value)

        def product(x: Value, z: Value) -> Value:
            return b.emit_named(name, x, z, attrs=attrs)

        if other.error is None:
            left = b.mul(sizes[0], part)
            error = product(left if one.error is None else up(b, b.add(left, one.error)), sizes[1])
        else:
            error = product(sizes[0], up(b, b.add(b.mul(sizes[1], part), other.error)))
            if one.error is not None:
                error = b.add(error, product(one.error, up(b, b.add(sizes[1], other.error))))
        # The sums of these terms are rounded themselves.
        return up(b, b.mul(error, 1.0 + 4 * part))

    return rule


def _matmul_terms(attrs: Attrs, x: Value, y: Value) -> int:
    return terms_of(x.shape[-2 if attrs["transpose_a"] else -1])


def _conv2d_terms(attrs: Attrs, x: Value, w: Value) -> int:
    return terms_of(*w.shape[1:])


def _conv2d_input_grad_terms(attrs: Attrs, g: Value, w: Value) -> int:
    return terms_of(w.shape[0], *w.shape[2:])


def _conv2d_weight_grad_terms(attrs: Attrs, x: Value, g: Value) -> int:
    return terms_of(g.shape[0], *g.shape[2:])


TERMS: dict[str, Callable[[Attrs, Value, Value], int]] = {
    "matmul": _matmul_terms,
    "conv2d": _conv2d_terms,
    "conv2d_input_grad": _conv2d_input_grad_terms,
    "conv2d_weight_grad": _conv2d_weight_grad_terms,
}


def reduce_sum(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    (x,) = xs
    if not y.type.dtype.is_float:
        return moved("reduce_sum")(b, attrs, xs, y)
    part = gamma(terms_of(*(x.value.shape[axis] for axis in attrs["axes"])))
    each = b.mul(b.abs(x.value), part)
    each = each if x.error is None else up(b, b.add(each, x.error))
    return up(b, b.mul(b.emit_named("reduce_sum", each, attrs=attrs), 1.0 + 4 * part))


def reduced(name: str) -> Rule:
    """Of extrema: the largest error. Of booleans, in doubt where one of them is."""

    def rule(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
        (x,) = xs
        if x.error is None:
            return None
        return b.emit_named(name, x.error, attrs=attrs)

    return rule


def moved(name: str) -> Rule:
    """Of what moves elements: errors move along."""

    def rule(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
        (x,) = xs
        if x.error is None:
            return None
        if not y.type.dtype.is_float and y.type.dtype is not DType.BOOL:
            raise IRError(f"{name} of integers in doubt")
        return b.emit_named(name, x.error, attrs=attrs)

    return rule


def pad(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    (x,) = xs
    return None if x.error is None else b.emit_named("pad", x.error, attrs=attrs.replace(value=0.0))


def concat(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    if all(x.error is None for x in xs):
        return None
    return b.concat([_error(b, x) for x in xs], attrs["axis"])


def gather(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    rows, index = xs
    _exact(index)
    return None if rows.error is None else b.gather_rows(rows.error, index.value, attrs["axis"])


def scatter(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    base, index, rows = xs
    _exact(index)
    if base.error is None and rows.error is None:
        return None
    return b.scatter_rows(_error(b, base), index.value, _error(b, rows), attrs["axis"])


def scatter_add(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """As a sum of at most all rows and the base."""
    base, index, rows = xs
    _exact(index)
    part = gamma(terms_of(index.value.shape[0]) + 1)
    sizes = []
    for x in (base, rows):
        each = b.mul(b.abs(x.value), part)
        sizes.append(each if x.error is None else up(b, b.add(each, x.error)))
    return up(b, b.mul(b.scatter_add_rows(sizes[0], index.value, sizes[1], attrs["axis"]), 1.0 + 4 * part))


def exact(b: Builder, attrs: Attrs, xs: Sequence[Near], y: Value) -> Value | None:
    """Of what numbers and finds elements: rounding must not change which."""
    for x in xs:
        _exact(x)
    return None


def _exact(index: Near) -> None:
    if index.error is not None:
        raise IRError("rows are chosen by numbers that rounding may change")


def _error(b: Builder, x: Near) -> Value:
    """The error as a value of its own, zeros if there is none."""
    if x.error is not None:
        return x.error
    zero = b.cast(b.constant(0.0), x.value.type.dtype)
    return b.broadcast(b.reshape(zero, (1,) * x.value.rank), x.value.shape)
