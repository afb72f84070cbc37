"""The way to a verdict: attack, bounds from quick to tight, then search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boundflow_bab.activation_split import ActivationSearch
from boundflow_bab.attack import Attack, Margins
from boundflow_bab.bounds import Bounder, exact_executor, suited_executor
from boundflow_bab.cells import CellSearch
from boundflow_bab.clock import Clock, OutOfTime
from boundflow_bab.input_split import MOST_INPUTS, Search
from boundflow_bab.largest import with_largest
from boundflow_bab.leaf_bounds import EFFORT, Effort, LeafBounds
from boundflow_bab.problem import Part, Rows, parts_of
from boundflow_bab.roots import Roots
from boundflow_bab.samples import Refuted, Samples
from boundflow_bab.verdict import Counterexample, Report, Verdict
from boundflow_bab.witness import Witness
from boundflow_core.compiled import choose_executor
from boundflow_core.errors import OptionError
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.plugins import registry
from boundflow_core.property import Property
from boundflow_core.runner import RunStats
from boundflow_crown import BetaCrown

__all__ = ["SPLITS", "Options", "Story", "verify"]

Array = NDArray[Any]

# Boxes of at most so many open directions are halved; of more, neurons are split where there are such that can be.
FEW_INPUTS = 10

# The shares of the time left that the first attack, and the second one, may take, and what they may take in any case.
ATTACK_SHARES, ATTACK_SECONDS = (0.05, 0.1), 2.0

SPLITS = ("auto", "input", "activation")


@dataclass(frozen=True)
class Options:
    """How to verify.

    Attributes:
        timeout: seconds; None: no limit.
        executor: who runs the programs; "auto": what suits the network, of those that can run here.
        trust_float32: take float32 bounds at their word instead of confirming them in exact arithmetic.
        methods: of bounding, from quick to tight.
        search_method: of bounding while boxes are split.
        split: what is split in a search: "input", "activation", or "auto", what suits the network.
        branching: name of the heuristic that says which neuron is split.
        effort: how hard each bound is tried in a search over neurons.
        starts: points of the first attack, and of the second one, per box and conjunction.
        seed: of all random choices.
    """

    timeout: float | None = None
    executor: str = "auto"
    trust_float32: bool = False
    methods: Sequence[str] = ("ibp", "crown-ibp", "crown")
    search_method: str = "crown"
    split: str = "auto"
    branching: str = "babsr"
    effort: Effort = EFFORT
    starts: tuple[int, int] = (2, 50)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.timeout is not None and not self.timeout > 0:
            raise OptionError(f"timeout must be a positive number of seconds, not {self.timeout!r}")
        if self.split not in SPLITS:
            raise OptionError(f"split must be one of {', '.join(SPLITS)}, not {self.split!r}")


@dataclass
class Story:
    """What has happened so far; :meth:`report` can be asked for at any time, whatever interrupted the work.

    Attributes:
        search: the latest search.
        margin: the least lower bound of any box at the end of the bounding phases.
        observe: told of each change, as ``observe(story)``.
    """

    clock: Clock
    options: Options
    observe: Callable[[Story], None] = lambda story: None
    phase: str = "loading"
    searches: list[Search | ActivationSearch] = field(default_factory=list)
    bounders: list[Bounder] = field(default_factory=list)
    stats: RunStats = field(default_factory=RunStats)
    margin: float | None = None

    def enter(self, phase: str) -> None:
        self.phase = phase
        self.observe(self)

    def report(self, verdict: Verdict, reason: str = "", found: Counterexample | None = None) -> Report:
        lowering: dict[str, int] = {}
        for table in (self.stats.lowering, *(bounder.lowering for bounder in self.bounders)):
            for name, count in table.items():
                lowering[name] = lowering.get(name, 0) + count
        return Report(
            verdict,
            reason,
            found,
            trusted=self.options.trust_float32,
            margin=self.margin,
            subproblems=sum(search.bounded for search in self.searches),
            open=sum(search.open for search in self.searches),
            seconds={**self.clock.seconds, "all": self.clock.elapsed},
            lowering=lowering,
        )


def verify(
    graph: PrimalGraph,
    prop: Property,
    options: Options = Options(),
    *,
    path: str | Path | None = None,
    story: Story | None = None,
) -> Report:
    """Whether ``graph`` has a counterexample to ``prop``.

    Args:
        path: the file that the network was read from; an ONNX file's counterexamples are checked by onnxruntime.
        story: takes note of what happens.

    Raises:
        PropertyError: the property is made for another network.
        UnsupportedOpError: a method has no rule for an operator of the network.
    """
    story = story or Story(Clock(options.timeout), options)
    story.options = replace(story.options, executor=suited_executor(graph, story.options.executor))
    try:
        return _decide(graph, parts_of(graph, prop), Witness(graph, prop, path), story)
    except OutOfTime:
        return story.report(Verdict.TIMEOUT)
    except Refuted:
        return story.report(
            Verdict.UNKNOWN, f"{story.phase} are refuted by a point of the box: a rule, or what runs it, is wrong"
        )


def _decide(graph: PrimalGraph, parts: Sequence[Part], witness: Witness, story: Story) -> Report:
    clock, options = story.clock, story.options
    executor = choose_executor(registry(), options.executor, differentiable=False)
    attack = Attack(Margins(graph, executor, story.stats), witness, clock, options.seed)
    bounders = _Bounders(graph, story)
    first, second = options.starts
    samples = [Samples.of(part) for part in parts]
    found = _attacked(attack, parts, first, story, ATTACK_SHARES[0], samples)
    if found is not None:
        return story.report(Verdict.FALSIFIED, found=found)
    bounded = (_bounded(part, graph, bounders, story, met) for part, met in zip(parts, samples, strict=True))
    left = [part for part in bounded if part is not None]
    if not left:
        return story.report(Verdict.VERIFIED)
    found = _attacked(attack, left, second, story, ATTACK_SHARES[1], [None] * len(left))
    if found is not None:
        return story.report(Verdict.FALSIFIED, found=found)
    for part in left:
        search = _search(graph, part, bounders, attack, story)
        if search is None:
            return story.report(
                Verdict.UNKNOWN, "bounds and attack do not decide it, and its inputs are too many to split"
            )
        found = CellSearch(search).run() if isinstance(search, ActivationSearch) and search.narrowed else search.run()
        if found is not None:
            return story.report(Verdict.FALSIFIED, found=found)
        if search.stuck:
            return story.report(Verdict.UNKNOWN, f"{search.stuck} subproblems cannot be split any further")
    return story.report(Verdict.VERIFIED)


def _search(
    graph: PrimalGraph, part: Part, bounders: _Bounders, attack: Attack, story: Story
) -> Search | ActivationSearch | None:
    """The search that suits the part, begun; None: there is nothing to split."""
    options, inputs = story.options, _open_inputs(part)
    by_input = options.split == "input" or (options.split == "auto" and inputs <= FEW_INPUTS)
    quick = None if by_input else BetaCrown(graph, options.executor, stats=story.stats)
    if quick is not None and quick.values:
        whole, rows = with_largest(graph, part.rows)
        if whole is not graph:
            quick, bounders = BetaCrown(whole, options.executor, stats=story.stats), _Bounders(whole, story)
        return _activation_search(whole, part, rows, bounders, attack, story, quick)
    if inputs > MOST_INPUTS:
        return None
    story.enter("search")
    method = options.search_method
    search = Search(
        replace(part, rows=part.rows.mixed()),
        bounders.quick(method),
        bounders.exact(method),
        attack,
        story.clock,
        lambda search: story.observe(story),
    )
    story.searches.append(search)
    return search


def _activation_search(
    graph: PrimalGraph, part: Part, rows: Rows, bounders: _Bounders, attack: Attack, story: Story, quick: BetaCrown
) -> ActivationSearch:
    """A search whose root is bounded; ``rows`` are on the outputs of ``graph``, one for each group of the part's."""
    options = story.options
    story.enter("bounds by alpha-crown")
    bounder, exact = bounders.quick("crown"), bounders.exact("crown")
    find_exact = None if exact is None else lambda lower, upper: exact.inside(lower, upper, rows)
    with story.clock.phase("crown"):
        roots = Roots.of(
            part.lower, part.upper, rows, lambda lower, upper: bounder.inside(lower, upper, rows), find_exact
        )
    sure = None if exact is None else BetaCrown(graph, exact_executor(options.executor), exact=True, stats=story.stats)
    search = ActivationSearch(
        graph,
        part,
        LeafBounds(roots, quick, sure, story.clock, options.effort),
        registry().branching_heuristic(options.branching),
        attack,
        story.clock,
        lambda search: story.observe(story),
    )
    story.searches.append(search)
    search.root()
    story.enter("search")
    return search


class _Bounders:
    """Bounds by method, compiled when they are first needed."""

    def __init__(self, graph: PrimalGraph, story: Story) -> None:
        self._graph, self._story = graph, story
        self._made: dict[tuple[str, bool], Bounder] = {}

    def quick(self, method: str) -> Bounder:
        return self._get(method, False)

    def exact(self, method: str) -> Bounder | None:
        return None if self._story.options.trust_float32 else self._get(method, True)

    def _get(self, method: str, exact: bool) -> Bounder:
        if (method, exact) not in self._made:
            options = self._story.options
            bounder = Bounder(self._graph, method, options.executor, self._story.clock, exact=exact)
            self._made[method, exact] = bounder
            self._story.bounders.append(bounder)
        return self._made[method, exact]


def _attacked(
    attack: Attack,
    parts: Sequence[Part],
    starts: int,
    story: Story,
    share: float,
    samples: Sequence[Samples | None],
) -> Counterexample | None:
    """Attacks on all ``parts``, for a ``share`` of the time left, or ``ATTACK_SECONDS`` where that is more."""
    story.enter("attack")
    until = story.clock.elapsed + max(ATTACK_SECONDS, share * story.clock.left)
    with story.clock.phase("attack"):
        for part, met in zip(parts, samples, strict=True):
            found = attack.on_part(part, starts, until - story.clock.elapsed, met)
            if found is not None:
                return found
            if story.clock.elapsed > until:
                break
    return None


def _bounded(part: Part, graph: PrimalGraph, bounders: _Bounders, story: Story, samples: Samples | None) -> Part | None:
    """What bounds leave of ``part``: the boxes, and the groups, that are not shown to be safe; None: nothing.

    Raises:
        Refuted: confirmed bounds are contradicted by one of ``samples``.
    """
    clock = story.clock
    for method in story.options.methods:
        story.enter(f"bounds by {method}")
        with clock.phase(method):
            best = bounders.quick(method)(part.lower, part.upper, part.rows)
        shown = best > 0
        exact = bounders.exact(method)
        if exact is not None and shown.any():
            with clock.phase("confirm"):
                shown &= _confirmed(exact, part, shown, graph, samples)
        if shown.all():
            return None
        boxes, groups = np.flatnonzero(~shown.all(axis=1)), np.flatnonzero(~shown.all(axis=0))
        part = Part(part.lower[boxes], part.upper[boxes], part.rows.select(groups))
        samples = None if samples is None else samples.select(boxes, groups)
        least = float(best[boxes].min())
        story.margin = least if story.margin is None else max(story.margin, least)
    return part


def _confirmed(exact: Bounder, part: Part, shown: Array, graph: PrimalGraph, samples: Samples | None) -> Array:
    """Which of the groups ``shown`` [B, G] are shown in exact arithmetic too."""
    boxes, groups = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    rows = part.rows.select(groups)
    best = exact(part.lower[boxes], part.upper[boxes], rows)
    if samples is not None:
        samples.select(boxes, groups).check(graph, rows, best)
    confirmed = np.zeros_like(shown)
    confirmed[np.ix_(boxes, groups)] = best > 0
    return confirmed


def _open_inputs(part: Part) -> int:
    """In how many directions a box of the part is open, at most."""
    wide = (part.upper > part.lower).reshape(len(part.lower), -1)
    return int(wide.sum(axis=1).max())
