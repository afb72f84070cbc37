"""The public functions: load a network, bound it, compile bounds for many calls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from boundflow_core.arrays import box_arrays
from boundflow_core.cache import BoundCache, process_cache
from boundflow_core.compiled import Bounds, CompiledBounds, CompileOptions
from boundflow_core.errors import LoadError, OptionError, PropertyError
from boundflow_core.extension import expect
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType
from boundflow_core.memory import parse_bytes
from boundflow_core.plugins import Registry, registry
from boundflow_core.property import Property
from boundflow_core.regions import Region
from boundflow_core.selection import candidates
from boundflow_core.specs import LinearSpec

__all__ = ["bound", "compile", "load", "read_property"]

CALLS = 100
"""How many calls of compiled bounds are expected where nobody says."""


def load(source: Any, **options: Any) -> PrimalGraph:
    """Reads a network.

    Args:
        source: path of a network file ("net.onnx"), or an object in memory that a frontend takes (a torch module, with
            ``example_inputs=(x,)``).
        options: options of the frontend that reads it.

    Returns:
        The network, normalized; its shapes are those of one sample.

    Raises:
        LoadError: the file is missing or damaged, or the network makes no sense.
        UnsupportedOpError: the network has an operator that the frontend does not know.
        UnknownNameError: no frontend reads this; the message says which distribution to install.
        OptionError: the frontend has no such option.
        PluginError: the frontend gives something else than a network.
    """
    if isinstance(source, PrimalGraph):
        return source
    frontend = registry().frontend_for(source)
    if isinstance(source, (str, os.PathLike)) and not Path(source).is_file():
        raise LoadError(f"{os.fspath(source)}: " + ("is a directory" if Path(source).is_dir() else "no such file"))
    for name in options:
        if name not in frontend.options:
            known = ", ".join(frontend.options) or "none"
            raise OptionError(f"frontend {frontend.name!r} has no option {name!r}; its options: {known}")
    return expect(registry().who("frontends", frontend), frontend.load(source, **options), PrimalGraph)


def read_property(path: str | os.PathLike[str]) -> Property:
    """Reads a property file (VNN-LIB).

    Raises:
        PropertyError: the file is missing, or malformed: file, line and column.
        UnknownNameError: no reader for such files is installed.
        PluginError: the reader gives something else than a property.
    """
    reader = registry().property_reader_for(path)
    if not Path(path).is_file():
        raise PropertyError(f"{os.fspath(path)}: " + ("is a directory" if Path(path).is_dir() else "no such file"))
    return expect(registry().who("property_readers", reader), reader.read(path), Property)


def compile(
    source: Any,
    *,
    method: str = "ibp",
    spec_rows: int | None = None,
    batch: int | None = None,
    executor: str = "auto",
    dtype: str = "float32",
    cache: bool | str | BoundCache = True,
    memory_limit: str | int | None = None,
    differentiable: bool = False,
    reuse: bool = True,
    rounding: str = "nearest",
    lowering: str | None = None,
    share_memory: bool = False,
    calls: int | None = None,
    **options: Any,
) -> CompiledBounds:
    """Writes and plans the bound computation of ``method`` over a network, to be called many times.

    It is planned here if ``batch`` or ``spec_rows`` tell what calls will be like, else when that is first needed.

    Args:
        source: a network, or whatever :func:`load` reads without further options.
        spec_rows: number of specification rows of each call; None: any, also none.
        batch: number of regions of each call; None: any.
        executor: "reference", "torch", one that a plugin brings, or "auto": of those that can run here the one that
            takes least by estimate (``stats.executor_reason`` tells the figures).
        dtype: "float32" or "float64".
        cache: where results are kept between calls, so that a call runs again only what depends on what has changed:
            True: in a cache of this object; "process": in one that all objects of the process share; a
            :class:`boundflow_core.cache.BoundCache`: there; False: nowhere.
        memory_limit: what the planned peak must not exceed ("2GiB", or bytes); larger calls run in chunks.
        differentiable: keep what gradients of the bounds with respect to weights and region need.
        reuse: whether values share memory; without it each value has a buffer of its own, as for debugging.
        rounding: "nearest": as the processor computes; "outward": bounds are moved outwards by all that rounding may
            have done to them, so that they hold in exact arithmetic too. Takes float64, an executor that states how
            exact its functions are, and a few times the work.
        lowering: name of a lowering strategy ("relax_vm") that shall run all that it supports, where the executor has
            several; None: the best for each operation. With executor "auto" its own executor runs.
        share_memory: whether calls of different sizes, and the programs of a call, use one piece of memory in turn:
            less in all, and sooner ready, but calls of several threads wait for each other.
        calls: how many calls to expect, which executor "auto" weighs against what must be compiled first; None: 100.
            Sizes that are not given count as 1 there.
        options: options of the method.

    Raises:
        UnsupportedOpError: an operator of the network has no rule in the method's domains.
        UnknownNameError: unknown method, executor or lowering strategy.
        OptionError: an option that the method does not have, or a value out of range.
    """
    plugins = registry()
    if dtype not in (DType.FLOAT32.value, DType.FLOAT64.value):
        raise OptionError(f"dtype must be 'float32' or 'float64', not {dtype!r}")
    for name, value in (("batch", batch), ("spec_rows", spec_rows), ("calls", calls)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise OptionError(f"{name} must be a positive integer or None, not {value!r}")
    outward = _is_outward(rounding, dtype)
    return CompiledBounds(
        load(source),
        plugins.method(method),
        plugins,
        candidates(plugins, executor, differentiable=differentiable, outward=outward, lowering=lowering),
        CompileOptions(
            dtype=DType(dtype),
            spec_rows=spec_rows,
            batch=batch,
            differentiable=differentiable,
            memory_limit=None if memory_limit is None else parse_bytes(memory_limit),
            cache=_cache(cache, plugins),
            reuse=reuse,
            lowering=lowering,
            outward=outward,
            share_memory=share_memory,
            calls=CALLS if calls is None else calls,
            method=options,
        ),
    )


def _is_outward(rounding: str, dtype: str) -> bool:
    if rounding not in ("nearest", "outward"):
        raise OptionError(f"rounding must be 'nearest' or 'outward', not {rounding!r}")
    if rounding == "outward" and dtype != DType.FLOAT64.value:
        raise OptionError(f"rounding='outward' takes dtype='float64', not {dtype!r}")
    return rounding == "outward"


def _cache(choice: bool | str | BoundCache, plugins: Registry) -> BoundCache | None:
    """The store of bounds for ``cache=choice``."""
    if isinstance(choice, BoundCache):
        return choice
    if choice is False:
        return None
    if choice == "process":
        return process_cache(plugins.new_cache)
    if choice is True:
        return plugins.new_cache()
    raise OptionError(f"cache must be True, False, 'process' or a BoundCache, not {choice!r}")


def bound(
    source: Any,
    region: Region,
    *,
    method: str = "ibp",
    spec: LinearSpec | None = None,
    executor: str = "auto",
    dtype: str = "float32",
    **options: Any,
) -> Bounds:
    """Guaranteed bounds on the outputs of a network, or on linear functions of them, over each region.

    Takes what :func:`compile` takes, with one call to expect. Bounds are [B, S] with specification rows, [B, *output]
    without.

    Raises:
        As :func:`compile`, and InputError where region or specification do not fit the network.
    """
    graph = load(source)
    batch = int(box_arrays(region, DType.FLOAT64, graph.input_type.shape)[0].shape[0])
    options = {"spec_rows": None if spec is None else spec.rows, "batch": batch, "calls": 1, **options}
    run = compile(graph, method=method, executor=executor, dtype=dtype, **options)
    return run(region, spec)
