"""The primitives of BoundProgram: the closed set of operations that every executor must run.

``PRIMITIVES`` at the bottom is the whole list; shape rules are in :mod:`.shapes`, NumPy meanings in :mod:`.meaning`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from boundflow_core.ir import meaning, shapes
from boundflow_core.ir.program import Primitive
from boundflow_core.ir.types import TensorType

__all__ = ["PRIMITIVES"]


def _unary(name: str, function: Callable[[Any], Any], doc: str) -> Primitive:
    return Primitive(name, doc, "elementwise", shapes.unary, lambda xs, attrs: np.asarray(function(xs[0])))


def _binary(
    name: str, function: Callable[[Any, Any], Any], doc: str, infer: Callable[..., TensorType] = shapes.binary
) -> Primitive:
    return Primitive(name, doc, "elementwise", infer, lambda xs, attrs: np.asarray(function(xs[0], xs[1])))


_ALL = (
    # elementwise, operands broadcast as in NumPy
    _binary("add", np.add, "x + y", shapes.arithmetic),
    _binary("sub", np.subtract, "x - y", shapes.arithmetic),
    _binary("mul", np.multiply, "x * y", shapes.arithmetic),
    _binary("div", np.divide, "x / y", shapes.quotient),
    _binary(
        "maximum", np.maximum, "the larger of x and y (of booleans: or); `free`: bounds hold whatever number it is"
    ),
    _binary("minimum", np.minimum, "the smaller of x and y (of booleans: and)"),
    _unary("neg", np.negative, "-x"),
    _unary("abs", np.abs, "|x|"),
    _unary("sign", np.sign, "-1, 0 or 1"),
    _unary("floor", np.floor, "largest integer not above x"),
    _unary("exp", np.exp, "e to the x"),
    _unary("log", np.log, "natural logarithm"),
    _unary("log1p", np.log1p, "log(1 + x), exact near zero"),
    _unary("sqrt", np.sqrt, "square root"),
    _unary("tanh", np.tanh, "hyperbolic tangent"),
    _unary("sin", np.sin, "sine"),
    _unary("cos", np.cos, "cosine"),
    Primitive("sigmoid", "1 / (1 + exp(-x))", "elementwise", shapes.unary, meaning.sigmoid),
    Primitive("erf", "error function", "elementwise", shapes.unary, meaning.erf),
    Primitive("pow", "x to the constant `exponent`", "elementwise", shapes.unary, meaning.power),
    Primitive(
        "compare",
        "x `relation` y (lt, le, gt, ge, eq, ne); `free`: bounds hold either way",
        "elementwise",
        shapes.compare,
        meaning.compare,
    ),
    Primitive(
        "where", "x where the condition holds, else y", "elementwise", shapes.where, lambda xs, attrs: np.where(*xs)
    ),
    Primitive(
        "cast",
        "x as `dtype`",
        "elementwise",
        shapes.cast,
        lambda xs, attrs: xs[0].astype(str(attrs["dtype"])),
    ),
    # contractions
    Primitive("matmul", "batched matrix product of the last two axes", "contraction", shapes.matmul, meaning.matmul),
    Primitive("conv2d", "2-d cross-correlation, NCHW by OIHW", "contraction", shapes.conv2d, meaning.conv2d),
    Primitive(
        "conv2d_input_grad",
        "adjoint of conv2d in its input (a transposed convolution), onto `input_size`",
        "contraction",
        shapes.conv2d_input_grad,
        meaning.conv2d_input_grad,
    ),
    Primitive(
        "conv2d_weight_grad",
        "adjoint of conv2d in its weight, from its input and the gradient of its result, onto `kernel_size`",
        "contraction",
        shapes.conv2d_weight_grad,
        meaning.conv2d_weight_grad,
    ),
    # reductions
    Primitive("reduce_sum", "sum over `axes`", "reduction", shapes.reduce_sum, meaning.reduce_sum),
    Primitive("reduce_max", "maximum over `axes`", "reduction", shapes.extremum, meaning.reduce_max),
    Primitive("reduce_min", "minimum over `axes`", "reduction", shapes.extremum, meaning.reduce_min),
    Primitive("max_pool2d", "maximum of each window, NCHW", "reduction", shapes.max_pool2d, meaning.max_pool2d),
    # layout: no arithmetic
    Primitive(
        "reshape", "same elements in `shape`", "layout", shapes.reshape, lambda xs, attrs: xs[0].reshape(attrs["shape"])
    ),
    Primitive(
        "permute",
        "axes in the order `axes`",
        "layout",
        shapes.permute,
        lambda xs, attrs: xs[0].transpose(attrs["axes"]),
    ),
    Primitive(
        "broadcast",
        "repeat along axes of size 1 to `shape`",
        "layout",
        shapes.broadcast,
        lambda xs, attrs: np.broadcast_to(xs[0], attrs["shape"]),
    ),
    Primitive("slice", "x[starts:stops:steps], one triple an axis", "layout", shapes.slice_, meaning.slice_),
    Primitive(
        "concat",
        "join along `axis`",
        "layout",
        shapes.concat,
        lambda xs, attrs: np.concatenate(xs, axis=attrs["axis"]),
    ),
    Primitive(
        "pad", "surround with `value`, `low` before and `high` after each axis", "layout", shapes.pad, meaning.pad
    ),
    # indexing by data
    Primitive(
        "gather_rows",
        "rows of x along `axis` in the order of an index vector",
        "index",
        shapes.gather_rows,
        lambda xs, attrs: np.take(xs[0], xs[1], axis=attrs["axis"]),
    ),
    Primitive(
        "scatter_rows",
        "x with the rows along `axis` named by an index vector (no index twice) replaced",
        "index",
        shapes.scatter_rows,
        meaning.scatter_rows,
    ),
    Primitive(
        "scatter_add_rows",
        "x with rows added along `axis` where an index vector says; rows of one index add up",
        "index",
        shapes.scatter_add_rows,
        meaning.scatter_add_rows,
    ),
    Primitive(
        "row_numbers",
        "0, 1, 2...: the number of each row of x along `axis`",
        "index",
        shapes.row_numbers,
        lambda xs, attrs: np.arange(xs[0].shape[attrs["axis"]], dtype=np.int64),
    ),
    Primitive(
        "running_count",
        "how many elements of a vector of booleans are true up to each of them, itself included",
        "index",
        shapes.running_count,
        lambda xs, attrs: np.cumsum(xs[0], dtype=np.int64),
    ),
    Primitive(
        "first_reaching",
        "where an ascending vector first reaches each number of another one; its last place where it never does",
        "index",
        shapes.first_reaching,
        meaning.first_reaching,
    ),
)

PRIMITIVES = {primitive.name: primitive for primitive in _ALL}
