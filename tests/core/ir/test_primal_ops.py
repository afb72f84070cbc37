"""Every normalized operator: its type, its meaning against NumPy, and its decomposition against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest

from boundflow_core.forward import evaluate_graph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.primal_ops import PRIMAL_OPS
from boundflow_core.ir.verify import verify_graph
from boundflow_core.normalize import legalize

RNG = np.random.default_rng(0)
W, V, C = RNG.normal(size=(4, 3)), RNG.normal(size=4), RNG.normal(size=(2, 3))
K, KT = RNG.normal(size=(2, 1, 2, 1)), RNG.normal(size=(2, 1, 2, 1))
WINDOW = {"stride": (1, 1), "padding": (0, 0, 0, 0), "dilation": (1, 1)}
erf = np.vectorize(math.erf)


def _conv(x):  # kernel [2, 1], groups 2: each channel by its own kernel, adjacent rows
    return np.stack([x[c, :-1] * K[c, 0, 0, 0] + x[c, 1:] * K[c, 0, 1, 0] + V[c] for c in range(2)])


def _conv_transpose(x):
    zero = np.zeros_like(x[:, :1])
    below, above = np.concatenate([x, zero], 1), np.concatenate([zero, x], 1)
    return sum(np.stack([below[c] * KT[c, 0, 0, 0] + above[c] * KT[c, 0, 1, 0]]) for c in range(2)) + V[0]


def _softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


# operator -> (shape of one sample, constants, attributes, NumPy expression on one sample)
MEANING = {
    "linear": ((2, 3), (W, V), {}, lambda x: x @ W.T + V),
    "conv2d": ((2, 3, 2), (K, V[:2]), {**WINDOW, "groups": 2}, _conv),
    "conv_transpose2d": (
        (2, 3, 2),
        (KT, V[:1]),
        {**WINDOW, "groups": 1, "output_padding": (0, 0)},
        _conv_transpose,
    ),
    "reduce_sum": ((2, 3), (), {"axes": (1,), "keepdims": True}, lambda x: x.sum(axis=1, keepdims=True)),
    "reduce_max": ((2, 3), (), {"axes": (0,), "keepdims": False}, lambda x: x.max(axis=0)),
    "reduce_min": ((2, 3), (), {"axes": (0, 1), "keepdims": False}, lambda x: x.min()),
    "add": ((2, 3), (C[:1],), {}, lambda x: x + C[:1]),
    "mul": ((2, 3), (C[0],), {}, lambda x: x * C[0]),
    "matmul": ((2, 3), (W.T,), {}, lambda x: x @ W.T),
    "maximum": ((2, 3), (C,), {}, lambda x: np.maximum(x, C)),
    "minimum": ((2, 3), (C,), {}, lambda x: np.minimum(x, C)),
    "where": None,
    "reshape": ((2, 3), (), {"shape": (3, 1, 2)}, lambda x: x.reshape(3, 1, 2)),
    "permute": ((2, 3, 4), (), {"axes": (2, 0, 1)}, lambda x: np.moveaxis(x, 2, 0)),
    "expand": ((1, 3), (), {"shape": (4, 2, 3)}, lambda x: np.tile(x, (4, 2, 1))),
    "slice": ((5, 3), (), {"starts": (1, 0), "stops": (5, 2), "steps": (2, 1)}, lambda x: x[1:5:2, :2]),
    "pad": ((2,), (), {"low": (1,), "high": (2,), "value": 7.0}, lambda x: np.array([7, *x, 7, 7])),
    "concat": ((2, 3), (C,), {"axis": 1}, lambda x: np.hstack([x, C])),
    "gather": ((2, 3), (np.array([2, 0, 2]),), {"axis": 1}, lambda x: x[:, [2, 0, 2]]),
    "relu": ((3,), (), {}, lambda x: x * (x > 0)),
    "leaky_relu": ((2, 3), (C[0],), {}, lambda x: np.where(x > 0, x, C[0] * x)),
    "clip": ((9,), (), {"min": -0.5, "max": 0.75}, lambda x: np.clip(x, -0.5, 0.75)),
    "sigmoid": ((3,), (), {}, lambda x: 1 / (1 + np.exp(-x))),
    "tanh": ((3,), (), {}, lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x))),
    "erf": ((3,), (), {}, erf),
    "gelu": ((9,), (), {"approximate": "none"}, lambda x: x * (1 + erf(x / math.sqrt(2))) / 2),
    "softplus": ((3,), (), {}, lambda x: np.log(1 + np.exp(x))),
    "exp": ((3,), (), {}, lambda x: math.e**x),
    "log": ((3,), (), {}, lambda x: np.log2(x) * math.log(2)),
    "sqrt": ((3,), (), {}, lambda x: x**0.5),
    "reciprocal": ((3,), (), {}, lambda x: x**-1),
    "pow": ((3,), (), {"exponent": 3.0}, lambda x: x * x * x),
    "abs": ((3,), (), {}, lambda x: np.maximum(x, -x)),
    "sign": ((3,), (), {}, lambda x: x / np.sqrt(x * x)),
    "floor": ((3,), (), {}, lambda x: x - np.mod(x, 1)),
    "sin": ((3,), (), {}, lambda x: np.exp(1j * x).imag),
    "cos": ((3,), (), {}, lambda x: np.exp(1j * x).real),
    "softmax": ((2, 3), (), {"axis": 1}, _softmax),
    "max_pool2d": (
        (2, 3, 2),
        (),
        {**WINDOW, "kernel": (2, 1)},
        lambda x: np.maximum(x[:, :-1], x[:, 1:]),
    ),
}  # fmt: skip

FURTHER = [
    ("gelu", (9,), (), {"approximate": "tanh"},
     lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ("clip", (9,), (), {"min": -math.inf, "max": 0.5}, lambda x: np.minimum(x, 0.5)),
    ("clip", (9,), (), {"min": 0.5, "max": math.inf}, lambda x: np.maximum(x, 0.5)),
    ("clip", (9,), (), {"min": -math.inf, "max": math.inf}, lambda x: x),
    ("clip", (9,), (), {"min": 0.25, "max": 0.25}, lambda x: 0 * x + 0.25),
    ("linear", (3,), (W,), {}, lambda x: W @ x),
    ("pow", (3,), (), {"exponent": 2.0}, np.square),
    ("softmax", (3,), (), {"axis": 0}, lambda x: np.exp(x) / np.exp(x).sum()),
]  # fmt: skip

CALLS = [(name, *call) for name, call in MEANING.items() if call] + FURTHER


def built(name, shape, constants, attrs):
    g = PrimalBuilder("net", "x", shape)
    return verify_graph(g.finish(g.op(name, g.input, *constants, **attrs)))


def points(name, shape):
    x = RNG.normal(size=(6, *shape))
    return np.abs(x) + 0.1 if name in ("log", "sqrt") else x


def test_every_operator_is_tested():
    assert set(MEANING) == set(PRIMAL_OPS)


@pytest.mark.parametrize("name, shape, constants, attrs, meaning", CALLS)
def test_type_and_meaning(name, shape, constants, attrs, meaning):
    graph = built(name, shape, constants, attrs)
    x = points(name, shape)
    expected = np.stack([np.asarray(meaning(sample)) for sample in x])
    assert graph.output_type.shape == expected.shape[1:]
    np.testing.assert_allclose(evaluate_graph(graph, x), expected, rtol=1e-12, atol=1e-12)


def test_where_takes_a_constant_condition():
    g = PrimalBuilder("net", "x", (3,))
    graph = verify_graph(g.finish(g.op("where", np.array([True, False, True]), g.input, np.float64(9))))
    assert evaluate_graph(graph, np.array([[1.0, 2, 3]])).tolist() == [[1, 9, 3]]


@pytest.mark.parametrize(
    "name, shape, constants, attrs, meaning", [call for call in CALLS if PRIMAL_OPS[call[0]].decompose]
)
def test_decompositions_have_the_operators_meaning(name, shape, constants, attrs, meaning):
    graph = built(name, shape, constants, attrs)
    parts = verify_graph(legalize(graph, set(PRIMAL_OPS) - {name}, "d"))
    assert name not in parts.operators()
    x = points(name, shape)
    np.testing.assert_allclose(evaluate_graph(parts, x), evaluate_graph(graph, x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name, shape, constants, attrs, meaning", CALLS)
def test_folding_constants_gives_the_same_as_running(name, shape, constants, attrs, meaning):
    x = points(name, shape)[0]
    folded = PrimalBuilder("net", "x", shape).op(name, x, *constants, **attrs)
    np.testing.assert_allclose(folded.numpy(), np.asarray(meaning(x)), rtol=1e-12, atol=1e-12)


def test_softplus_and_softmax_do_not_overflow():
    x = np.array([[1e4, -1e4]])
    assert evaluate_graph(built("softplus", (2,), (), {}), x).tolist() == [[1e4, 0]]
    assert evaluate_graph(built("softmax", (2,), (), {"axis": 0}), x).tolist() == [[1, 0]]
