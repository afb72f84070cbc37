"""Networks of every supported operator: functions of elements, arithmetic, products and reductions; the rest beside."""

from __future__ import annotations

import itertools

import numpy as np

from .building import Network, node, numbers, several, single, whole
from .networks_layout import LAYOUT
from .networks_windows import WINDOWS

_IMAGE = (1, 2, 3, 4)
_LATE = (13, 17, 18, 21)


def _functions() -> list[Network]:
    nets: list[Network] = []
    for op in ("Abs", "Cos", "Exp", "Floor", "Ceil", "LeakyRelu", "Neg", "Relu", "Sigmoid", "Sin", "Softplus", "Tanh"):
        nets += single(op, _IMAGE)
    for op in ("Elu", "HardSigmoid", "Identity"):
        nets += single(op, (1, 5), opsets=(8, 13, 21))
    for op in ("Log", "Reciprocal", "Sqrt"):
        nets += single(op, (1, 5), low=0.1, high=3.0)
    nets += single("Erf", (1, 5), since=9) + single("Sign", (1, 5), since=9) + single("HardSwish", (1, 9), since=14)
    nets += single("HardSigmoid", (1, 9), opsets=_LATE, alpha=0.3, beta=0.4, low=-4, high=4)
    nets += single("LeakyRelu", (1, 5), opsets=(8, 21), alpha=0.3) + single("Elu", (1, 5), opsets=(21,), alpha=0.3)
    nets += single("Gelu", (1, 5), since=20) + single("Gelu", (1, 5), since=20, approximate="tanh")
    for opset_limits in ({"min": -0.5, "max": 0.5}, {"min": 0.0}, {"max": 1.0}, {}):
        nets += single("Clip", (1, 9), until=10, **opset_limits)
    for low, high in ((-0.5, 0.5), (0.0, None), (None, 1.0), (None, None), (1.0, -1.0), (-np.inf, np.inf)):
        nets += single("Clip", (1, 9), low, high, since=11, opsets=(11, 12, 13, 21), label=f"{low},{high}")
    nets += single("PRelu", _IMAGE, numbers(2, 1, 1)) + single("PRelu", (1, 5), np.float32(0.2))
    for exponent in (0.5, 1.0, 2.0, 3.0, -1.0, -2.0, 2.5):
        nets += single("Pow", (1, 5), exponent, opsets=(8, 12, 13, 21), low=0.2, high=3.0, label=str(exponent))
    nets += single("Pow", (1, 5), np.array(2, np.int64), since=12, opsets=(12, 13, 21), label="int")
    nets += single("Pow", (1, 5), np.full((2, 1), 3.0, np.float32), opsets=(13,), label="uniform")
    nets += single("Pow", (1, 5), 2.5, before=1, opsets=(13,), label="base")
    for axis, shape in itertools.product((-1, 0, 1, 2), ((1, 3, 4),)):
        nets += single("Softmax", shape, axis=axis, since=11, opsets=(11, 13, 21))
        nets += single("LogSoftmax", shape, axis=axis, since=11, opsets=(11, 13, 21))
    nets += single("Softmax", _IMAGE) + single("Softmax", (1, 4))
    nets += single("Dropout", (1, 5), until=11, ratio=0.5) + single("Dropout", (1, 5), 0.5, np.array(False), since=12)
    nets += single("Dropout", (1, 5), since=12)
    nets += single("Cast", (1, 5), to=1)
    nets += single("CastLike", (1, 5), 0.5, since=15, opsets=(17, 19, 21))
    return nets


def _arithmetic() -> list[Network]:
    nets: list[Network] = []
    for op, before in itertools.product(("Add", "Sub", "Mul", "Div", "Max", "Min"), (0, 1)):
        for shape in ((1, 2, 3, 4), (3, 1), (1, 1, 1, 1), (2, 3, 4)):
            other = numbers(*shape, low=0.5, high=2.0)
            nets += single(op, _IMAGE, other, before=before, opsets=(8, 13, 21), low=0.5, label=f"{shape}{before}")
        nets += single(op, (1, 3), numbers(2, 4, 1, low=1.0), before=before, opsets=(13,), low=0.5, label="wider")
        twice = [node("Sigmoid", ["x"], ["a"]), node("Cos", ["x"], ["b"]), node(op, ["b", "a"])]
        nets += several(f"{op}-both", (1, 2, 3), twice, opsets=(8, 13, 21))
    nets += several("Mul-same", (1, 5), [node("Mul", ["x", "x"])], opsets=(8, 13))
    broadcast = [node("ReduceMax", ["x"], ["a"], axes=[1, 2], keepdims=0), node("Sub", ["x", "a"])]
    nets += several("Sub-lower-rank", (1, 3, 1), broadcast)
    for op in ("Max", "Min", "Sum", "Mean"):
        nets += single(op, (1, 5), numbers(1, 5, seed=2), numbers(5, seed=3), opsets=(8, 13))
        nets += single(op, (1, 5), opsets=(8, 13), label="one")
    mask = np.array([[True, False, True, False]])
    nets += single("Where", (3, 4), mask, numbers(3, 1), before=1, since=9, opsets=(9, 16, 21))
    nets += single("Where", (1, 4), mask, numbers(3, 4), before=2, since=9, opsets=(9, 16, 21), label="swapped")
    nets += several("Where-both", (1, 4), [node("Cos", ["x"], ["a"]), node("Where", ["m", "x", "a"])], {"m": mask})
    return nets


def _products() -> list[Network]:
    nets: list[Network] = []
    for shape, weight in (
        ((1, 3), (3, 2)), ((3,), (3, 2)), ((1, 3), (3,)), ((3,), (3,)), ((1, 2, 3), (3, 4)), ((1, 2, 3), (1, 3, 4)),
        ((1, 2, 2, 3), (2, 3, 4)), ((1, 3), (2, 3, 4)), ((1, 3), (1, 3, 4)),
    ):  # fmt: skip
        nets += single("MatMul", shape, numbers(*weight), opsets=(8, 9, 13, 21), label=f"{shape}x{weight}")
    for weight, shape in (
        ((2, 3), (3, 1)), ((2, 3), (3,)), ((3,), (3, 2)), ((3,), (3,)), ((2, 3), (1, 3, 1)), ((3,), (1, 3, 1)),
        ((2, 3), (1, 3, 4)), ((1, 2, 3), (1, 3, 4)), ((2, 1), (1, 5)), ((5, 2, 3), (1, 3, 1)),
    ):  # fmt: skip
        nets += single("MatMul", shape, numbers(*weight), before=1, opsets=(8, 13), label=f"{weight}x{shape}")
    for shape in ((1, 3, 3), (3, 3), (3,), (1, 2, 3, 3)):
        both = [node("Sin", ["x"], ["a"]), node("MatMul", ["x", "a"])]
        nets += several(f"MatMul-both{shape}", shape, both, opsets=(8, 13))
    for a, b in itertools.product((0, 1), (0, 1)):
        shape, weight = ((3, 2) if a else (2, 3)), numbers(*((4, 3) if b else (3, 4)))
        for bias in ((4,), (1, 4), (1, 1), (2, 1), (2, 4), ()):
            nets += single(
                "Gemm", shape, weight, numbers(*bias), transA=a, transB=b, alpha=0.5, beta=2.0,
                opsets=(8, 9, 11, 13, 21), label=str(bias),
            )  # fmt: skip
        nets += single("Gemm", shape, weight, transA=a, transB=b, since=11, opsets=(11, 13))
        left = numbers(*((3, 2) if a else (2, 3)))
        nets += single(
            "Gemm", ((1, 3) if b else (3, 1)), left, numbers(1), before=1, transA=a, transB=b, opsets=(8, 13), alpha=0.5
        )
        both = [node("Cos", ["x"], ["a"]), node("Gemm", ["x", "a", "c"], transA=a, transB=b)]
        nets += several(f"Gemm-both-{a}{b}", (3, 3), both, {"c": numbers(3)}, opsets=(8, 13))
    for shape in ((1, 2), (1, 2, 3), (1, 2, 3, 4)):
        statistics = [numbers(2), numbers(2, seed=2), numbers(2, seed=3), numbers(2, seed=4, low=0.1)]
        nets += single("BatchNormalization", shape, *statistics, epsilon=1e-3, label=str(shape))
    for axis in (-1, 1, 2):
        shape = (1, 2, 3, 4)
        scale, bias = numbers(*shape[axis:]), numbers(*shape[axis:], seed=2)
        nets += single("LayerNormalization", shape, scale, bias, axis=axis, since=17)
        nets += single("LayerNormalization", shape, scale, axis=axis, since=17, opsets=(17,), epsilon=1e-2)
    nets += single("InstanceNormalization", _IMAGE, numbers(2), numbers(2, seed=2), opsets=(8, 13))
    return nets


def _reductions() -> list[Network]:
    nets: list[Network] = []
    for op in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"):
        since = 13 if op == "ReduceSum" else 18
        for axes, keepdims in itertools.product(((1,), (-1,), (2, 1), (0, 3), None), (0, 1)):
            given = {} if axes is None else {"axes": list(axes)}
            # Negative axes are legal from opset 11 on.
            first = 11 if axes and min(axes) < 0 else 8
            nets += single(op, _IMAGE, since=first, until=since - 1, opsets=(8, 11, 13), keepdims=keepdims, **given)
            operand = [] if axes is None else [whole(*axes)]
            nets += single(op, _IMAGE, *operand, since=since, opsets=(13, 18, 21), keepdims=keepdims, label=str(axes))
        nets += single(op, _IMAGE, whole(), since=since, opsets=(18, 21), label="none")
    nets += single("ReduceSum", (1, 3), whole(), since=13, opsets=(13, 21), noop_with_empty_axes=1)
    return nets


FUNCTIONS, ARITHMETIC, PRODUCTS, REDUCTIONS = _functions(), _arithmetic(), _products(), _reductions()
NETWORKS = (*FUNCTIONS, *ARITHMETIC, *PRODUCTS, *REDUCTIONS, *LAYOUT, *WINDOWS)
