"""The pass that leaves strided adjoints in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from boundflow_core.executors.phases import sum_by_phases
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import Attrs, DType, SymDim

B, S = SymDim.of("B"), SymDim.of("S")
Tail = Callable[[Builder, Value, Value], Value]


def adjoint(b: Builder, rows: Value, weight: Any, size: tuple[int, int], **attrs: Any) -> Value:
    given = {"stride": (2, 2), "dilation": (1, 1), "padding": (1, 1, 1, 1), "groups": 1, **attrs}
    return b.emit_named("conv2d_input_grad", rows, b.constant(weight), attrs=Attrs(given, input_size=size))


def program(
    tail: Tail, kernel: int = 4, size: tuple[int, int] = (8, 6), dtype: DType = DType.FLOAT32, **attrs: Any
) -> BoundProgram:
    b = Builder(dtype, "rows")
    stride, padding = attrs.get("stride", (2, 2)), attrs.get("padding", (1, 1, 1, 1))
    places = [(size[a] + padding[a] + padding[a + 2] - kernel) // stride[a] + 1 for a in (0, 1)]
    rows = b.input("rows", (B, S, 5, *places))
    weight = np.random.default_rng(1).normal(size=(5, 3, kernel, kernel))
    image = b.input("image", (B, 1, 3, *size))
    found = adjoint(b, b.reshape(rows, (B * S, 5, *places)), weight, size, **attrs)
    return b.finish({"out": tail(b, b.reshape(found, (B, S, 3, *size)), image)})


def product(b: Builder, x: Value, image: Value) -> Value:
    """The least value over a box, as sums of products with vectors."""
    count = int(np.prod(x.shape[2:]))
    flat, vector = b.reshape(x, (B, S, count)), b.reshape(image, (B, count, 1))
    return b.matmul(flat, vector) - b.matmul(b.abs(flat), b.abs(vector))


def total(b: Builder, x: Value, image: Value) -> Value:
    return b.reduce_sum(b.maximum(x, 0.0) * image - x * b.abs(image), (2, 3, 4))


def inputs(made: BoundProgram) -> dict[str, Any]:
    random, sizes = np.random.default_rng(0), {"B": 2, "S": 3}
    shapes = {value.name: [d if isinstance(d, int) else sizes[str(d)] for d in value.shape] for value in made.inputs}
    return {v.name: random.normal(size=shapes[v.name]).astype(v.type.dtype.numpy) for v in made.inputs}


def names(made: BoundProgram) -> set[str]:
    return {op.name for op in made.ops}


@pytest.mark.parametrize("tail", [product, total])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": 3, "size": (8, 8)},
        {"kernel": 5, "padding": (2, 2, 2, 2)},
        {"kernel": 3, "size": (6, 9), "stride": (2, 3)},
        {"kernel": 2, "padding": (0, 0, 0, 0)},
    ],
    ids=str,
)
def test_sums_are_the_same(tail: Tail, options: dict[str, Any]) -> None:
    made = program(tail, **options)
    changed = sum_by_phases(made)
    assert "conv2d_input_grad" not in names(changed) and "conv2d" in names(changed)
    given = inputs(made)
    want = evaluate(made, given)["out"]
    np.testing.assert_allclose(evaluate(changed, given)["out"], want, rtol=1e-5, atol=1e-4)


def unmultiplied(b: Builder, x: Value, image: Value) -> Value:
    return b.reduce_sum(b.maximum(x, 0.0) * image - x, (2, 3, 4))


def test_results_that_are_no_elements_are_not_summed_up() -> None:
    made = program(unmultiplied)  # remainders read from different places on
    assert sum_by_phases(made) is made
    made = program(unmultiplied, kernel=2, padding=(0, 0, 0, 0))
    changed, given = sum_by_phases(made), inputs(made)
    assert "conv2d" in names(changed)
    np.testing.assert_allclose(evaluate(changed, given)["out"], evaluate(made, given)["out"], rtol=1e-5, atol=1e-4)


def partly(b: Builder, x: Value, image: Value) -> Value:
    return b.reduce_sum(x * image, (4,))


def moved(b: Builder, x: Value, image: Value) -> Value:
    return b.reduce_sum(b.permute(x, (0, 1, 3, 4, 2)), (2, 3, 4))


def handed_out(b: Builder, x: Value, image: Value) -> Value:
    return x * image


@pytest.mark.parametrize("tail", [partly, moved, handed_out])
def test_what_is_not_summed_up_whole_is_left_alone(tail: Tail) -> None:
    made = program(tail)
    assert sum_by_phases(made) is made


@pytest.mark.parametrize(
    "options",
    [
        {"size": (7, 6), "kernel": 3},  # the last remainder has an element less
        {"stride": (1, 1), "kernel": 3},
        {"kernel": 1, "padding": (0, 0, 0, 0)},  # most remainders get nothing
        {"dtype": DType.FLOAT64},
    ],
    ids=str,
)
def test_convolutions_that_are_left_alone(options: dict[str, Any]) -> None:
    made = program(product, **options)
    assert sum_by_phases(made) is made


def test_adjoints_in_different_orders_meet() -> None:
    b = Builder(DType.FLOAT32, "rows")
    random = np.random.default_rng(2)
    one, other = b.input("one", (S, 4, 6, 6)), b.input("other", (S, 4, 4, 4))
    x = adjoint(b, one, random.normal(size=(4, 3, 4, 4)), (12, 12))
    y = adjoint(b, other, random.normal(size=(4, 3, 3, 3)), (12, 12), stride=(3, 3), padding=(0, 0, 0, 0))
    made = b.finish({"out": b.reduce_sum(b.maximum(x + y, 0.0) * x, (1, 2, 3))})
    changed, given = sum_by_phases(made), inputs(made)
    assert "conv2d" in names(changed)
    np.testing.assert_allclose(evaluate(changed, given)["out"], evaluate(made, given)["out"], rtol=1e-5, atol=1e-3)


def test_images_are_ordered_before_they_are_repeated() -> None:
    b = Builder(DType.FLOAT32, "rows")
    rows, image, region = (
        b.input("rows", (S, 4, 6, 6)),
        b.input("image", (B, 3, 12, 12)),
        b.input("of", (S,), DType.INT64),
    )
    x = adjoint(b, rows, np.random.default_rng(3).normal(size=(4, 3, 2, 2)), (12, 12), padding=(0, 0, 0, 0))
    made = b.finish({"out": b.reduce_sum(x * b.gather_rows(image, region), (1, 2, 3))})
    changed = sum_by_phases(made)
    assert [op.outputs[0].shape[0] for op in changed.ops if op.name == "permute" and op.inputs[0].rank == 6] == [B]
    given = {**inputs(made), "of": np.array([1, 0, 1])}
    np.testing.assert_allclose(evaluate(changed, given)["out"], evaluate(made, given)["out"], rtol=1e-5, atol=1e-3)
