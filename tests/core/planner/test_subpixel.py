"""Adjoints of strided convolutions, written as convolutions of stride 1, give the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.ir.verify import verify_program
from boundflow_core.planner.subpixel import strided_adjoints


def adjoint(*, channels, kernel, stride, padding, size, channels_last, dtype=DType.FLOAT32, groups=1):
    """The program of one adjoint [N, 4, ...] -> [N, channels, *size], and its inputs in multiples of 1/8."""
    spans = [size[a] + padding[a] + padding[2 + a] - kernel[a] for a in (0, 1)]
    positions = [span // step + 1 for span, step in zip(spans, stride, strict=True)]
    b, n = Builder(dtype), SymDim.of("N")
    weight = np.random.default_rng(0).integers(-8, 8, (4, channels // groups, *kernel)) / 8
    g = b.input("g", (n, *positions, 4) if channels_last else (n, 4, *positions))
    front = b.permute(g, (0, 3, 1, 2)) if channels_last else g
    attrs = {"stride": stride, "padding": padding, "input_size": size, "groups": groups}
    program = b.finish({"x": b.conv2d_input_grad(front, b.constant(weight), **attrs)})
    shape = [3 if dim == n else dim for dim in g.shape]
    return program, {"g": np.random.default_rng(1).integers(-8, 8, shape) / 8}


@settings(max_examples=200)
@given(data=st.data())
def test_the_same_numbers(data):
    pair = lambda low, high: data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))  # noqa: E731
    kernel = pair(1, 5)
    program, inputs = adjoint(
        channels=data.draw(st.integers(1, 10)),
        kernel=kernel,
        stride=pair(1, 3),
        padding=(*pair(0, 3), *pair(0, 3)),
        size=tuple(k + data.draw(st.integers(0, 6)) for k in kernel),
        channels_last=data.draw(st.booleans()),
    )
    changed = verify_program(strided_adjoints(program))
    event(f"rewritten: {all(op.name != 'conv2d_input_grad' for op in changed.ops)}")
    # Sums of multiples of 1/64: exact in float32.
    np.testing.assert_array_equal(evaluate(changed, inputs)["x"], evaluate(program, inputs)["x"])


PLAIN = {"kernel": (4, 4), "stride": (2, 2), "padding": (1, 1, 1, 1), "size": (8, 8), "channels_last": False}


@pytest.mark.parametrize(
    ("change", "rewritten"),
    [
        ({}, True),
        ({"kernel": (1, 1), "padding": (0, 0, 0, 0), "channels": 64}, True),
        ({"channels": 9}, False),
        ({"stride": (1, 1)}, False),
        ({"stride": (1, 2)}, False),
        ({"dtype": DType.FLOAT64}, False),
        ({"channels": 4, "groups": 2}, False),
        ({"kernel": (2, 2), "padding": (2, 2, 2, 2)}, False),  # some of the gradient is read by nothing
    ],
)
def test_what_is_rewritten(change, rewritten):
    program, _ = adjoint(**{"channels": 3, **PLAIN, **change})
    assert (strided_adjoints(program).ops[-1].name != "conv2d_input_grad") is rewritten


def test_weights_are_rearranged_beforehand():
    pytest.importorskip("torch")
    from boundflow_core.planner.pipeline import make_plan
    from boundflow_core.plugins import registry

    program, _ = adjoint(channels=3, **PLAIN)
    plan = make_plan(program, registry().executor("torch"))
    assert [op.name for task in plan.tasks if task.depends for op in task.ops] == [
        "conv2d",
        "reshape",
        "permute",
        "reshape",
    ]
