"""Loops compared with separate calls, for tests of any executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from boundflow_core.errors import InputError
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import SymDim
from boundflow_core.runner import Planning, ProgramRunner, RunStats
from boundflow_core.testing.programs import inputs_for

from .running import executor_of

Array = NDArray[Any]


def runner_of(program: BoundProgram, executor: str, varying: Sequence[str], **planning: Any) -> ProgramRunner:
    return ProgramRunner(lambda: program, Planning(executor_of(executor), **planning), RunStats(), varying=varying)


def with_state(program: BoundProgram, varying: Sequence[str], picks: Sequence[int]) -> tuple[BoundProgram, list[str]]:
    """``program`` with a result to carry for each of its inputs of the groups ``varying``, and these inputs' names.

    Results are any values of the same type, by ``picks``: often those of another input, or of nothing that varies.
    """
    values = [*program.inputs, *(value for op in program.ops for value in op.outputs)]
    names, outputs = [], dict(program.outputs)
    for number, value in enumerate(v for v in program.inputs if program.groups[v.name] in varying):
        fits = [other for other in values if other.type == value.type]
        outputs[f"next:{value.name}"] = fits[picks[number % len(picks)] % len(fits)]
        names.append(value.name)
    return replace(program, outputs=outputs), names


def check_loop_against_calls(
    program: BoundProgram,
    executor: str,
    sizes: dict[str, int],
    varying: Sequence[str],
    picks: Sequence[int],
    carry: int,
    **planning: Any,
) -> None:
    """Three loops of four steps each on one runner: every step gives what a call of its own with these inputs does.

    Args:
        carry: how many of the inputs that vary are carried; the others get new numbers at each step.
    """
    program, names = with_state(program, varying, picks)
    carried = {f"next:{name}": name for name in names[:carry]}
    runner = runner_of(program, executor, varying, **planning)
    plain = runner_of(program, executor, (), reuse=False)
    for seed in (0, 1, 0):
        given = inputs_for(program, sizes, seed)
        fresh = names[carry:]
        begin = {name: array for name, array in given.items() if name not in fresh}
        if symbols_of(program, begin) != set(program.symbols()):
            with pytest.raises(InputError):
                runner.loop(begin, carried)
            return
        _check(runner, plain, program, begin, fresh, carried, sizes)


def symbols_of(program: BoundProgram, given: Mapping[str, Array]) -> set[str]:
    """Symbols that the shapes of these inputs tell."""
    dims = [dim for value in program.inputs if value.name in given for dim in value.shape]
    return {dim.symbols[0] for dim in dims if isinstance(dim, SymDim)}


def _check(
    runner: ProgramRunner,
    plain: ProgramRunner,
    program: BoundProgram,
    begin: Mapping[str, Array],
    fresh: Sequence[str],
    carried: Mapping[str, str],
    sizes: dict[str, int],
) -> None:
    inputs = dict(begin)
    with runner.loop(begin, carried) as loop:
        for seed in range(10, 14):
            new = {name: array for name, array in inputs_for(program, sizes, seed).items() if name in fresh}
            found, expected = loop.step(new), plain({**inputs, **new})
            assert set(found) == set(expected) - set(carried)
            for name, array in found.items():
                np.testing.assert_array_equal(np.asarray(array), np.asarray(expected[name]), err_msg=name)
                array[...] = 0
            inputs.update({name: expected[result] for result, name in carried.items()})
            for name, array in loop.state().items():
                np.testing.assert_array_equal(np.asarray(array), np.asarray(inputs[name]), err_msg=name)
