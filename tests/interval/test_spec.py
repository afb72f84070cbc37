"""Specification rows: folded back through affine operators exactly, and tighter than on finished outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType
from boundflow_core.workshop import write_program
from boundflow_interval import IBP, INTERVAL
from boundflow_interval.spec import FOLDS

Array = NDArray[Any]
Bounds = tuple[Array, Array]
Ibp = Callable[..., Bounds]
Build = Callable[[PrimalBuilder, np.random.Generator], Any]

WINDOW = {"stride": (2, 1), "padding": (1, 0, 0, 1), "dilation": (1, 1), "groups": 1}


def _conv(g: PrimalBuilder, rng: np.random.Generator) -> Any:
    return g.op("conv2d", g.input, rng.normal(size=(3, 2, 2, 2)), rng.normal(size=3), **WINDOW)


def _grouped_conv(g: PrimalBuilder, rng: np.random.Generator) -> Any:
    return g.op("conv2d", g.input, rng.normal(size=(4, 1, 2, 2)), **{**WINDOW, "groups": 2})


def _conv_transpose(g: PrimalBuilder, rng: np.random.Generator) -> Any:
    weight, bias = rng.normal(size=(2, 3, 2, 2)), rng.normal(size=3)
    return g.op("conv_transpose2d", g.input, weight, bias, **WINDOW, output_padding=(1, 0))


# One affine network for every operator that folds, from an input of [2, 3, 4].
AFFINE: dict[str, Build] = {
    "linear": lambda g, rng: g.op("linear", g.input, rng.normal(size=(5, 4)), rng.normal(size=5)),
    "linear without bias": lambda g, rng: g.op("linear", g.input, rng.normal(size=(5, 4))),
    "matmul": lambda g, rng: g.op("matmul", g.input, rng.normal(size=(4, 5))),
    "conv2d": _conv,
    "conv2d in groups": _grouped_conv,
    "conv_transpose2d": _conv_transpose,
    "reshape": lambda g, rng: g.op("reshape", g.input, shape=(4, 6)),
    "permute": lambda g, rng: g.op("permute", g.input, axes=(1, 2, 0)),
    "add": lambda g, rng: g.op("add", g.input, rng.normal(size=(3, 1))),
    "add that repeats": lambda g, rng: g.op(
        "add", g.op("reshape", g.input, shape=(1, 6, 4)), rng.normal(size=(3, 6, 1))
    ),
    "mul": lambda g, rng: g.op("mul", g.input, rng.normal(size=(2, 1, 4))),
    "mul that repeats": lambda g, rng: g.op("mul", g.op("reshape", g.input, shape=(24, 1)), rng.normal(size=5)),
    "expand": lambda g, rng: g.op("expand", g.op("reshape", g.input, shape=(24, 1)), shape=(2, 24, 3)),
    "reduce_sum": lambda g, rng: g.op("reduce_sum", g.input, axes=(0, 2), keepdims=False),
    "reduce_sum, axes kept": lambda g, rng: g.op("reduce_sum", g.input, axes=(1,), keepdims=True),
}


def _affine(name: str) -> PrimalGraph:
    g = PrimalBuilder(name, "x", (2, 3, 4))
    return g.finish(AFFINE[name](g, np.random.default_rng(0)))


def _box(*shape: int) -> Bounds:
    rng = np.random.default_rng(7)
    centre = rng.normal(size=shape)
    return centre - rng.random(shape), centre + rng.random(shape)


def test_every_fold_has_a_case() -> None:
    assert {name.split(" ")[0].rstrip(",") for name in AFFINE} == set(FOLDS)


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("name", AFFINE)
def test_rows_on_an_affine_network_are_bounded_exactly(name: str, groups: int, ibp: Ibp) -> None:
    """Folded all the way to the input: each input takes the end that its total coefficient asks for."""
    graph = _affine(name)
    lower, upper = _box(3, 2, 3, 4)
    count = int(np.prod(graph.output_type.shape))
    rng = np.random.default_rng(1)
    rows, offset = rng.normal(size=(groups, 4, count)), rng.normal(size=(groups, 4))
    low, high = ibp(graph, lower, upper, rows, offset)

    start = evaluate_graph(graph, np.zeros((1, 2, 3, 4))).ravel()
    matrix = evaluate_graph(graph, np.eye(24).reshape(24, 2, 3, 4)).reshape(24, -1).T - start[:, None]
    for region in range(3):
        own = region if groups > 1 else 0
        total = rows[own] @ matrix
        constant = rows[own] @ start + offset[own]
        plus, minus = np.maximum(total, 0), np.minimum(total, 0)
        least, most = lower[region].ravel(), upper[region].ravel()
        np.testing.assert_allclose(low[region], plus @ least + minus @ most + constant, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(high[region], plus @ most + minus @ least + constant, rtol=1e-10, atol=1e-10)


def _classifier(last: str = "linear") -> PrimalGraph:
    rng = np.random.default_rng(3)
    g = PrimalBuilder("classifier", "x", (6,))
    y = g.op("relu", g.op("linear", g.input, rng.normal(size=(8, 6)), rng.normal(size=8)))
    y = g.op("linear", y, rng.normal(size=(4, 8)), rng.normal(size=4))
    return g.finish(g.op("relu", y) if last == "relu" else y)


def _unfolded(rows: Array, lower: Array, upper: Array) -> Bounds:
    plus, minus = np.maximum(rows, 0), np.minimum(rows, 0)
    columns = (lower[..., None], upper[..., None])
    low, high = plus @ columns[0] + minus @ columns[1], plus @ columns[1] + minus @ columns[0]
    return low[..., 0], high[..., 0]


MARGINS = np.array([[[1.0, -1.0, 0.0, 0.0], [1.0, 0.0, -1.0, 0.0], [1.0, 0.0, 0.0, -1.0]]])


def test_margins_are_tighter_than_rows_on_the_finished_outputs(ibp: Ibp) -> None:
    graph = _classifier()
    lower, upper = _box(5, 6)
    low, high = ibp(graph, lower, upper, MARGINS)
    loose = _unfolded(MARGINS, *ibp(graph, lower, upper))
    assert (low >= loose[0] - 1e-12).all() and (high <= loose[1] + 1e-12).all()
    assert (low > loose[0] + 0.1).any()


def test_rows_stay_on_the_outputs_where_the_last_operator_is_not_affine(ibp: Ibp) -> None:
    graph = _classifier("relu")
    lower, upper = _box(5, 6)
    np.testing.assert_allclose(
        ibp(graph, lower, upper, MARGINS), _unfolded(MARGINS, *ibp(graph, lower, upper)), rtol=1e-12, atol=1e-12
    )


def test_identity_rows_give_the_outputs(ibp: Ibp) -> None:
    graph = _classifier()
    lower, upper = _box(5, 6)
    np.testing.assert_allclose(
        ibp(graph, lower, upper, np.eye(4)[None]), ibp(graph, lower, upper), rtol=1e-12, atol=1e-12
    )


def test_rows_stop_at_a_sum_of_two_perturbed_values(ibp: Ibp) -> None:
    rng = np.random.default_rng(4)
    g = PrimalBuilder("residual", "x", (4,))
    y = g.op("relu", g.op("linear", g.input, rng.normal(size=(4, 4))))
    graph = g.finish(g.op("add", g.op("linear", y, rng.normal(size=(4, 4))), g.input))
    lower, upper = _box(3, 4)
    low, high = ibp(graph, lower, upper, MARGINS)
    points = lower + np.random.default_rng(5).random((200, 3, 4)) * (upper - lower)
    values = np.stack([evaluate_graph(graph, p) for p in points]) @ MARGINS[0].T
    assert (low <= values).all() and (values <= high).all()


def test_folding_leaves_the_last_product_without_a_bound_of_its_own() -> None:
    """Nothing of the forward bounds of the last layer remains in the program."""
    program = write_program(_classifier(), IBP, {"interval": INTERVAL}, dtype=DType.FLOAT64, spec="shared", options={})
    assert [op.name for op in program.ops].count("interval_matmul") == 1
    assert [op.name for op in program.ops].count("spec_linear") == 1


def test_rows_per_region_belong_to_their_region(ibp: Ibp) -> None:
    graph = _classifier()
    lower, upper = _box(3, 6)
    rows = np.random.default_rng(6).normal(size=(3, 2, 4))
    low, high = ibp(graph, lower, upper, rows)
    for region in range(3):
        one = slice(region, region + 1)
        alone = ibp(graph, lower[one], upper[one], rows[one])
        np.testing.assert_allclose((low[one], high[one]), alone, rtol=1e-12, atol=1e-12)
