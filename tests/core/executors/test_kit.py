"""Every executor that can run here under the conformance kit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from boundflow_core.executors.reference import NumpyBackend
from boundflow_core.executors.steps import StepSession
from boundflow_core.plugins import registry
from boundflow_core.testing import ConformanceError, check_executor

EXECUTORS = [name for name, executor in registry().executors.items() if executor.unavailable() is None]


@pytest.mark.parametrize("executor", [name for name in EXECUTORS if name != "tvm"])
def test_kit(executor: str) -> None:
    check_executor(executor, examples=12)


class _WrongTanh(NumpyBackend):
    """Right but for one primitive, by a part in a million."""

    def kernel(self, op, fixed):
        kernel = super().kernel(op, fixed)
        if op.name != "tanh":
            return kernel

        def wrong(x, out=None):
            result = kernel(x) * (1 + 1e-6)
            if out is None:
                return result
            out[...] = result
            return out

        return wrong


def wrong_executor():
    reference = registry().executor("reference")

    def open_(plan, device):
        with np.errstate(all="ignore"):
            return StepSession(plan, _WrongTanh())

    return replace(reference, name="wrong", open=open_)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_kernel_that_computes_wrongly_is_caught_and_pastes() -> None:
    with pytest.raises(ConformanceError, match=r"wrong on tanh, law 'values'") as failure:
        check_executor(wrong_executor(), examples=12)
    message = str(failure.value)
    code = message[message.index("import numpy") :]
    with pytest.raises(ConformanceError, match="law 'values'"):
        exec(code, {"executor": wrong_executor()})
    exec(code, {"executor": registry().executor("reference")})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_known_gaps_of_executors() -> None:
    gaps = dict.fromkeys(("tanh", "programs", "gradients"), "wrong tanh")
    check_executor(wrong_executor(), examples=12, expected_failures=gaps)
    with pytest.raises(ConformanceError, match=r"'sin' is declared .* but passes"):
        check_executor("reference", examples=3, expected_failures={"sin": "none"})
    with pytest.raises(ValueError, match="tnah"):
        check_executor("reference", expected_failures={"tnah": "a slip"})
