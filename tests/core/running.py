"""Running programs on an executor, as compiled bounds do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.cache import BoundCache
from boundflow_core.extension import Executor, Pass
from boundflow_core.ir.evaluate import bind_symbols
from boundflow_core.ir.program import BoundProgram
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule

Array = NDArray[Any]


def executor_of(name: str) -> Executor:
    return registry().executor(name)


def schedule(
    program: BoundProgram,
    sizes: Mapping[str, int],
    executor: str = "reference",
    *,
    cache: BoundCache | None = None,
    reuse: bool = True,
    one_task: bool = False,
    passes: Sequence[Pass] = (),
    **more: Any,
) -> Schedule:
    """``program`` planned for ``sizes`` and ready to run."""
    plan = make_plan(program, executor_of(executor), passes, reuse=reuse, one_task=one_task)
    plan = bind_plan(plan, sizes)
    return Schedule(plan, executor_of(executor).open(plan, None), "random", cache, **more)


def run(made: Schedule, inputs: Mapping[str, Array], counts: RunCounts | None = None) -> dict[str, Array]:
    results = made.run(inputs, counts or RunCounts())
    return {name: np.asarray(array) for name, array in results.items()}


def run_once(program: BoundProgram, inputs: Mapping[str, Array], executor: str, **options: Any) -> dict[str, Array]:
    sizes = bind_symbols(program, {name: array.shape for name, array in inputs.items()})
    return run(schedule(program, sizes, executor, **options), inputs)


def assert_equal(got: Mapping[str, Array], want: Mapping[str, Array], *, rtol: float = 0.0) -> None:
    """Equal, bit for bit unless ``rtol`` says otherwise; NaN equals NaN."""
    assert list(got) == list(want)
    for name in want:
        assert got[name].shape == want[name].shape and got[name].dtype == want[name].dtype, name
        np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=rtol, err_msg=name)
