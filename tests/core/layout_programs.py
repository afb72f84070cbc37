"""Random programs that rearrange a great deal, with reductions, products, and weights that may change or not."""

from __future__ import annotations

import numpy as np

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import Constant, frozen
from boundflow_core.ir.types import DType, SymDim, TensorType, size

BATCH = SymDim.of("B")
MOST_ELEMENTS, MOST_AXES = 3000, 7


class Live:
    """An array that is no NumPy array, as those are that may change."""

    def __init__(self, array):
        self.array = array

    def __array__(self, dtype=None, copy=None):
        return self.array


def random_program(seed):
    """A program of up to 25 operations whose inputs have the batch axis B in front."""
    rng = np.random.default_rng(seed)
    b = Builder(DType.FLOAT64, "random")
    values = [b.input("x", (BATCH, 2, 3, 4)), b.input("y", (BATCH, 4, 3)), b.input("rows", (3, 6))]
    for _ in range(int(rng.integers(3, 25))):
        x = values[int(rng.integers(max(0, len(values) - 5), len(values)))]
        try:
            value = STEPS[int(rng.integers(len(STEPS)))](b, rng, x, values)
        except IRError:
            continue  # operands that do not fit
        count = size(value.shape)
        few = count if isinstance(count, int) else count.coefficient
        if few <= MOST_ELEMENTS and value.rank <= MOST_AXES and not (few != count and count.symbols != ("B",)):
            values.extend([value] if value not in values else [])
    last = values[-6:]
    return b.finish({f"y{i}": last[int(rng.integers(len(last)))] for i in range(int(rng.integers(1, 3)))})


def random_inputs(program, batch=2):
    """Normal numbers for each input."""
    rng = np.random.default_rng(7)
    return {v.name: rng.normal(size=[batch if dim == BATCH else dim for dim in v.shape]) for v in program.inputs}


def constant(b, rng, shape):
    array = rng.normal(size=shape)
    is_live = rng.random() < 0.3
    return b.constant(Constant(TensorType(DType.FLOAT64, tuple(shape)), Live(array)) if is_live else frozen(array))


def pick(rng, items):
    return items[int(rng.integers(len(items)))]


def shuffled(rng, axes):
    return [int(axis) for axis in rng.permutation(list(axes))]


def permute(b, rng, x, values):
    return b.permute(x, shuffled(rng, range(x.rank)))


def reshape(b, rng, x, values):
    """Merges two axes, splits one, puts an axis of size 1 in or takes one out."""
    dims = list(x.shape)
    how = pick(rng, ["merge", "unit", "no unit", "split"])
    if how == "merge" and len(dims) > 1:
        at = int(rng.integers(len(dims) - 1))
        dims[at : at + 2] = [dims[at] * dims[at + 1]]
    elif how == "unit":
        dims.insert(int(rng.integers(len(dims) + 1)), 1)
    elif how == "no unit" and 1 in dims:
        dims.remove(1)
    else:
        ways = [(at, f) for at, d in enumerate(dims) if isinstance(d, int) for f in range(2, d) if d % f == 0]
        at, factor = pick(rng, ways) if ways else (0, 1)
        dims[at : at + 1] = [factor, dims[at] // factor] if ways else dims[:1]
    return b.reshape(x, dims)


def unary(b, rng, x, values):
    return getattr(b, pick(rng, ["neg", "abs", "tanh"]))(x)


def binary(b, rng, x, values):
    return getattr(b, pick(rng, ["add", "sub", "mul", "maximum"]))(x, pick(rng, values))


def select(b, rng, x, values):
    y = pick(rng, values)
    return b.where(x < y, x, -y)


def with_constant(b, rng, x, values):
    """A constant that has some of the axes."""
    shape = [dim if isinstance(dim, int) and rng.random() < 0.6 else 1 for dim in x.shape]
    c = constant(b, rng, shape[int(rng.integers(len(shape) + 1)) :])
    return getattr(b, pick(rng, ["add", "mul", "minimum"]))(*pick(rng, [(x, c), (c, x)]))


def slice_(b, rng, x, values):
    cut = []
    for dim in x.shape:
        if isinstance(dim, int) and dim > 1 and rng.random() < 0.4:
            start = int(rng.integers(dim))
            cut.append((start, int(rng.integers(start + 1, dim + 1)), int(rng.integers(1, 3))))
        else:
            cut.append((0, dim, 1))
    return b.slice(x, *zip(*cut, strict=True)) if cut else x


def pad(b, rng, x, values):
    low, high = ([int(rng.integers(2)) if isinstance(dim, int) else 0 for dim in x.shape] for _ in range(2))
    return b.pad(x, low, high, float(rng.integers(2)))


def broadcast(b, rng, x, values):
    wide = [3 if dim == 1 and rng.random() < 0.7 else dim for dim in x.shape]
    return b.broadcast(x, [2, *wide] if rng.random() < 0.3 else wide)


def concat(b, rng, x, values):
    return b.concat([x, pick(rng, [x, *values])], int(rng.integers(max(x.rank, 1))))


def reduce_(b, rng, x, values):
    axes = [axis for axis in range(x.rank) if rng.random() < 0.4]
    return getattr(b, pick(rng, ["reduce_sum", "reduce_max"]))(x, shuffled(rng, axes), keepdims=bool(rng.integers(2)))


def product(b, rng, x, values):
    flags = {key: bool(rng.integers(2)) for key in ("transpose_a", "transpose_b")}
    return b.matmul(x, pick(rng, values), **flags) * 0.3


def product_with_weight(b, rng, x, values):
    a, t = bool(rng.integers(2)), bool(rng.integers(2))
    k = x.shape[-2 if a else -1] if x.rank > 1 else None
    if not isinstance(k, int):
        return x
    n = int(pick(rng, [2, 4, 6, 12]))
    weight = constant(b, rng, (n, k) if t else (k, n))
    return b.matmul(x, b.abs(weight) if rng.random() < 0.3 else weight, transpose_a=a, transpose_b=t) * 0.3


def flattened_product(b, rng, x, values):
    """A permuted image, flattened, by a weight or by rows that come from one."""
    n = size(x.shape[1:])
    if x.rank < 3 or not isinstance(n, int):
        return x
    x = b.permute(x, [0, *shuffled(rng, range(1, x.rank))])
    flat = b.reshape(x, pick(rng, [(x.shape[0], n), (x.shape[0], 1, n)]))
    flat = flat * 0.5 if rng.random() < 0.5 else flat
    weight = constant(b, rng, (6, n))
    weight = b.matmul(values[2], weight) if rng.random() < 0.4 else weight
    weight = b.abs(weight) if rng.random() < 0.4 else weight
    if flat.rank == 2 and rng.random() < 0.4:
        return b.matmul(weight, flat, transpose_b=True) * 0.3
    return b.matmul(flat, weight, transpose_b=True) * 0.3


def unflattened_product(b, rng, x, values):
    """What a weight gives as an image, permuted."""
    if x.rank != 2 or not isinstance(x.shape[1], int):
        return x
    y = b.matmul(x, constant(b, rng, (x.shape[1], 12))) * 0.3
    y = y + constant(b, rng, (12,)) if rng.random() < 0.5 else y
    return b.permute(b.reshape(y, (x.shape[0], 2, 3, 2)), [0, *shuffled(rng, range(1, 4))])


def gather(b, rng, x, values):
    axis = int(rng.integers(max(x.rank, 1)))
    rows = x.shape[axis] if x.rank else None
    return b.gather_rows(x, b.constant(rng.integers(rows, size=3)), axis) if isinstance(rows, int) and rows else x


def scatter(b, rng, x, values):
    axis = int(rng.integers(max(x.rank, 1)))
    rows = x.shape[axis] if x.rank else None
    if not isinstance(rows, int) or not rows:
        return x
    index = b.constant(rng.permutation(rows)[: max(1, rows // 2)])
    return b.scatter_rows(x, index, b.tanh(b.gather_rows(x, index, axis)), axis)


STEPS = (
    *(permute,) * 3,
    *(reshape, with_constant, product_with_weight, flattened_product, unflattened_product) * 2,
    *(unary, binary, select, slice_, pad, broadcast, concat, reduce_, product, gather, scatter),
)
