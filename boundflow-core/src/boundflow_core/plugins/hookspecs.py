"""What a plugin can bring: one hook per kind of thing. Read from top to bottom, this is a tutorial.

A plugin is a module that a distribution names in its ``pyproject.toml``::

    [project.entry-points."boundflow.plugins"]
    zonotope = "boundflow_zonotope.plugin"

It states the version of these hooks that it was written for, and implements those that it needs::

    from boundflow_core.plugins import hookimpl

    BOUNDFLOW_API = (1, 2)


    @hookimpl
    def boundflow_register_domains():
        from boundflow_zonotope.domain import ZONOTOPE

        return [ZONOTOPE]

Every hook ``boundflow_register_...`` is called once per process, without arguments, when something is first looked up;
it *returns* what the plugin brings and changes nothing. All of it is put into read-only tables
(:func:`boundflow_core.plugins.registry`). The three hooks of the cache at the end are looked up then and called while
bounds are computed; where nobody implements them, nothing is called.

Keep the module light: ``boundflow --help`` imports it. Import heavy packages inside of the functions that you return.
What it prints while it is imported goes to stderr.

A plugin that cannot be imported, raises, returns something else than it should, or brings what core or another plugin
brings, is left out as a whole; of two plugins with one name both. The host goes on without them, and
``boundflow plugins`` says why.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from boundflow_core.cache import BoundCache, CacheKey
from boundflow_core.extension import (
    Branching,
    Command,
    Domain,
    Executor,
    Frontend,
    LoweringStrategy,
    Method,
    OpRule,
    Pass,
    PropertyReader,
)
from boundflow_core.ir.program import Composite

__all__ = [
    "BOUNDFLOW_API",
    "PROJECT",
    "boundflow_bound_cache",
    "boundflow_cache_event",
    "boundflow_cache_key",
    "boundflow_register_branching",
    "boundflow_register_commands",
    "boundflow_register_domains",
    "boundflow_register_executors",
    "boundflow_register_frontends",
    "boundflow_register_lowerings",
    "boundflow_register_methods",
    "boundflow_register_op_rules",
    "boundflow_register_passes",
    "boundflow_register_primitives",
    "boundflow_register_property_readers",
    "hookimpl",
]

BOUNDFLOW_API = (1, 2)
"""Version (major, minor) of the hooks below and of the types that they return.

The minor number grows when something is added, the major one when something that plugins rely on changes. A plugin is
read if its major number is this one and its minor number is not larger.
"""

PROJECT = "boundflow"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of the same name."""


@hookspec
def boundflow_register_domains() -> Iterable[Domain]:
    """Abstract domains: for each operator the rule that writes the propagation of the domain's state through it.

    A rule computes no bounds: it writes tensor code with the builder in its context::

        def relu(context: RuleContext, x: Interval) -> Interval:
            return Interval(context.b.maximum(x.lower, 0.0), context.b.maximum(x.upper, 0.0))

        @hookimpl
        def boundflow_register_domains():
            return [Domain("interval", "a lower and an upper bound per element", rules={"relu": relu})]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_op_rules() -> Iterable[OpRule]:
    """Rules for operators of a domain that somebody else brings, or for an operator of your own in it.

    The rules are merged when all plugins are read, so the order of plugins does not matter. A rule that the domain has
    already is a conflict; a rule for a domain that is not installed is kept out of use and shown::

        @hookimpl
        def boundflow_register_op_rules():
            return [OpRule("interval", "swish", swish_interval)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_methods() -> Iterable[Method]:
    """Methods: recipes over domains, what a user names in ``bound(..., method="ibp")``.

    ``emit`` writes the program of a whole network; ``rank`` places the method between loose and quick (low) and tight
    and slow (high). Options are declared with their defaults; any other name is refused before ``emit`` is called::

        @hookimpl
        def boundflow_register_methods():
            return [Method("ibp", "interval bound propagation", ("interval",), emit=emit_ibp, rank=10)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_frontends() -> Iterable[Frontend]:
    """Readers of networks, called by ``boundflow_core.load``: from files, by suffix, or from objects in memory.

    ``accepts`` is asked for every object that is loaded, so it must not import what it looks for::

        def load(path, **options):
            from boundflow_onnx.reader import read  # imports onnx

            return read(path, **options)

        @hookimpl
        def boundflow_register_frontends():
            return [Frontend("onnx", "ONNX files", accepts=is_onnx_path, load=load, suffixes=(".onnx",))]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_property_readers() -> Iterable[PropertyReader]:
    """Readers of property files (input regions and what the outputs must satisfy), chosen by suffix.

    Two readers of one suffix are a conflict::

        @hookimpl
        def boundflow_register_property_readers():
            return [PropertyReader("vnnlib", "VNN-LIB 1.0", suffixes=(".vnnlib",), read=read_vnnlib)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_executors() -> Iterable[Executor]:
    """Executors, which run plans.

    ``executor="auto"`` takes the one that tells the smallest ``cost`` of the plan, or, of those that tell none, the one
    of highest ``rank``. ``unavailable`` says why one cannot (a package is missing, no device), or None::

        def unavailable():
            return None if importlib.util.find_spec("jax") else "jax is not installed: pip install jax"

        @hookimpl
        def boundflow_register_executors():
            return [Executor("jax", "jax.jit", rank=5, unavailable=unavailable, open=open_session, traits=traits)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_lowerings() -> Iterable[LoweringStrategy]:
    """Ways in which an executor, also somebody else's, can run an operation.

    The planner asks each strategy of the executor for each operation, takes the one of the smallest estimate, and
    records why (``run.plan.lowering``, ``boundflow plan``); ``compile(lowering=NAME)`` asks for one of them. For the
    executors ``reference`` and ``torch`` a strategy brings its code, for those that compile, the executor knows what to
    do with it by its name::

        def kernel(op):
            return lambda x, weight: np.maximum(x @ weight, 0)

        @hookimpl
        def boundflow_register_lowerings():
            return [LoweringStrategy("fused", "one product", "reference", unavailable, supports, estimate, kernel)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_passes() -> Iterable[Pass]:
    """Passes of the planner, program to program, run in the order of their ``rank``.

    A pass sees every program of every method, and must not change what it computes, but for rounding::

        @hookimpl
        def boundflow_register_passes():
            return [Pass("merge-matmuls", "two matmuls with one operand become one", rank=50, run=merge_matmuls)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_primitives() -> Iterable[Composite]:
    """Composites: named operations for your op rules, declared by their decomposition into primitives.

    Executors that know nothing of a composite run its decomposition (and count that); one with a fused kernel for it
    claims it as a whole::

        @hookimpl
        def boundflow_register_primitives():
            return [Composite("zonotope_relu", "relu of a zonotope's centre and generators", decompose=relu)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_commands() -> Iterable[Command]:
    """Subcommands of ``boundflow``.

    ``load`` imports the click command when it is called for; help shows ``doc`` without that::

        def load():
            from boundflow_bab.command import verify

            return verify

        @hookimpl
        def boundflow_register_commands():
            return [Command("verify", "decide a property of a network", load)]
    """
    raise NotImplementedError


@hookspec
def boundflow_register_branching() -> Iterable[Branching]:
    """Heuristics that say which neuron to split in a search by branch and bound, for whole batches of subproblems.

    ``boundflow_bab.Options(branching="widest")`` chooses one::

        def widest(view: BranchingView):
            return np.minimum(-view.lower, view.upper)

        @hookimpl
        def boundflow_register_branching():
            return [Branching("widest", "the neuron whose smaller side is the largest", score=widest)]
    """
    raise NotImplementedError


# -- the cache of bounds ----------------------------------------------------------------------------------------------


@hookspec
def boundflow_bound_cache() -> BoundCache:
    """A store for results that are kept between calls, instead of the one in memory; called once per compiled object.

    Only one plugin can bring one. Subclass :class:`boundflow_core.cache.BoundCache`, whose ``get`` and ``put`` must be
    safe for many threads; arrays that were put must never be written to. What it raises fails the compilation::

        @hookimpl
        def boundflow_bound_cache():
            return BoundCache(capacity=8 * 2**30)
    """
    raise NotImplementedError


@hookspec
def boundflow_cache_key(key: CacheKey) -> Iterable[str]:
    """Parts to add to the key of every result, for whatever else results depend on; called at each look-up.

    If it raises, that call computes everything anew and keeps nothing, since a key that lacks a part could give
    somebody else's bounds::

        @hookimpl
        def boundflow_cache_key(key):
            return [rounding_mode()]
    """
    raise NotImplementedError


@hookspec
def boundflow_cache_event(event: str, key: CacheKey, nbytes: int) -> None:
    """Watch the cache: ``event`` is "hit", "miss", "store" or "evict".

    Called in the thread that computes bounds, so be quick. An observer that raises never breaks a bound: the error is
    logged, and that observer is not called again by this cache::

        @hookimpl
        def boundflow_cache_event(event, key, nbytes):
            counters[event] += 1
    """
    raise NotImplementedError
