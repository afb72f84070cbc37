"""Row programs, compiled, against their steps in primitives: tails of lanes and tiles, regions, windows, negatives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from template_runs import check, compiled, program_of

from boundflow_core.ir.types import DType, SymDim
from boundflow_tvm.rowprogram import ROW_PROGRAM
from boundflow_tvm.templates.rowsteps import (
    Add,
    Adjoint,
    ChannelBias,
    Concretize,
    Enter,
    Gathered,
    Linear,
    Pad,
    Relu,
    RowProgram,
    VectorBias,
    shapes_of,
)

B, R = SymDim.of("B"), SymDim.of("R")
DTYPES = st.sampled_from([DType.FLOAT32, DType.FLOAT64])
CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 16, 17])
ROWS = st.sampled_from([1, 2, 7, 8, 9, 15, 16, 17, 33])


class Drawn:
    """Operands of a row program: each a name, a shape, and random numbers; a relaxation's slopes are in [0, 1]."""

    def __init__(self, seed, dtype, regions, rows):
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        self.sizes = {B: regions, R: rows, 2 * R: 2 * rows}
        self.operands, self.arrays, self.constants, self.magnitudes = {}, {}, {}, {}

    def add(self, shape, values=None, *, constant=False, negated=False):
        name = f"x{len(self.operands)}"
        concrete = tuple(self.sizes.get(dim, dim) for dim in shape)
        array = self.rng.standard_normal(concrete).astype(self.dtype.numpy) if values is None else values
        integer = array.dtype.kind == "i"
        self.operands[name] = (shape, DType.INT64 if integer else None)
        if constant:
            self.constants[name] = array
        else:
            self.arrays[name] = array
            self.magnitudes[name] = array if integer else np.abs(array) * (-1.0 if negated else 1.0)
        return len(self.operands) - 1

    def check(self, program):
        attrs = {"program": program}
        # Of negative rows, all of which take the upper line, with a positive bias that is as large as any.
        check(ROW_PROGRAM, self.operands, self.constants, attrs, self.dtype, self.arrays, self.scale(program))

    def scale(self, program):
        """Rows, slopes and biases of which the steps make the largest they can: positive, and no radius."""
        found = dict(self.magnitudes)
        for step in program.steps:
            if isinstance(step, Relu):
                for lines in ((step.lower, step.upper), *([(step.bias, step.below)] if step.below is not None else [])):
                    pair = [f"x{number}" for number in lines]
                    found.update(dict.fromkeys(pair, np.maximum(found[pair[0]], found[pair[1]])))
        return found


@st.composite
def adjoints(draw, shape, source, weight):
    """An adjoint from maps of ``shape`` with any kernel, stride and padding that lead there."""
    numbers = []
    for size in shape[1:]:
        kernel, stride = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        padding = draw(st.integers(0, kernel - 1))
        after = draw(st.integers(0, kernel - 1))
        onto = (size - 1) * stride + kernel - padding - after
        numbers.append((kernel, stride, padding, onto) if onto > 0 else (1, 1, 0, size))
    (kh, sh, ph, h), (kw, sw, pw, w) = numbers
    return Adjoint(source, weight, (kh, kw), (sh, sw), (ph, pw), (draw(CHANNELS), h, w))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_relaxation_convolution_and_concretization(data):
    """What a sequential network does, for rows of regions and rows of any regions."""
    ragged, mirrored, both = (data.draw(st.booleans()) for _ in range(3))
    regions, rows, dtype = data.draw(st.integers(1, 3)), data.draw(ROWS), data.draw(DTYPES)
    start = (data.draw(CHANNELS), data.draw(st.integers(1, 6)), data.draw(st.integers(1, 9)))
    drawn = Drawn(data.draw(st.integers(0, 99)), dtype, regions, rows)
    drawn.add((*((R,) if ragged else (B, R)), *start))
    lines = [drawn.add((B, *start)) for _ in range(4)]
    bias = drawn.add((start[0],), constant=True)
    adjoint = data.draw(adjoints(start, 1, len(drawn.operands)))
    drawn.add((start[0], adjoint.onto[0], *adjoint.kernel), constant=True)
    box = [drawn.add((B, *adjoint.onto)) for _ in range(2)]
    region = None
    if ragged:
        region = drawn.add((R,), np.sort(drawn.rng.integers(0, regions, rows)))
    relu = Relu(0, lines[0], lines[1], lines[2], lines[3] if both else None)
    steps = (relu, ChannelBias(1, bias), adjoint, Concretize(2, *box))
    result = (2,) if data.draw(st.booleans()) else ()
    drawn.magnitudes[f"x{box[1]}"] = np.zeros_like(drawn.arrays[f"x{box[1]}"])
    drawn.check(RowProgram(start, steps, result, True, ragged, region, mirrored=mirrored))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_products_and_sums(data):
    """What a residual network of vectors does."""
    sizes = st.sampled_from([1, 3, 10, 16, 23, 24, 25, 50])
    wide, narrow = data.draw(sizes), data.draw(sizes)
    dtype, mirrored = data.draw(DTYPES), data.draw(st.booleans())
    drawn = Drawn(data.draw(st.integers(0, 99)), dtype, data.draw(st.integers(1, 2)), data.draw(ROWS))
    drawn.add((B, R, wide, 1, 1))
    lines = [drawn.add((B, wide, 1, 1)) for _ in range(3)]
    vector = drawn.add((wide, 1, 1), constant=True)
    down, up = drawn.add((wide, narrow), constant=True), drawn.add((narrow, wide), constant=True)
    steps = (
        VectorBias(0, vector),
        Linear(0, down, (narrow, 1, 1)),
        Linear(1, up, (wide, 1, 1)),
        Add(0, 2),
        Relu(3, *lines),
        Add(3, 4),
    )
    drawn.check(RowProgram((wide, 1, 1), steps, (1, 5), True, mirrored=mirrored))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_windows(data):
    """Windows cut out of maps at places of their own, with rows that come in later and zeros around."""
    ragged, mirrored, dtype = data.draw(st.booleans()), data.draw(st.booleans()), data.draw(DTYPES)
    regions, rows = data.draw(st.integers(1, 3)), data.draw(ROWS)
    start = (data.draw(CHANNELS), data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3)))
    drawn = Drawn(data.draw(st.integers(0, 99)), dtype, regions, rows)
    front = (R,) if ragged else (B, R)
    last = (start[1], start[2], start[0])
    drawn.add((*front, *last))
    extent = (start[1] + 2, start[2] + 3)
    lower, upper = (drawn.add((B, *extent, start[0])) for _ in range(2))
    bias = drawn.add((*front, *last))  # each row has its own
    places = drawn.rng.integers(0, 3, rows) * extent[1] + drawn.rng.integers(0, 4, rows)
    if ragged:
        places = places + drawn.rng.integers(0, regions, rows) * (extent[0] * extent[1])
    adjoint = data.draw(adjoints(start, 1, len(drawn.operands)))
    drawn.add((start[0], adjoint.onto[0], *adjoint.kernel), constant=True)
    wider = (adjoint.onto[0], adjoint.onto[1] + 3, adjoint.onto[2] + 2)
    more = drawn.add((*front[:-1], 2 * R if mirrored else R, wider[1], wider[2], wider[0]))
    origin = drawn.add((R,), places)
    way = Gathered(origin, extent)
    gathered = ((lower, way), (upper, way), (bias, Gathered()))
    steps = (Relu(0, lower, upper, bias), adjoint, Pad(2, (1, 2), wider), Enter(more, wider), Add(3, 4))
    program = RowProgram(start, steps, (2, 5), True, ragged, mirrored=mirrored, channels_last=True, gathered=gathered)
    assert shapes_of(program)[5] == wider
    drawn.check(program)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@settings(max_examples=12, deadline=None)
@given(st.data())
def test_what_is_undefined_stays_undefined_on_its_way(data):
    """NaN and infinities in rows, slopes or boxes show wherever they do in primitives, and in no other row."""
    regions, rows = data.draw(st.integers(1, 2)), data.draw(ROWS)
    start = (data.draw(CHANNELS), data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5)))
    drawn = Drawn(data.draw(st.integers(0, 99)), DType.FLOAT32, regions, rows)
    drawn.add((B, R, *start))
    lines = [drawn.add((B, *start)) for _ in range(3)]
    adjoint = data.draw(adjoints(start, 1, len(drawn.operands)))
    weight = drawn.add((start[0], adjoint.onto[0], *adjoint.kernel), constant=True)
    drawn.constants[f"x{weight}"][drawn.rng.random(drawn.constants[f"x{weight}"].shape) < 0.3] = 0.0
    box = [drawn.add((B, *adjoint.onto)) for _ in range(2)]
    for value in data.draw(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, -0.0]), min_size=1, max_size=3)):
        array = drawn.arrays[f"x{data.draw(st.sampled_from([0, *lines, *box]))}"]
        array[tuple(drawn.rng.integers(0, size) for size in array.shape)] = value
    steps = (Relu(0, *lines), adjoint, Concretize(2, *box))
    program = RowProgram(start, steps, (1, 2), True)
    attrs = {"program": program}
    check(ROW_PROGRAM, drawn.operands, drawn.constants, attrs, drawn.dtype, drawn.arrays)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_undefined_stays_undefined():
    """A row that holds NaN has no value, and its neighbours keep theirs."""
    drawn = Drawn(0, DType.FLOAT32, 1, 5)
    drawn.add((B, R, 20, 1, 1))
    lines = [drawn.add((B, 20, 1, 1)) for _ in range(3)]
    drawn.arrays["x0"][0, 2, 11] = np.nan
    program = RowProgram((20, 1, 1), (Relu(0, *lines),), (1,), True)
    drawn.check(program)
    results, _ = compiled(
        program_of(ROW_PROGRAM, drawn.operands, drawn.constants, {"program": program}, drawn.dtype), drawn.arrays
    )
    assert np.isnan(results["y1"]).tolist() == [[False, False, True, False, False]]
