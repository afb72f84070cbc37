"""Programs run again and again with most of their inputs the same: what depends on these alone is computed once.

A loop holds a prepared program for itself. Inputs that stay are brought into place once; results that are the next
step's inputs go from place to place, without a copy that a caller would own, or stay where they are if the plan has
written them onto the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

from boundflow_core.arrays import is_torch
from boundflow_core.errors import InputError
from boundflow_core.ir.program import BoundProgram
from boundflow_core.ir.types import concrete_shape
from boundflow_core.scheduler import RunCounts, Schedule

__all__ = ["Loop", "PinnedLoop", "PlainLoop"]


class Loop(Protocol):
    """Steps of one program; use as a context, which gives back what it holds."""

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """One run.

        Args:
            inputs: all those that change from step to step, but for those that are carried.

        Returns:
            The results that are not carried, as arrays that the caller owns.
        """

    def state(self, names: Collection[str] | None = None) -> dict[str, Any]:
        """What the next step would take of the inputs that are carried, as arrays that the caller owns.

        Args:
            names: which of them; None: all.
        """

    def __enter__(self) -> Loop: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_loop(
    program: BoundProgram, varying: Iterable[str], inputs: Iterable[str], carried: Mapping[str, str]
) -> frozenset[str]:
    """Names of the inputs that each step must be given.

    Raises:
        InputError: inputs that do not change are missing, or results cannot be carried to inputs.
    """
    groups = {value.name: program.groups.get(value.name, value.name) for value in program.inputs}
    changing = {name for name, group in groups.items() if group in set(varying)}
    if missing := (set(groups) - changing | set(carried.values())) - set(inputs):
        raise InputError(f"a loop of {program.name} needs the inputs {sorted(missing)} to begin with")
    types = {value.name: value.type for value in program.inputs}
    for result, name in carried.items():
        if name not in changing:
            raise InputError(f"{name!r} is no input of {program.name} that changes from step to step")
        if result not in program.outputs or program.outputs[result].type != types[name]:
            raise InputError(f"{program.name} has no result {result!r} of the type of its input {name!r}")
    return frozenset(changing - set(carried.values()))


class Track:
    """What all loops in one session share that carry the same results.

    Args:
        carried: results that become inputs of the next step.
    """

    def __init__(self, schedule: Schedule, carried: Mapping[str, str]) -> None:
        plan = schedule.plan
        program, session = plan.program, schedule.session
        needed = check_loop(program, plan.varying, (value.name for value in program.inputs), carried)
        values = {value.name: value for value in program.inputs}
        self.schedule = schedule
        self.shapes = {name: concrete_shape(values[name].shape, plan.sizes) for name in needed}
        self.outputs = {name: value for name, value in program.outputs.items() if name not in carried}
        self.results = {name: program.outputs[result] for result, name in carried.items()}
        self.carry = session.carrier([(self.results[name], values[name]) for name in self.results])
        stays = [stage.depends.isdisjoint(plan.varying) for stage in plan.cache.stages]
        tasks = [stage.tasks for stage in plan.cache.stages]
        once = [name for names, stay in zip(tasks, stays, strict=True) if stay for name in names]
        self.again = tuple(name for names, stay in zip(tasks, stays, strict=True) if not stay for name in names)
        self.all = (*once, *self.again)
        self.first_counts = RunCounts(tasks_run=len(self.all))
        self.later_counts = RunCounts(tasks_run=len(self.again), tasks_skipped=len(once))

    def check_step(self, inputs: Mapping[str, Any]) -> None:
        """
        Raises:
            InputError: other inputs than a step takes, or of other shapes.
        """
        found = {name: tuple(array.shape) for name, array in inputs.items()}
        if found != self.shapes:
            raise InputError(f"a step takes inputs of the shapes {self.shapes}, not {found}")


class PinnedLoop:
    """A loop in a session of its own, whose plan knows which groups of inputs vary.

    Args:
        inputs: those that stay, and the first state.
        report: takes what each step came to.
        release: called in the end.
    """

    def __init__(
        self,
        track: Track,
        inputs: Mapping[str, Any],
        report: Callable[[RunCounts], None],
        release: Callable[[], None],
    ) -> None:
        self._track, self._inputs = track, dict(inputs)
        self._report, self._release = report, release
        self._begun = False

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        track = self._track
        track.check_step(inputs)
        session = track.schedule.session
        with session.running():
            if self._begun:
                track.carry()
                session.renew(inputs)
                track.schedule.run_tasks(track.again)
            else:
                session.start({**self._inputs, **inputs})
                self._inputs = {name: array for name, array in self._inputs.items() if name in track.results}
                track.schedule.run_tasks(track.all)
            found = {name: session.read(value) for name, value in track.outputs.items()}
        self._report(track.later_counts if self._begun else track.first_counts)
        self._begun = True
        return found

    def state(self, names: Collection[str] | None = None) -> dict[str, Any]:
        wanted = {name: value for name, value in self._track.results.items() if names is None or name in names}
        if not self._begun:
            return {name: self._inputs[name] for name in wanted}
        return {name: self._track.schedule.session.read(value) for name, value in wanted.items()}

    def __enter__(self) -> PinnedLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()


class PlainLoop:
    """A loop of separate calls: for runs in chunks, and for those that record gradients (which the state carries none
    of: how it came about is not followed)."""

    def __init__(
        self,
        program: BoundProgram,
        varying: Iterable[str],
        run: Callable[[Mapping[str, Any]], dict[str, Any]],
        inputs: Mapping[str, Any],
        carried: Mapping[str, str],
    ) -> None:
        self._needed = check_loop(program, varying, inputs, carried)
        self._run, self._carried, self._inputs = run, dict(carried), dict(inputs)

    def step(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self._needed != set(inputs):
            raise InputError(f"a step takes the inputs {sorted(self._needed)}, not {sorted(inputs)}")
        found = self._run({**self._inputs, **inputs})
        for result, name in self._carried.items():
            array = found.pop(result)
            self._inputs[name] = array.detach() if is_torch(array) else array
        return found

    def state(self, names: Collection[str] | None = None) -> dict[str, Any]:
        return {name: self._inputs[name] for name in self._carried.values() if names is None or name in names}

    def __enter__(self) -> PlainLoop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass
