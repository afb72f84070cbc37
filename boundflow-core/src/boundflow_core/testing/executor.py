"""Executors: every primitive, composed programs and gradients give what the reference interpreter gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.derivative import gradient_program
from boundflow_core.extension import Executor
from boundflow_core.ir.evaluate import bind_symbols, evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.program import BoundProgram, Primitive
from boundflow_core.ir.types import DType
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_core.testing.case import array_code
from boundflow_core.testing.laws import Gaps, declared, drive
from boundflow_core.testing.primitives import CASES, Case
from boundflow_core.testing.programs import inputs_for, programs
from boundflow_core.testing.subject import executor_of

__all__ = ["EXECUTOR_LAWS", "check_executor", "check_program", "program_code"]

Array = NDArray[Any]

EXECUTOR_LAWS: Mapping[str, str] = {
    "runs": "plans are made and run",
    "values": "results are those of the reference interpreter",
    "types": "results have the shapes and element types that the program states",
    "reuse": "results do not depend on whether values share memory",
    "deterministic": "the same run gives the same results, bit for bit",
    "inputs": "what is handed in is not written to",
}
TOLERANCE = {DType.FLOAT64: 1e-11, DType.FLOAT32: 2e-5}


def check_executor(
    executor: str | Executor,
    *,
    dtypes: Iterable[str | DType] = ("float64", "float32"),
    expected_failures: Mapping[str, str] | None = None,
    examples: int = 20,
    shrink: bool = True,
) -> None:
    """Checks an executor on calls of every primitive, on composed "programs" and on their "gradients".

    Args:
        executor: an executor, or the name of a registered one.
        dtypes: element types of the calls; composed programs are float64.
        expected_failures: known gaps with their reasons: "PRIMITIVE" or "PRIMITIVE:LAW", laws of :data:`EXECUTOR_LAWS`.
        examples: number of cases of each.

    Raises:
        ConformanceError: what does not hold, with the smallest program found as code to paste.
    """
    subject, known = executor_of(executor), expected_failures or {}
    if unknown := {key.partition(":")[0] for key in known} - {*PRIMITIVES, "programs", "gradients"}:
        raise ValueError(f"expected_failures: neither primitives nor 'programs' nor 'gradients': {sorted(unknown)}")
    for name in PRIMITIVES:
        gaps = declared(name, known, EXECUTOR_LAWS)
        for dtype in map(DType, dtypes):

            def call(case: Case, dtype: DType = dtype, gaps: Gaps = gaps) -> None:
                program = case.program(dtype)
                _check(program, case.inputs, subject, gaps)

            drive(call, CASES[name], examples, shrink, gaps)
        gaps.expire()
    composed, slopes = (declared(name, known, EXECUTOR_LAWS) for name in ("programs", "gradients"))

    def run(program: BoundProgram) -> None:
        _check(program, inputs_for(program, {"B": 2, "S": 3}), subject, composed)

    def run_gradient(program: BoundProgram) -> None:
        output = next(name for name, value in program.outputs.items() if value.type.dtype.is_float)
        gradient = gradient_program(program, output, [value.name for value in program.inputs])
        _check(gradient, inputs_for(gradient, {"B": 2, "S": 3}), subject, slopes)

    drive(run, programs, examples, shrink, composed)
    composed.expire()
    drive(run_gradient, programs, examples, shrink, slopes)
    slopes.expire()


def check_program(program: BoundProgram, inputs: Mapping[str, Array], executor: str | Executor) -> None:
    """Checks one program on one set of inputs. Raises ConformanceError."""
    _check(program, inputs, executor_of(executor), Gaps(program.name))


def _check(program: BoundProgram, inputs: Mapping[str, Array], executor: Executor, gaps: Gaps) -> None:
    def fail(law: str, what: str) -> None:
        ours = registry().executors.get(executor.name) is executor
        call = (
            f"check_program(program, inputs, {executor.name!r})" if ours else "check_program(program, inputs, executor)"
        )
        gaps.report(
            law,
            lambda: (
                f"{executor.name} on {gaps.subject}, law {law!r}: {what}\n\n{program_code(program, inputs)}\n{call}"
            ),
        )

    inputs = {v.name: np.asarray(inputs[v.name], dtype=v.type.dtype.numpy) for v in program.inputs}
    given = {name: array.copy() for name, array in inputs.items()}
    want = evaluate(program, inputs)
    try:
        schedule = _schedule(program, inputs, executor, reuse=True)
        got = _run(schedule, given)
    except Exception as error:  # whatever it is, show the program
        fail("runs", f"{type(error).__name__}: {error}")
        return
    if not all(np.array_equal(given[name], inputs[name], equal_nan=True) for name in inputs):
        fail("inputs", "an input was written to")
    for name, expected in want.items():
        if got[name].shape != expected.shape or got[name].dtype != expected.dtype:
            fail(
                "types",
                f"{name} is {got[name].dtype}{list(got[name].shape)}, not {expected.dtype}{list(expected.shape)}",
            )
        elif not close(got[name], expected, _scale(want)):
            fail("values", f"{name} is {got[name].tolist()}, not {expected.tolist()}")
    again = _run(schedule, given)
    if not all(np.array_equal(got[name], again[name], equal_nan=got[name].dtype.kind == "f") for name in got):
        fail("deterministic", "the second run gives something else")
    apart = _run(_schedule(program, inputs, executor, reuse=False), given)
    if not all(close(apart[name], got[name], _scale(want)) for name in got):
        fail("reuse", "with a buffer for each value the results differ")


def close(got: Array, want: Array, scale: float) -> bool:
    """Equal up to rounding of numbers up to ``scale``; infinities and NaN in the same places."""
    if got.dtype.kind != "f":
        return bool(np.array_equal(got, want))
    tolerance = TOLERANCE[DType(got.dtype.name)]
    with np.errstate(invalid="ignore"):
        return bool(np.allclose(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=True))


def _scale(results: Mapping[str, Array]) -> float:
    finite = [
        np.abs(array[np.isfinite(array)]).max(initial=0.0) for array in results.values() if array.dtype.kind == "f"
    ]
    return max(1.0, *map(float, finite)) if finite else 1.0


def _schedule(program: BoundProgram, inputs: Mapping[str, Array], executor: Executor, *, reuse: bool) -> Schedule:
    plan = make_plan(program, executor, tuple(registry().passes.values()), reuse=reuse)
    plan = bind_plan(plan, bind_symbols(program, {name: array.shape for name, array in inputs.items()}))
    return Schedule(plan, executor.open(plan, None), "kit")


def _run(schedule: Schedule, inputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.asarray(array) for name, array in schedule.run(inputs, RunCounts()).items()}


def program_code(program: BoundProgram, inputs: Mapping[str, Array]) -> str:
    """Python code that builds a program, bound to the sizes of its inputs, and the inputs."""
    bound = program.bind(bind_symbols(program, {name: np.shape(array) for name, array in inputs.items()}))
    names: dict[Any, str] = {}
    lines = [
        "import numpy as np",
        "from numpy import inf, nan",
        "from boundflow_core.ir.builder import Builder",
        "from boundflow_core.ir.primitives import PRIMITIVES",
        "from boundflow_core.ir.types import DType",
        "from boundflow_core.plugins import registry",
        "from boundflow_core.testing import check_program",
        f"b = Builder(DType({_float_type(bound).value!r}))",
    ]
    for number, value in enumerate(bound.inputs):
        names[value] = f"x{number}"
        kind = f"DType({value.type.dtype.value!r})"
        lines.append(f"x{number} = b.input({value.name!r}, {tuple(value.shape)!r}, {kind})")
    for number, (value, constant) in enumerate(bound.constants.items()):
        names[value] = f"c{number}"
        lines.append(f"c{number} = b.constant({array_code(constant.numpy())})")
    for number, op in enumerate(bound.ops):
        results = [f"v{number}_{place}" for place in range(len(op.outputs))]
        names.update(zip(op.outputs, results, strict=True))
        table = f"PRIMITIVES[{op.name!r}]" if isinstance(op.spec, Primitive) else f"registry().composite({op.name!r})"
        attributes = "".join(f", {key}={_attribute(value)}" for key, value in op.attrs.items())
        operands = ", ".join(names[value] for value in op.inputs)
        lines.append(f"{', '.join(results)}, = b.emit({table}, {operands}{attributes})")
    outputs = ", ".join(f"{name!r}: {names[value]}" for name, value in bound.outputs.items())
    arrays = ", ".join(f"{value.name!r}: {array_code(np.asarray(inputs[value.name]))}" for value in bound.inputs)
    return "\n".join([*lines, f"program = b.finish({{{outputs}}})", f"inputs = {{{arrays}}}"])


def _attribute(value: Any) -> str:
    return f"DType({value.value!r})" if isinstance(value, DType) else repr(value)


def _float_type(program: BoundProgram) -> DType:
    values = [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]
    kinds = {value.type.dtype for value in values if value.type.dtype.is_float}
    return DType.FLOAT32 if kinds == {DType.FLOAT32} else DType.FLOAT64
