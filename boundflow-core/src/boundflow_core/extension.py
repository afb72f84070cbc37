"""What plugins bring: domains, op rules, methods, frontends, executors and commands, as plain typed data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from boundflow_core.errors import PluginError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import Node, PrimalGraph
from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import Attrs, TensorType

if TYPE_CHECKING:
    import click

    from boundflow_core.planner.cost import Cost
    from boundflow_core.planner.plan import PlanBundle
    from boundflow_core.planner.storage import MemoryTraits
    from boundflow_core.property import Property
    from boundflow_core.scheduler import Session
    from boundflow_core.workshop import Recipe, Workshop

__all__ = [
    "BallValues",
    "Branching",
    "BranchingView",
    "Command",
    "Domain",
    "Executor",
    "Frontend",
    "LoweringStrategy",
    "Method",
    "MethodContext",
    "OpRule",
    "Pass",
    "PropertyReader",
    "RegionValues",
    "Rule",
    "RuleContext",
    "SpecRows",
    "TYPICAL_SIZE",
]


T = TypeVar("T")


@dataclass(frozen=True)
class RuleContext:
    """What an op rule sees besides its operands.

    Attributes:
        b: writes the program.
        graph: the network.
        node: the operator whose rule is applied.
    """

    b: Builder
    graph: PrimalGraph
    node: Node

    @property
    def attrs(self) -> Attrs:
        return self.node.attrs

    @property
    def output_type(self) -> TensorType:
        """Type of the operator's result, for one sample."""
        return self.node.type

    def input_type(self, number: int) -> TensorType:
        """Type of operand ``number``, for one sample."""
        return self.graph.type_of(self.node.inputs[number])


# rule(context, *operands) -> state. A forward domain's operands are abstract states or, where an operand is a constant,
# its Value. What a backward domain's rules take and give is told by that domain.
Rule = Callable[..., Any]


@dataclass(frozen=True)
class Domain:
    """An abstract domain: rules that write the propagation of its state through each operator.

    Attributes:
        name, doc: its name and one line of documentation.
        rules: rule per operator name.
        direction: "forward" (states go with the data) or "backward" (states go from output to input).
    """

    name: str
    doc: str
    rules: Mapping[str, Rule]
    direction: str = "forward"


@dataclass(frozen=True)
class OpRule:
    """A rule for an operator of a domain that may belong to somebody else."""

    domain: str
    op: str
    rule: Rule


@dataclass(frozen=True)
class SpecRows:
    """Specification rows in a program: ``C`` [B or 1, S, n] and ``offset`` [B or 1, S]."""

    C: Value
    offset: Value


@dataclass(frozen=True)
class BallValues:
    """Balls ``||x - center||_p <= radius`` in a program: ``center`` [B, *input], ``radius`` [B]; p is 1 or 2."""

    center: Value
    radius: Value
    p: float


class RegionValues(NamedTuple):
    """Regions in a program: the box [B, *input], for a ball the smallest around it, and the ball of norm 1 or 2."""

    lower: Value
    upper: Value
    ball: BallValues | None = None


@dataclass(frozen=True)
class MethodContext:
    """What a method writes its program from.

    Attributes:
        b: writes the program.
        graph: the network, every operator of which has a rule in each domain that the method names.
        rules: rule per domain and operator.
        region: the regions; who knows boxes alone takes ``lower`` and ``upper``, [B, *input].
        spec: specification rows; None asks for the outputs themselves.
        options: the method's options, checked.
    """

    b: Builder
    graph: PrimalGraph
    rules: Mapping[str, Mapping[str, Rule]]
    region: RegionValues
    spec: SpecRows | None
    options: Mapping[str, Any]

    @property
    def lower(self) -> Value:
        return self.region.lower

    @property
    def upper(self) -> Value:
        return self.region.upper


@dataclass(frozen=True)
class Method:
    """A recipe over domains: writes the program, or the programs, that bound a network.

    Attributes:
        domains: the domains whose rules it uses; with none, it takes every network as it is.
        emit: for a method of one program: ``emit(context) -> (lower, upper)``, values [B, S] with specification rows,
            [B, *output] without.
        recipe: for a method of several programs: ``recipe(workshop) -> Recipe``, see :mod:`boundflow_core.workshop`.
        options: names and defaults of the options it takes.
        rank: place among the methods from loose and quick (low) to tight and slow (high).
        outward: whether what the programs of its recipe hand to each other is either a bound, named ``lower:NAME`` or
            ``upper:NAME``, or a choice that any bound is right for (rows, slopes), so that its bounds can be rounded
            outwards program by program. Of methods of one program it is so anyway.
    """

    name: str
    doc: str
    domains: tuple[str, ...]
    emit: Callable[[MethodContext], tuple[Value, Value]] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 0
    recipe: Callable[[Workshop], Recipe] | None = None
    outward: bool = False

    def __post_init__(self) -> None:
        if (self.emit is None) == (self.recipe is None):
            raise ValueError(f"method {self.name!r} must bring either emit or recipe")


@dataclass(frozen=True)
class Frontend:
    """Reads networks.

    Attributes:
        suffixes: file name endings that it reads (".onnx"); empty for objects in memory.
        accepts: whether it can load this object (a path with one of its suffixes, a module...). Must be quick and must
            not import a heavy package.
        load: ``load(source, **options) -> PrimalGraph``, normalized; raises LoadError or UnsupportedOpError.
        options: names of the options that ``load`` takes.
    """

    name: str
    doc: str
    accepts: Callable[[Any], bool]
    load: Callable[..., PrimalGraph]
    suffixes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class PropertyReader:
    """Reads property files with one of ``suffixes``; ``read(path) -> Property`` raises PropertyError."""

    name: str
    doc: str
    suffixes: tuple[str, ...]
    read: Callable[[Any], Property]


@dataclass(frozen=True)
class Executor:
    """Runs plans.

    Attributes:
        rank: of the available executors that tell no cost, "auto" takes the one of highest rank.
        unavailable: why it cannot run here ("torch is not installed: pip install ..."), or None where it can. Must
            be quick and must not import a heavy package.
        open: ``open(plan, device) -> session``, the plan ready to run on a device (None: the executor's own choice).
        traits: what its kernels can do with memory.
        fused: composites that it runs as a whole; all others reach it written out in primitives.
        differentiable: whether it can run plans that keep what a gradient needs.
        exact: whether it rounds as IEEE 754 says, in sums of any order, and its functions (exp, tanh...) are exact to
            eight units in the last place in float64, as outward rounding counts on.
        passes: planner passes that bring programs into the form that suits its kernels.
        strategies: ways in which it can run an operation, of which the planner takes the best for each. Those that
            plugins register for it are added. Without any, it runs all primitives and what is ``fused`` in one way.
        startup: ``startup()``: seconds that it needs before it can plan anything (imports that are not done yet).
        cost: ``cost(plan)``: what running a plan, bound to sizes, would take, for "auto" to compare. Must be
            quick and must not import a heavy package.
    """

    name: str
    doc: str
    rank: int
    unavailable: Callable[[], str | None]
    open: Callable[[PlanBundle, Any], Session]
    traits: Callable[[], MemoryTraits]
    fused: frozenset[str] = frozenset()
    differentiable: bool = False
    exact: bool = False
    passes: tuple[Pass, ...] = ()
    strategies: tuple[LoweringStrategy, ...] = ()
    startup: Callable[[], float] = lambda: 0.0
    cost: Callable[[PlanBundle], Cost] | None = None


TYPICAL_SIZE = 16
"""Number of regions, rows... that strategies are compared at: plans are made before sizes are known."""


@dataclass(frozen=True)
class LoweringStrategy:
    """A way to run an operation.

    ``known`` tells for each operand whether it is there before any run (frozen weights, and what follows from them).

    Attributes:
        executor: name of the executor that runs what is lowered so.
        unavailable: why it cannot be used here, or None where it can. Must be quick and import nothing heavy.
        supports: ``supports(op, known)``: why it cannot run this operation, or None where it can. Composites that no
            strategy supports are written out in primitives.
        estimate: ``estimate(op, known)``: seconds that it would take with all symbols :data:`TYPICAL_SIZE`; of the
            strategies that support an operation the planner takes the one of the smallest.
        kernel: for executors that call operation by operation ("reference": on NumPy arrays, "torch": on tensors) the
            code: ``kernel(op) -> function(*operands) -> result``, for several outputs a tuple, with ``op`` bound to
            sizes. Results are copied to where the plan wants them. None: the executor has the code itself. A plan that
            keeps what gradients need takes no strategy with a kernel.
    """

    name: str
    doc: str
    executor: str
    unavailable: Callable[[], str | None]
    supports: Callable[[Op, Sequence[bool]], str | None]
    estimate: Callable[[Op, Sequence[bool]], float]
    kernel: Callable[[Op], Callable[..., Any]] | None = None


@dataclass(frozen=True)
class Pass:
    """A planner pass from program to program. Passes of a stage run in the order of ``rank``, ties by name.

    Attributes:
        stage: "program" (composites are still whole) or "primitives" (those that the executor has no kernel for are
            written out).
        strategies: names of the lowering strategies that take what it makes; where the caller asks for another one, it
            does not run. Empty: it serves all.
    """

    name: str
    doc: str
    rank: int
    run: Callable[[BoundProgram], BoundProgram]
    stage: str = "primitives"
    strategies: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class BranchingView:
    """What a branching heuristic sees of a batch of subproblems: the N neurons that are undecided in some of them.

    Attributes:
        lower, upper: bounds [B, N] of the values before the activation, within what is assumed.
        rows: coefficients [B, S, N] of the lower bounds on the values after the activation.
        bias: [N], what the operator before the activation adds; 0 where it adds nothing.
    """

    lower: Any
    upper: Any
    rows: Any
    bias: Any


@dataclass(frozen=True)
class Branching:
    """A heuristic that says which neurons to split.

    Attributes:
        score: ``score(view) -> [B, N]``: the larger, the more a split should help. Those that cannot be split are left
            out afterwards.
    """

    name: str
    doc: str
    score: Callable[[BranchingView], Any]


@dataclass(frozen=True)
class Command:
    """A subcommand of ``boundflow``; ``load`` gives the click command when it is called for."""

    name: str
    doc: str
    load: Callable[[], click.Command]


def expect(who: str, given: Any, expected: type[T]) -> T:
    """``given``, which code of a plugin returned, if it is of the type that it should be.

    Raises:
        PluginError: it is not; ``who`` returned it.
    """
    if not isinstance(given, expected):
        raise PluginError(f"{who} must give a {expected.__name__}, not {type(given).__name__}")
    return given


def why_unavailable(item: Executor | LoweringStrategy) -> str | None:
    """Why it cannot be used here, or None where it can. One whose own check fails cannot: the others go on."""
    try:
        reason = item.unavailable()
    except (Exception, SystemExit) as error:
        return f"its check raised {type(error).__name__}: {error}"
    return str(reason) if reason else None  # a plugin may give anything, and JSON takes text


def operators_of(domains: Sequence[Domain]) -> frozenset[str]:
    """Operators for which every one of ``domains``, of which there is one at least, has a rule."""
    return frozenset.intersection(*(frozenset(domain.rules) for domain in domains))
