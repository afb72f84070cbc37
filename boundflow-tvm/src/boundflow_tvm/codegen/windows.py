"""Convolutions, their adjoints and pooling as direct loops: an image row at a time, whatever stride and dilation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from boundflow_core.ir.program import Op
from boundflow_tvm.backend import Tir
from boundflow_tvm.codegen.arithmetic import extremum
from boundflow_tvm.codegen.loops import Frame

__all__ = ["conv2d", "conv2d_input_grad", "conv2d_weight_grad", "max_pool2d"]


class _Geometry:
    """Sizes and steps of windows. ``taps``: per place in the window, along x, the output positions that are inside."""

    def __init__(self, op: Op, image: Sequence[Any], grid: Sequence[Any], kernel: Sequence[int]) -> None:
        (self.height, self.width), (self.rows, self.columns) = image, grid
        self.kernel = tuple(kernel)
        self.stride, self.dilation = op.attrs["stride"], op.attrs["dilation"]
        self.low = op.attrs["padding"][:2]
        self.taps: list[tuple[int, int, int]] = []
        for q in range(self.kernel[1]):
            shift = q * self.dilation[1] - self.low[1]
            first = max(0, -(shift // self.stride[1]))
            stop = min(self.columns, (self.width - 1 - shift) // self.stride[1] + 1)
            if first < stop:
                self.taps.append((q, first, stop))

    def inside(self, t: Tir, row: Any, p: Any, body: Callable[[Any], Any]) -> Any:
        """``body(image row)`` where window row ``p`` of output row ``row`` is inside of the image."""
        at = row * t.int(self.stride[0]) + p * t.int(self.dilation[0]) - t.int(self.low[0])
        reach = (self.rows - 1) * self.stride[0] + (self.kernel[0] - 1) * self.dilation[0] - self.low[0]
        if self.low[0] == 0 and reach < self.height:
            return body(at)
        return t.when(t.t.And(t.t.GE(at, t.int(0)), t.t.LT(at, t.int(self.height))), body(at))

    def along(self, t: Tir, q: int, first: int, stop: int, body: Callable[[Any, Any], Any]) -> Any:
        """A loop ``body(output column, image column)`` over the positions at which place ``q`` is inside."""
        shift = q * self.dilation[1] - self.low[1]
        return t.loop(
            stop - first,
            lambda i: body(i + t.int(first), i * t.int(self.stride[1]) + t.int(first * self.stride[1] + shift)),
            "x",
        )


def _tile(count: int) -> int:
    return next(size for size in (4, 3, 2, 1) if count % size == 0)


def conv2d(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (x [N, C, H, W], w [O, C/g, kh, kw], result [N, O, h, w])."""
    x, w, out = (*op.inputs, *op.outputs)
    frame = Frame(t, [x.type, w.type, out.type], symbols)
    groups, dtype = op.attrs["groups"], str(out.type.dtype)
    channels, kernel = _ints(w.shape[1:])[0], _ints(w.shape[2:])
    outputs = _ints(out.shape[1:2])[0]
    g = _Geometry(op, _ints(x.shape[2:]), _ints(out.shape[2:]), kernel)
    per_group = outputs // groups
    tile = _tile(per_group)
    weights = channels * kernel[0] * kernel[1]
    acc, allocate = t.local("acc", tile * g.columns, dtype)

    def block(n: Any, group: Any, o: Any, row: Any) -> Any:
        first = group * t.int(per_group) + o * t.int(tile)

        def place(c: Any, p: Any, at: Any) -> Any:
            source = ((n * t.int(channels * groups) + group * t.int(channels) + c) * t.int(g.height) + at) * t.int(
                g.width
            )
            parts = []
            for q, start, stop in g.taps:
                values = []
                for i in range(tile):
                    value = t.var(f"w{i}", dtype)
                    where = (
                        (first + t.int(i)) * t.int(weights) + (c * t.int(kernel[0]) + p) * t.int(kernel[1]) + t.int(q)
                    )
                    parts.append(t.bind(value, t.load(frame.buffers[1], where)))
                    values.append(value)

                def one(column: Any, image: Any, values: Sequence[Any] = tuple(values)) -> Any:
                    pixel = t.var("pixel", dtype)
                    sums = [t.bind(pixel, t.load(frame.buffers[0], source + image))]
                    for i, value in enumerate(values):
                        to = column + t.int(i * g.columns)
                        sums.append(t.store(acc, to, t.t.Add(t.load(acc, to), t.t.Mul(pixel, value))))
                    return t.seq(*sums)

                parts.append(g.along(t, q, start, stop, one))
            return t.seq(*parts)

        def taps(c: Any) -> Any:
            return t.loop(kernel[0], lambda p: g.inside(t, row, p, lambda at: place(c, p, at)), "p")

        def out_row(i: int) -> Any:
            start = ((n * t.int(outputs) + first + t.int(i)) * t.int(g.rows) + row) * t.int(g.columns)
            return t.loop(
                g.columns, lambda x: t.store(frame.buffers[2], start + x, t.load(acc, t.int(i * g.columns) + x)), "x"
            )

        return t.seq(_clear(t, acc, tile * g.columns, dtype), t.loop(channels, taps, "c"), *map(out_row, range(tile)))

    body = t.loop(
        frame.dim(x.shape[0]),
        lambda n: t.loop(
            groups,
            lambda group: t.loop(
                per_group // tile, lambda o: t.loop(g.rows, lambda row: block(n, group, o, row), "y"), "o"
            ),
            "group",
        ),
        "n",
    )
    return frame.function(t.seq(allocate, body))


def conv2d_input_grad(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (g [N, O, h, w], w [O, C/g, kh, kw], result [N, C, H, W]): each row gathers what reaches it."""
    grad, w, out = (*op.inputs, *op.outputs)
    frame = Frame(t, [grad.type, w.type, out.type], symbols)
    groups, dtype = op.attrs["groups"], str(out.type.dtype)
    channels, kernel = _ints(w.shape[1:])[0], _ints(w.shape[2:])
    outputs = _ints(grad.shape[1:2])[0]
    g = _Geometry(op, _ints(out.shape[2:]), _ints(grad.shape[2:]), kernel)
    per_group = outputs // groups
    tile = _tile(channels)
    acc, allocate = t.local("acc", tile * g.width, dtype)
    area = kernel[0] * kernel[1]

    def block(n: Any, group: Any, c: Any, image_row: Any) -> Any:
        first = c * t.int(tile)

        def place(o: Any, p: Any, row: Any) -> Any:
            source = ((n * t.int(outputs) + group * t.int(per_group) + o) * t.int(g.rows) + row) * t.int(g.columns)
            parts = []
            for q, start, stop in g.taps:
                values = []
                for i in range(tile):
                    value = t.var(f"w{i}", dtype)
                    where = ((group * t.int(per_group) + o) * t.int(channels) + first + t.int(i)) * t.int(area)
                    where = where + p * t.int(kernel[1]) + t.int(q)
                    parts.append(t.bind(value, t.load(frame.buffers[1], where)))
                    values.append(value)

                def one(column: Any, image: Any, values: Sequence[Any] = tuple(values)) -> Any:
                    pixel = t.var("pixel", dtype)
                    sums = [t.bind(pixel, t.load(frame.buffers[0], source + column))]
                    for i, value in enumerate(values):
                        to = image + t.int(i * g.width)
                        sums.append(t.store(acc, to, t.t.Add(t.load(acc, to), t.t.Mul(pixel, value))))
                    return t.seq(*sums)

                parts.append(g.along(t, q, start, stop, one))
            return t.seq(*parts)

        def taps(o: Any) -> Any:
            def window(p: Any) -> Any:
                at = image_row + t.int(g.low[0]) - p * t.int(g.dilation[0])
                row = t.t.truncdiv(at, t.int(g.stride[0]))
                fits = t.t.And(t.t.GE(at, t.int(0)), t.t.EQ(row * t.int(g.stride[0]), at))
                return t.when(t.t.And(fits, t.t.LT(row, t.int(g.rows))), place(o, p, row))

            return t.loop(kernel[0], window, "p")

        def out_row(i: int) -> Any:
            channel = group * t.int(channels) + first + t.int(i)
            start = ((n * t.int(channels * groups) + channel) * t.int(g.height) + image_row) * t.int(g.width)
            return t.loop(
                g.width, lambda x: t.store(frame.buffers[2], start + x, t.load(acc, t.int(i * g.width) + x)), "x"
            )

        return t.seq(_clear(t, acc, tile * g.width, dtype), t.loop(per_group, taps, "o"), *map(out_row, range(tile)))

    body = t.loop(
        frame.dim(grad.shape[0]),
        lambda n: t.loop(
            groups,
            lambda group: t.loop(
                channels // tile, lambda c: t.loop(g.height, lambda row: block(n, group, c, row), "y"), "c"
            ),
            "group",
        ),
        "n",
    )
    return frame.function(t.seq(allocate, body))


def conv2d_weight_grad(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (x [N, C, H, W], g [N, O, h, w], result [O, C/g, kh, kw])."""
    x, grad, out = (*op.inputs, *op.outputs)
    frame = Frame(t, [x.type, grad.type, out.type], symbols)
    dtype = str(out.type.dtype)
    outputs, channels, *kernel = _ints(out.shape)
    inputs = _ints(x.shape[1:2])[0]
    g = _Geometry(op, _ints(x.shape[2:]), _ints(grad.shape[2:]), kernel)
    per_group = outputs // op.attrs["groups"]
    total, allocate = t.local("total", 1, dtype)
    zero = t.int(0)

    def weight(o: Any, c: Any, p: Any, q: int, first: int, stop: int) -> Any:
        def rows(n: Any, row: Any, at: Any) -> Any:
            channel = t.t.truncdiv(o, t.int(per_group)) * t.int(channels) + c
            source = ((n * t.int(inputs) + channel) * t.int(g.height) + at) * t.int(g.width)
            other = ((n * t.int(outputs) + o) * t.int(g.rows) + row) * t.int(g.columns)

            def one(column: Any, image: Any) -> Any:
                product = t.t.Mul(t.load(frame.buffers[0], source + image), t.load(frame.buffers[1], other + column))
                return t.store(total, zero, t.t.Add(t.load(total, zero), product))

            return g.along(t, q, first, stop, one)

        to = ((o * t.int(channels) + c) * t.int(kernel[0]) + p) * t.int(kernel[1]) + t.int(q)
        loops = t.loop(
            frame.dim(x.shape[0]),
            lambda n: t.loop(g.rows, lambda row: g.inside(t, row, p, lambda at: rows(n, row, at)), "y"),
            "n",
        )
        return t.seq(
            t.store(total, zero, t.number(0.0, dtype)), loops, t.store(frame.buffers[2], to, t.load(total, zero))
        )

    spans = {q: (first, stop) for q, first, stop in g.taps}

    def places(o: Any, c: Any, p: Any) -> Any:
        return t.seq(*(weight(o, c, p, q, *spans.get(q, (0, 0))) for q in range(kernel[1])))

    body = t.loop(
        outputs,
        lambda o: t.loop(channels, lambda c: t.loop(kernel[0], lambda p: places(o, c, p), "p"), "c"),
        "o",
    )
    return frame.function(t.seq(allocate, body))


def max_pool2d(t: Tir, op: Op, symbols: Sequence[str]) -> Any:
    """The function of (x [N, C, H, W], result [N, C, h, w])."""
    (x,), (out,) = op.inputs, op.outputs
    frame = Frame(t, [x.type, out.type], symbols)
    dtype = str(out.type.dtype)
    g = _Geometry(op, _ints(x.shape[2:]), _ints(out.shape[2:]), op.attrs["kernel"])
    channels = frame.dim(x.shape[1])

    def row_of(n: Any, c: Any, row: Any) -> Any:
        image = n * channels + c
        start = (image * t.int(g.rows) + row) * t.int(g.columns)

        def window(p: Any) -> Any:
            def line(at: Any) -> Any:
                source = (image * t.int(g.height) + at) * t.int(g.width)

                def one(column: Any, place: Any) -> Any:
                    so_far, pixel = t.load(frame.buffers[1], start + column), t.load(frame.buffers[0], source + place)
                    return t.store(frame.buffers[1], start + column, extremum(t, True, so_far, pixel, out.type.dtype))

                return t.seq(*(g.along(t, q, first, stop, one) for q, first, stop in g.taps))

            return g.inside(t, row, p, line)

        fill = t.loop(g.columns, lambda i: t.store(frame.buffers[1], start + i, t.number(float("-inf"), dtype)), "x")
        return t.seq(fill, t.loop(g.kernel[0], window, "p"))

    return frame.function(
        t.loop(
            frame.dim(x.shape[0]),
            lambda n: t.loop(channels, lambda c: t.loop(g.rows, lambda row: row_of(n, c, row), "y"), "c"),
            "n",
        )
    )


def _clear(t: Tir, acc: Any, count: int, dtype: str) -> Any:
    return t.loop(count, lambda i: t.store(acc, i, t.number(0.0, dtype)), "i")


def _ints(dims: Sequence[Any]) -> list[int]:
    assert all(isinstance(dim, int) for dim in dims), dims
    return list(dims)
