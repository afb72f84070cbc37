"""Every rule of the domain: the conformance kit on every executor, and the ranges that must be exact."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.plugins import registry
from boundflow_core.testing import check_op_rule, op_names
from boundflow_core.testing.subject import make_subject
from boundflow_core.workshop import write_program
from boundflow_interval import IBP, INTERVAL, Interval
from boundflow_interval.rules.arithmetic import EXACT_PRODUCTS, matmul_by_parts, matmul_exact

Array = NDArray[Any]
Bounds = tuple[Array, Array]
Ibp = Callable[..., Bounds]
OneOp = Callable[..., PrimalGraph]

EXECUTORS = [name for name, executor in registry().executors.items() if executor.unavailable() is None]


def test_there_is_a_rule_for_every_operator() -> None:
    assert set(INTERVAL.rules) == set(PRIMAL_OPS)


@pytest.mark.parametrize("op", op_names())
def test_kit(op: str) -> None:
    """On the reference interpreter, and on every executor that can run here."""
    check_op_rule(op, "ibp", examples=60)


# -- exact ranges -------------------------------------------------------------------------------------------------

REAL = [(-3.0, 2.0), (-2.5, -0.5), (0.25, 4.0), (-1.0, 0.0), (0.0, 3.0), (-0.3, 0.1), (1.5, 1.5), (-40.0, 60.0)]
ABOVE = [(0.25, 4.0), (1e-6, 0.1), (0.5, 0.5), (3.0, 90.0)]
BESIDE = [*ABOVE, (-4.0, -0.25), (-90.0, -3.0)]

FUNCTIONS: list[tuple[str, dict[str, Any], list[tuple[float, float]]]] = [
    *((op, {}, REAL) for op in ("relu", "sigmoid", "tanh", "erf", "softplus", "abs", "sign", "floor", "sin", "cos")),
    ("exp", {}, REAL[:-1]),
    ("log", {}, ABOVE),
    ("sqrt", {}, [*ABOVE, (0.0, 2.0)]),
    ("reciprocal", {}, BESIDE),
    ("gelu", {"approximate": "none"}, REAL),
    ("gelu", {"approximate": "tanh"}, REAL),
    ("clip", {"min": -1.0, "max": 1.5}, REAL),
    ("clip", {"min": -math.inf, "max": 1.5}, REAL),
    *(("pow", {"exponent": e}, REAL) for e in (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)),
    *(("pow", {"exponent": e}, BESIDE) for e in (-1.0, -2.0, -3.0)),
    *(("pow", {"exponent": e}, ABOVE) for e in (0.5, 1.5, -0.5)),
]


@pytest.mark.parametrize(
    "op,attributes,regions", FUNCTIONS, ids=lambda value: str(value) if isinstance(value, str) else ""
)
def test_range_of_function_is_exact(
    op: str, attributes: dict[str, Any], regions: list[tuple[float, float]], ibp: Ibp, one_op: OneOp
) -> None:
    graph = one_op(op, (1,), **attributes)
    for low, high in regions:
        lower, upper = ibp(graph, [[low]], [[high]])
        values = evaluate_graph(graph, np.linspace(low, high, 200_001)[:, None])
        scale = max(1.0, float(np.abs(values).max()))
        assert values.min() - 1e-7 * scale <= lower[0, 0] <= values.min() + 1e-12 * scale, (low, high)
        assert values.max() - 1e-12 * scale <= upper[0, 0] <= values.max() + 1e-7 * scale, (low, high)


@pytest.mark.parametrize("slope", [-2.0, -0.5, 0.0, 0.01, 1.0, 3.0])
def test_range_of_leaky_relu_is_exact(slope: float, ibp: Ibp, one_op: OneOp) -> None:
    graph = one_op("leaky_relu", (1,), np.array([slope]))
    for low, high in REAL:
        values = evaluate_graph(graph, np.linspace(low, high, 100_001)[:, None])
        lower, upper = ibp(graph, [[low]], [[high]])
        np.testing.assert_allclose([lower[0, 0], upper[0, 0]], [values.min(), values.max()], rtol=0, atol=1e-3)
        assert lower[0, 0] <= values.min() and values.max() <= upper[0, 0]


def test_slopes_of_leaky_relu_are_those_of_their_channel(ibp: Ibp, one_op: OneOp) -> None:
    graph = one_op("leaky_relu", (3, 1, 2), np.array([-1.0, 0.5, 0.0]).reshape(3, 1, 1))
    lower, upper = ibp(graph, np.full((1, 3, 1, 2), -2.0), np.full((1, 3, 1, 2), 1.0))
    np.testing.assert_array_equal(lower[0, :, 0, 0], [0.0, -1.0, 0.0])
    np.testing.assert_array_equal(upper[0, :, 0, 0], [2.0, 1.0, 1.0])


@pytest.mark.parametrize("approximate,least", [("none", -0.16997120747990366), ("tanh", -0.17004075057125405)])
def test_gelu_reaches_its_minimum(approximate: str, least: float, ibp: Ibp, one_op: OneOp) -> None:
    graph = one_op("gelu", (1,), approximate=approximate)
    lower, _ = ibp(graph, [[-1.0]], [[0.0]])
    np.testing.assert_allclose(lower, [[least]], rtol=1e-14)


@pytest.mark.parametrize("op", ["reciprocal", "pow"])
@pytest.mark.parametrize("low,high", [(-1.0, 1.0), (0.0, 1.0), (-1.0, 0.0), (0.0, 0.0)])
def test_pole_inside_the_region_leaves_no_finite_bounds(
    op: str, low: float, high: float, ibp: Ibp, one_op: OneOp
) -> None:
    graph = one_op(op, (1,), **({"exponent": -3.0} if op == "pow" else {}))
    assert ibp(graph, [[low]], [[high]]) == (np.array([[-np.inf]]), np.array([[np.inf]]))


def test_even_pole_is_bounded_below(ibp: Ibp, one_op: OneOp) -> None:
    lower, upper = ibp(one_op("pow", (1,), exponent=-2.0), [[-2.0]], [[1.0]])
    assert (lower, upper) == (np.array([[0.25]]), np.array([[np.inf]]))


OUTSIDE: list[tuple[str, dict[str, Any]]] = [
    ("log", {}),
    ("sqrt", {}),
    ("pow", {"exponent": 0.5}),
    ("pow", {"exponent": -0.5}),
]
AFTER: list[tuple[str, dict[str, Any]]] = [
    *((op, {}) for op in ("relu", "sigmoid", "tanh", "erf", "sign", "floor", "sin", "cos", "abs", "exp", "reciprocal")),
    ("clip", {"min": 0.0, "max": 1.0}),
    ("gelu", {"approximate": "none"}),
    ("pow", {"exponent": 2.0}),
    ("softmax", {"axis": 2}),
    ("softmax", {"axis": 0}),
    ("max_pool2d", {"kernel": (1, 2), "stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}),
    ("reduce_max", {"axes": (2,), "keepdims": False}),
]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("op,attributes", OUTSIDE)
def test_no_bounds_outside_the_domain_of_a_function(op: str, attributes: dict[str, Any], executor: str) -> None:
    """Where the network is undefined for some point, nothing that comes later may invent finite bounds."""
    subject = make_subject(IBP, executor=executor)
    region = {"lower": np.array([-0.5, 2.0]).reshape(1, 1, 1, 2), "upper": np.full((1, 1, 1, 2), 3.0)}
    for after, more in [("reshape", {"shape": (2,)}), *AFTER]:
        g = PrimalBuilder("undefined", "x", (1, 1, 2))
        y = g.op(op, g.input, **attributes)
        graph = g.finish(g.op(after, y, **more))
        lower, upper = subject.run(subject.compiled(graph, None), region)
        assert (lower[0, 0], upper[0, 0]) == (-np.inf, np.inf), after


def test_log_of_zero_is_bounded_above(ibp: Ibp, one_op: OneOp) -> None:
    lower, upper = ibp(one_op("log", (1,)), [[0.0]], [[1.0]])
    assert lower[0, 0] == -np.inf and upper[0, 0] == 0.0


# -- sine and cosine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["sin", "cos"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_waves_around_their_extremes_at_every_size(op: str, dtype: str, ibp: Ibp, one_op: OneOp) -> None:
    """Ends on either side of multiples of pi/2, a few ulps to a few periods away, in arguments up to 1e8."""
    kind = np.dtype(dtype)
    turns = np.concatenate([np.arange(-9, 10), 10.0 ** np.arange(1, 9), -(10.0 ** np.arange(1, 9)) - 1.0])
    middle = (turns * (math.pi / 2)).astype(kind)
    step = np.spacing(np.abs(middle) + 1).astype(kind)
    ends = [(a, b) for a, b in itertools.product((-100, -3, -1, 0, 1, 3, 100), repeat=2) if a <= b]
    lower = np.stack([middle + a * step for a, _ in ends]).astype(kind)
    upper = np.stack([middle + b * step for _, b in ends]).astype(kind)
    graph = one_op(op, lower.shape[1:])
    low, high = ibp(graph, lower, upper, dtype=dtype)
    exact = getattr(np, op)
    slack = 4 * np.finfo(kind).eps
    for share in np.linspace(0.0, 1.0, 41):
        points = lower.astype(np.float64) + share * (upper.astype(np.float64) - lower)
        assert (exact(points) >= low - slack).all() and (exact(points) <= high + slack).all()
    assert (low >= -1).all() and (high <= 1).all() and (low <= high).all()


@pytest.mark.parametrize("op", ["sin", "cos"])
def test_waves_over_a_period_or_at_infinity(op: str, ibp: Ibp, one_op: OneOp) -> None:
    lower = np.array([[0.1, -1e300, -np.inf, 3.0, 1e17]])
    upper = np.array([[0.1 + 2 * math.pi, 1e300, np.inf, np.inf, 1e17]])
    low, high = ibp(one_op(op, (5,)), lower, upper)
    assert (low == -1).all() and (high == 1).all()


# -- order in floating point --------------------------------------------------------------------------------------

SMOOTH = ["sigmoid", "tanh", "erf", "gelu", "softplus", "exp", "sin", "cos", "abs", "pow", "reciprocal", "sqrt", "log"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("op", SMOOTH)
def test_ends_of_tiny_intervals_do_not_cross(op: str, dtype: str, ibp: Ibp, one_op: OneOp) -> None:
    """On intervals of a few ulps a computed function need not keep the order that the true one keeps."""
    attributes: dict[str, Any] = {"gelu": {"approximate": "none"}, "pow": {"exponent": 3.0}}.get(op, {})
    rng = np.random.default_rng(0)
    start = rng.normal(size=20_000) * 10.0 ** rng.integers(-12, 2, size=20_000)
    start = np.abs(start) + 1e-12 if op in ("reciprocal", "sqrt", "log") else start
    lower = start.astype(dtype)
    upper = np.nextafter(np.nextafter(lower, np.inf, dtype=dtype), np.inf, dtype=dtype)
    low, high = ibp(one_op(op, (1,), **attributes), lower[:, None], upper[:, None], dtype=dtype)
    assert (low <= high).all()


# -- products -----------------------------------------------------------------------------------------------------


def _intervals(rng: np.random.Generator, *shape: int) -> tuple[Array, Array]:
    centre, radius = rng.normal(size=shape), np.abs(rng.normal(size=shape))
    return centre - radius, centre + radius


def _two_matrices(rule: Callable[[Builder, Interval, Interval], Interval], *ends: Array) -> Bounds:
    b = Builder(DType.FLOAT64)
    batch = SymDim.of("B")
    values = [b.input(f"v{i}", (batch, *array.shape[1:])) for i, array in enumerate(ends)]
    product = rule(b, Interval(*values[:2]), Interval(*values[2:]))
    results = evaluate(b.finish({"l": product.lower, "u": product.upper}), {f"v{i}": a for i, a in enumerate(ends)})
    return results["l"], results["u"]


def test_product_of_perturbed_matrices_is_exact_for_every_element() -> None:
    rng = np.random.default_rng(1)
    ends = (*_intervals(rng, 4, 2, 3, 5), *_intervals(rng, 4, 2, 5, 3))
    xl, xu, yl, yu = (end[..., :, :, None] if i < 2 else end[..., None, :, :] for i, end in enumerate(ends))
    candidates = np.stack([xl * yl, xl * yu, xu * yl, xu * yu])
    lower, upper = _two_matrices(matmul_exact, *ends)
    np.testing.assert_allclose(lower, candidates.min(axis=0).sum(axis=-2), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(upper, candidates.max(axis=0).sum(axis=-2), rtol=1e-12, atol=1e-12)


def test_product_by_parts_encloses_the_exact_one_and_is_not_much_wider() -> None:
    rng = np.random.default_rng(2)
    ends = (*_intervals(rng, 6, 4, 5), *_intervals(rng, 6, 5, 3))
    exact, parts = _two_matrices(matmul_exact, *ends), _two_matrices(matmul_by_parts, *ends)
    assert (parts[0] <= exact[0] + 1e-12).all() and (parts[1] >= exact[1] - 1e-12).all()
    assert ((parts[1] - parts[0]) <= 1.5 * (exact[1] - exact[0]) + 1e-12).all()
    xl, xu, yl, yu = ends
    naive = np.matmul((xl + xu) / 2, (yl + yu) / 2)
    radius = np.matmul(np.abs(xl + xu) / 2 + (xu - xl) / 2, (yu - yl) / 2) + np.matmul(
        (xu - xl) / 2, np.abs(yl + yu) / 2
    )
    assert (parts[0] >= naive - radius - 1e-12).all() and (parts[0] > naive - radius + 1e-3).any()


def test_product_by_parts_is_exact_where_one_factor_keeps_its_sign() -> None:
    rng = np.random.default_rng(3)
    lower = rng.random((3, 4, 5))
    ends = (lower, lower + rng.random((3, 4, 5)), *_intervals(rng, 3, 5, 2))
    np.testing.assert_allclose(_two_matrices(matmul_by_parts, *ends), _two_matrices(matmul_exact, *ends), atol=1e-12)


def test_product_by_parts_does_not_cross_on_points() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(50, 6, 30)), rng.normal(size=(50, 30, 6))
    lower, upper = _two_matrices(matmul_by_parts, x, x, y, y)
    assert (lower <= upper).all()
    np.testing.assert_allclose(lower, x @ y, atol=1e-12)
    np.testing.assert_allclose(upper, x @ y, atol=1e-12)


def test_large_products_hold_no_array_of_all_products(ibp: Ibp) -> None:
    side = round(EXACT_PRODUCTS ** (1 / 3)) + 2
    g = PrimalBuilder("square", "x", (side, side))
    graph = g.finish(g.op("matmul", g.input, g.input))
    x = np.random.default_rng(5).normal(size=(2, side, side))
    lower, upper = ibp(graph, x - 0.1, x + 0.1)
    outputs = evaluate_graph(graph, x)
    assert (lower <= outputs).all() and (outputs <= upper).all()
    program = write_program(graph, IBP, {"interval": INTERVAL}, dtype=DType.FLOAT64, spec=None, options={})
    program = program.bind({"B": 1})
    assert max(math.prod(value.shape) for op in program.ops for value in op.outputs) == side**2


def test_product_with_itself_is_a_square(ibp: Ibp, one_op: OneOp) -> None:
    g = PrimalBuilder("square", "x", (4,))
    graph = g.finish(g.op("mul", g.input, g.input))
    lower, upper = ibp(graph, [[-2.0, -2.0, 1.0, 0.0]], [[1.0, -1.0, 3.0, 0.0]])
    np.testing.assert_array_equal(lower, [[0.0, 1.0, 1.0, 0.0]])
    np.testing.assert_array_equal(upper, [[4.0, 4.0, 9.0, 0.0]])


# -- softmax ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 6), st.sampled_from([0.1, 1.0, 30.0, 800.0]), st.integers(0, 2**32 - 1))
def test_softmax_is_exact(n: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lower, upper = (end * scale for end in _intervals(rng, 1, n))
    g = PrimalBuilder("softmax", "x", (n,))
    graph = g.finish(g.op("softmax", g.input, axis=0))
    corners = np.where(np.array(list(itertools.product((False, True), repeat=n))), upper, lower)
    outputs = evaluate_graph(graph, corners)
    subject = make_subject(IBP)
    low, high = subject.run(subject.compiled(graph, None), {"lower": lower, "upper": upper})
    np.testing.assert_allclose(low[0], outputs.min(axis=0), rtol=1e-10, atol=1e-300)
    np.testing.assert_allclose(high[0], outputs.max(axis=0), rtol=1e-10, atol=1e-300)


def test_softmax_loses_no_digits_beside_a_large_element(ibp: Ibp, one_op: OneOp) -> None:
    """Subtracting the largest term from the sum of all would leave nothing of the others."""
    lower, upper = np.array([[-40.0, -46.0, -46.0]]), np.array([[0.0, -46.0, -46.0]])
    low, _ = ibp(one_op("softmax", (3,), axis=0), lower, upper)
    np.testing.assert_allclose(low[0, 0], 1 / (1 + 2 * math.exp(-6.0)), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_softmax_of_huge_elements_is_finite(dtype: str, ibp: Ibp, one_op: OneOp) -> None:
    lower, upper = np.array([[-3e4, 1e4, -1e30]]), np.array([[2e4, 1e4, 1e30]])
    low, high = ibp(one_op("softmax", (3,), axis=0), lower, upper, dtype=dtype)
    np.testing.assert_array_equal(low, [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(high, [[1.0, 1.0, 1.0]])
