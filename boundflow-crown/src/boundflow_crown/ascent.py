"""Projected gradient ascent on slopes, step by step in plain Python; a step itself is a program."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundflow_core.arrays import concatenate, is_torch, like, nonzero
from boundflow_core.errors import OptionError
from boundflow_core.runner import ProgramRunner
from boundflow_core.workshop import REGIONS, Progress

__all__ = ["BETA1", "BETA2", "OPTIONS", "TINY", "Settings", "ascend", "settings_of"]

# Adam's constants.
BETA1, BETA2, TINY = 0.9, 0.999, 1e-8

# rate, decay: size of the first step, and its factor from step to step.
# stop: a region is left as it is once all of its lower bounds exceed this number; None: never.
OPTIONS: Mapping[str, Any] = {"iterations": 20, "rate": 0.5, "decay": 0.98, "stop": None}


@dataclass(frozen=True)
class Settings:
    """The values of :data:`OPTIONS`, checked."""

    iterations: int
    rate: float
    decay: float
    stop: float | None

    def scalars(self, number: int) -> dict[str, float]:
        """What step ``number``, from 0, takes, for an update by ``rate first / (sqrt(second) + tiny)``.

        Steps keep sums of gradients, and of their squares, with weights BETA1^age and BETA2^age; what makes averages of
        them, Adam's moments without bias, is in these numbers.
        """
        first, second = ((1 - beta) / (1 - beta ** (number + 1)) for beta in (BETA1, BETA2))
        return {"rate": self.rate * self.decay**number * first / second**0.5, "tiny": TINY / second**0.5}


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The settings among a method's options.

    Raises:
        OptionError: a value out of range.
    """
    iterations, rate, decay, stop = (options[name] for name in OPTIONS)
    if isinstance(iterations, bool) or not isinstance(iterations, int) or iterations < 1:
        raise OptionError(f"iterations must be a positive integer, not {iterations!r}")
    if not (_is_number(rate) and 0 < rate < float("inf")):
        raise OptionError(f"rate must be a positive number, not {rate!r}")
    if not (_is_number(decay) and 0 < decay <= 1):
        raise OptionError(f"decay must be a number in (0, 1], not {decay!r}")
    if not (stop is None or (_is_number(stop) and stop == stop)):
        raise OptionError(f"stop must be a number or None, not {stop!r}")
    return Settings(iterations, float(rate), float(decay), None if stop is None else float(stop))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def ascend(
    step: ProgramRunner,
    start: Mapping[str, Any],
    given: Mapping[str, Any],
    settings: Settings,
    *,
    rows: slice,
    wanted: Collection[str] = (),
    progress: Progress | None = None,
) -> tuple[Any, dict[str, Any]]:
    """The best bounds [B, rows] of all steps, and ``wanted`` of the last state, which is that of the last batch.

    A region that is decided keeps what it has, whatever the others do. Once many are, the rest goes on as a smaller
    batch, of a size that is a power of two, so that few sizes are planned for.

    Where gradients are recorded, the slopes count as given numbers: how they came about is not followed.

    Args:
        step: ``least`` and the next state from a state, the scalars of :meth:`Settings.scalars` and ``given``.
        start: the first state, or more.
        given: further inputs.
        rows: those that must exceed ``settings.stop``.
        wanted: names of what is wanted of the last state.
    """
    taken = {value.name: value for value in step.program.inputs}
    carried = {name: name for name in step.program.outputs if name in taken}
    fixed = {name: array for name, array in given.items() if name in taken}
    state = {name: _detached(array) for name, array in start.items() if name in carried}
    best, last, batch, number, finished = None, dict[str, Any](), _Batch(), 0, False
    sample = next(iter(state.values()))
    while not finished:
        with step.loop({**fixed, **state}, carried) as loop:
            keep = None
            while keep is None and not finished:
                scalars = settings.scalars(number)
                found = loop.step({name: _scalar(value, sample) for name, value in scalars.items()})
                best, number = batch.improved(best, found["least"]), number + 1
                if progress is not None:
                    progress(number, settings.iterations + 1)
                finished = number == settings.iterations
                if settings.stop is not None and not finished:
                    keep = batch.settle(best[:, rows] > settings.stop)
                    finished = batch.finished
            last = loop.state(wanted) if finished else {}
            if keep is not None:
                state = {name: array[keep] for name, array in loop.state().items()}
                batched = {name for name in fixed if taken[name].shape[:1] == (REGIONS,)}
                fixed = {name: array[like(keep, array)] if name in batched else array for name, array in fixed.items()}
    return best, last


@dataclass
class _Batch:
    """Which regions still take part.

    Attributes:
        places: numbers [b] of the regions in the batch; None: all, in order.
        live: which of these [b] are not decided; None: all.
    """

    places: Any = None
    live: Any = None
    finished: bool = False

    def improved(self, best: Any, found: Any) -> Any:
        """``best`` [B, rows] with what was ``found`` [b, rows] for live regions where that is larger; NaN never is."""
        if best is None:
            return found
        before = best if self.places is None else best[self.places]
        after = _larger(found, before)
        if self.live is not None:
            after = _choose(self.live[:, None], after, before)
        if self.places is None:
            return after
        best[self.places] = after
        return best

    def settle(self, exceeds: Any) -> Any:
        """Takes note of decided regions, from rows [B, rows] that exceed their goal.

        Returns:
            Which of the regions in the batch make up the next one, if that is a smaller one.
        """
        decided = exceeds.all(1) if self.places is None else exceeds[self.places].all(1)
        live = ~decided if self.live is None else self.live & ~decided
        (going,), (done,) = nonzero(live), nonzero(~live)
        self.live, self.finished = live, len(going) == 0
        size = 1 << max(len(going) - 1, 0).bit_length()
        if self.finished or size >= len(live):
            return None
        keep = concatenate((going, done), 0)[:size]  # decided ones fill up the batch
        self.places = keep if self.places is None else self.places[keep]
        self.live = live[keep]
        return keep


def _detached(array: Any) -> Any:
    return array.detach() if is_torch(array) else array


def _scalar(value: float, sample: Any) -> Any:
    """``value`` as an array without axes of the kind of ``sample``."""
    return sample.new_tensor(value) if is_torch(sample) else sample.dtype.type(value).reshape(())


def _larger(one: Any, other: Any) -> Any:
    """The larger of both, or the one that is no NaN."""
    if is_torch(one):
        import torch

        return torch.fmax(one, other)
    return np.fmax(one, other)


def _choose(condition: Any, one: Any, other: Any) -> Any:
    if is_torch(condition):
        import torch

        return torch.where(condition, one, other)
    return np.where(condition, one, other)
