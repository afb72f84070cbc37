"""Derivatives that composites bring: those of their decompositions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from boundflow_core.derivative import gradient_program
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram, Composite
from boundflow_crown.composites import BACKSUBSTITUTE, CONCRETIZE_BOX, RELU_BACKSUBSTITUTE

CASES = {
    "regular": (2, (2, 3, 4, 2), (2, 1, 4, 2)),
    "ragged": (1, (5, 4, 2), (5, 4, 2)),
    "no axes": (2, (2, 3), (2, 1)),
    "windows": (4, (2, 3, 2, 2, 4), (2, 1, 2, 2, 4)),
}


def program_of(spec: Composite, case: str) -> BoundProgram:
    """Sums of the composite's results, weighted, and each alone."""
    front, shape, line = CASES[case]
    b = Builder()
    count = {"relu_backsubstitute": 3, "backsubstitute": 4, "concretize_box": 2}[spec.name]
    inputs = [b.input("rows", shape), *(b.input(f"line{n}", line) for n in range(count))]
    found = b.emit(spec, *inputs, front=front)
    return b.finish({f"out{n}": value for n, value in enumerate(found)} | {"all": _weighted(b, found)})


def _weighted(b: Builder, values: tuple[Any, ...]) -> Any:
    total = None
    for number, value in enumerate(values):
        part = value * value * (1.0 + number)
        part = b.reduce_sum(part, tuple(range(value.rank))) if value.rank else part
        total = part if total is None else total + part
    return total


@pytest.mark.parametrize("spec", [RELU_BACKSUBSTITUTE, BACKSUBSTITUTE, CONCRETIZE_BOX], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_as_of_the_decomposition(spec: Composite, case: str) -> None:
    """For every result and every operand, rows of zeros among them."""
    numbers = np.random.default_rng(0)
    written = program_of(replace(spec, derivative=None), case)
    inputs = {value.name: numbers.normal(size=value.shape) for value in written.inputs}
    inputs["rows"][numbers.random(inputs["rows"].shape) < 0.3] = 0.0
    names = [value.name for value in written.inputs]
    for output in written.outputs:
        seed = numbers.normal(size=written.outputs[output].shape)
        own, other = (
            evaluate(gradient_program(program, output, names, seed="seed"), {**inputs, "seed": seed})
            for program in (program_of(spec, case), written)
        )
        for name in names:
            np.testing.assert_allclose(own[f"grad:{name}"], other[f"grad:{name}"], rtol=0, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("spec", [RELU_BACKSUBSTITUTE, BACKSUBSTITUTE, CONCRETIZE_BOX], ids=str)
def test_chooses_nothing_element_by_element(spec: Composite) -> None:
    program = gradient_program(program_of(spec, "regular"), "all", ["rows", "line0"])
    assert not {"where", "compare"} & {op.name for op in program.ops}
