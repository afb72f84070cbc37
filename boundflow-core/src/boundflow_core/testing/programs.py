"""Random programs: several inputs and groups, shared values, every kind of primitive."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import Dim, DType, SymDim, TensorType, concrete_shape, size

__all__ = ["B", "LiveArray", "S", "inputs_for", "live", "programs", "write_random"]

Array = NDArray[Any]
B, S = SymDim.of("B"), SymDim.of("S")


class LiveArray:
    """Weights that may change between runs, as a framework's tensor, but without a framework."""

    def __init__(self, array: Array) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.asarray(self.array, dtype=dtype)


def live(array: Array) -> Constant:
    return Constant(TensorType(DType.FLOAT64, array.shape), LiveArray(array))


def inputs_for(program: BoundProgram, sizes: dict[str, int], seed: int = 0) -> dict[str, Array]:
    """Random inputs of a program; each call gives new arrays."""
    numbers = np.random.default_rng(seed)
    bound = program.bind(sizes)
    return {v.name: numbers.normal(size=concrete_shape(v.shape, {})).astype(v.type.dtype.numpy) for v in bound.inputs}


def write_random(seed: int, length: int) -> BoundProgram:
    """A program of about ``length`` operations; a shorter one of the same seed begins alike."""
    return _Writer(random.Random(seed)).write(length)


# Seed and length: shrinking the length cuts operations off at the end.
programs = st.builds(write_random, st.integers(0, 2**32), st.integers(0, 30))


class _Writer:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.numbers = np.random.default_rng(chance.getrandbits(32))
        self.b = Builder(DType.FLOAT64, "random")
        b = self.b
        self.weight = b.constant(live(self.numbers.normal(size=(6, 6))))
        self.floats: list[Value] = [
            b.input("x", (B, 4, 6), group="region"),
            b.input("y", (B, 4, 6), group="region"),
            b.input("alpha", (B, 4, 6), group="split"),
        ]
        self.rows = b.input("C", (S, 6), group="spec")
        self.floats += [self.rows, self.weight, b.constant(self.numbers.normal(size=(4, 6)))]
        self.bools: list[Value] = []

    def write(self, length: int) -> BoundProgram:
        steps = (
            self.unary, self.unary, self.binary, self.binary, self.choose, self.logic, self.matmul, self.spec_rows,
            self.conv, self.pool, self.reduce, self.reshape, self.permute, self.slice, self.broadcast, self.concat,
            self.pad, self.gather, self.scatter, self.own_slice,
        )  # fmt: skip
        written = 0
        while written < length:
            with self.b.origin(f"node{written // 3}"):
                self.chance.choice(steps)()
            written += 1
        count = self.chance.randint(1, 4)
        # mostly late values, so that much of the program is alive; sometimes inputs and constants
        pool = self.floats if self.chance.random() < 0.3 else self.floats[-6:]
        outputs = {f"out{n}": self.chance.choice(pool) for n in range(count)}
        if self.chance.random() < 0.3:
            outputs["again"] = outputs["out0"]
        if self.bools and self.chance.random() < 0.3:
            outputs["flags"] = self.chance.choice(self.bools)
        return self.b.finish(outputs)

    def pick(self, *, rank: int | None = None) -> Value | None:
        fits = [v for v in self.floats if rank is None or v.rank == rank]
        recent = fits[-4:] if self.chance.random() < 0.5 else fits
        return self.chance.choice(recent) if recent else None

    def static_axes(self, x: Value) -> list[int]:
        return [axis for axis, dim in enumerate(x.shape) if isinstance(dim, int)]

    def keep(self, value: Value) -> None:
        if value.type.dtype is DType.BOOL:
            self.bools.append(value)
        elif len([d for d in value.shape if isinstance(d, SymDim)]) <= 2 and _small(value):
            self.floats.append(value)

    # -- steps --------------------------------------------------------------------------------------------------------

    def unary(self) -> None:
        x = self.pick()
        assert x is not None
        self.keep(getattr(self.b, self.chance.choice(["neg", "abs", "tanh", "sigmoid", "floor"]))(x))

    def binary(self) -> None:
        x = self.pick()
        assert x is not None
        fits = [v for v in self.floats if v.shape == x.shape or v.rank == 0 or _broadcasts(v, x)]
        y = self.chance.choice(fits)
        self.keep(getattr(self.b, self.chance.choice(["add", "sub", "mul", "maximum", "minimum"]))(x, y))

    def choose(self) -> None:
        x = self.pick()
        assert x is not None
        y = self.chance.choice([v for v in self.floats if v.shape == x.shape])
        others: list[Value | float] = [0.0, y]
        condition = self.b.compare(x, self.chance.choice(others), self.chance.choice(["lt", "ge"]))
        self.keep(condition)
        others = [y, 0.5]
        self.keep(self.b.where(condition, x, self.chance.choice(others)))

    def logic(self) -> None:
        if not self.bools:
            return
        x = self.chance.choice(self.bools)
        fits = [v for v in self.bools if v.shape == x.shape]
        y, z = self.chance.choice(fits), self.chance.choice(fits)
        self.keep(self.b.where(x, y, z) if self.chance.random() < 0.5 else self.b.maximum(x, y))

    def matmul(self) -> None:
        x = self.pick()
        if x is None or x.rank < 2 or x.shape[-1] != 6:
            return
        weight = self.weight if self.chance.random() < 0.5 else self.numbers.normal(size=(6, 6))
        weight = weight if isinstance(weight, Value) else self.b.constant(weight)
        self.keep(self.b.tanh(self.b.matmul(x, weight, transpose_b=self.chance.random() < 0.5)))

    def spec_rows(self) -> None:
        x = self.pick(rank=3)
        if x is not None and x.shape[-1] == 6 and x.shape[0] == B:
            self.keep(self.b.matmul(x, self.rows, transpose_b=True))

    def conv(self) -> None:
        x = self.pick(rank=3)
        if x is None or len(self.static_axes(x)) != 2 or isinstance(x.shape[0], int):
            return
        image = self.b.reshape(x, (x.shape[0], 1, *x.shape[1:]))
        w = self.b.constant(self.numbers.normal(size=(2, 1, 3, 3)))
        out = self.b.conv2d(image, w, padding=(1, 1, 1, 1))
        if self.chance.random() < 0.4:
            size_in = [int(d) for d in x.shape[1:]]  # type: ignore[arg-type]
            out = self.b.conv2d_input_grad(out, w, padding=(1, 1, 1, 1), input_size=size_in)
        self.keep(out)

    def pool(self) -> None:
        x = self.pick(rank=4)
        if x is not None and self.static_axes(x) == [1, 2, 3] and min(concrete_shape(x.shape[2:], {})) >= 2:
            self.keep(self.b.max_pool2d(x, kernel=(2, 2), stride=(1, 1), padding=(1, 0, 0, 1)))

    def reduce(self) -> None:
        x = self.pick()
        assert x is not None
        if x.rank:
            axes = sorted(self.chance.sample(range(x.rank), self.chance.randint(1, x.rank)))
            name = self.chance.choice(["reduce_sum", "reduce_max", "reduce_min"])
            self.keep(getattr(self.b, name)(x, axes, keepdims=self.chance.random() < 0.5))

    def reshape(self) -> None:
        x = self.pick()
        assert x is not None
        shapes: list[Sequence[Any]] = [(size(x.shape),), (1, *x.shape)]
        if x.rank >= 2:
            shapes += [(*x.shape[:-2], size(x.shape[-2:])), (size(x.shape[:-1]), x.shape[-1])]
        if x.shape and x.shape[-1] == 24:
            shapes.append((*x.shape[:-1], 4, 6))
        self.keep(self.b.reshape(x, self.chance.choice(shapes)))

    def own_slice(self) -> None:
        """A value and a part of it that is broadcast to it: written in place, the part would be read too late."""
        x = self.pick()
        assert x is not None
        if x.rank and isinstance(x.shape[-1], int):
            x = self.b.abs(x)
            part = self.b.slice(x, [0] * x.rank, [*x.shape[:-1], 1], [1] * x.rank)
            self.keep(self.b.maximum(part, x) if self.chance.random() < 0.5 else self.b.sub(x, part))

    def permute(self) -> None:
        x = self.pick()
        assert x is not None
        axes = list(range(x.rank))
        self.chance.shuffle(axes)
        self.keep(self.b.permute(x, axes))

    def slice(self) -> None:
        x = self.pick()
        assert x is not None
        starts, stops, steps = [0] * x.rank, list(x.shape), [1] * x.rank
        for axis in self.static_axes(x):
            length = int(x.shape[axis])  # type: ignore[arg-type]
            if length > 1 and self.chance.random() < 0.6:
                starts[axis] = self.chance.randint(0, length - 1)
                stops[axis] = self.chance.randint(starts[axis] + 1, length)
                steps[axis] = self.chance.randint(1, 2)
        self.keep(self.b.slice(x, starts, stops, steps))

    def broadcast(self) -> None:
        x = self.pick()
        assert x is not None
        repeats: list[Dim] = [2, 3, B]
        fronts: list[tuple[Dim, ...]] = [(), (2,), (B,)]
        wide = [self.chance.choice(repeats) if dim == 1 and self.chance.random() < 0.7 else dim for dim in x.shape]
        front = self.chance.choice(fronts)
        self.keep(self.b.broadcast(x, (*front, *wide)))

    def concat(self) -> None:
        x = self.pick()
        if x is None or not self.static_axes(x):
            return
        y = self.chance.choice([v for v in self.floats if v.shape == x.shape])
        self.keep(self.b.concat([x, y, x][: self.chance.randint(2, 3)], self.chance.choice(self.static_axes(x))))

    def pad(self) -> None:
        x = self.pick()
        assert x is not None
        sides = [self.chance.randint(0, 2) if axis in self.static_axes(x) else 0 for axis in range(x.rank)]
        if any(sides):
            self.keep(self.b.pad(x, sides, sides[::-1] if all(self.static_axes(x)) and x.rank == 1 else sides, 0.5))

    def gather(self) -> None:
        x = self.pick()
        if x is None or not self.static_axes(x):
            return
        axis = self.chance.choice(self.static_axes(x))
        index = self.numbers.integers(0, int(x.shape[axis]), size=3)  # type: ignore[arg-type]
        self.keep(self.b.gather_rows(x, self.b.constant(index), axis))

    def scatter(self) -> None:
        x = self.pick()
        if x is None or not self.static_axes(x):
            return
        axis = self.chance.choice(self.static_axes(x))
        index = self.numbers.permutation(int(x.shape[axis]))[:2]  # type: ignore[arg-type]
        rows = self.b.gather_rows(x, self.b.constant(index), axis)
        self.keep(self.b.scatter_rows(x, self.b.constant(np.sort(index)), self.b.neg(rows), axis))


def _small(value: Value) -> bool:
    count = size(value.shape)
    return (count if isinstance(count, int) else count.coefficient) <= 600 and value.rank <= 5


def _broadcasts(v: Value, x: Value) -> bool:
    """Whether ``v`` broadcasts to the shape of ``x``."""
    if v.rank > x.rank:
        return False
    return all(a in (1, b) for a, b in zip(v.shape[::-1], x.shape[::-1], strict=False))
