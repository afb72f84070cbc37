"""``boundflow bound``: guaranteed bounds on the outputs of a network, or on linear functions of them."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.cli import bound_table
from boundflow_core.cli.files import check_output, finite_or_text, read_array, write_json
from boundflow_core.cli.progress import chunk_progress
from boundflow_core.compiled import Progress
from boundflow_core.errors import InputError, OptionError
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import format_shape
from boundflow_core.memory import parse_bytes
from boundflow_core.plugins import Registry, registry
from boundflow_core.regions import Region

__all__ = ["Outcome", "command", "compute", "default_method", "memory_amount"]

QUICK = 100  # methods of this rank or above are slow, and used only when they are asked for
NORMS = {"inf": math.inf, "2": 2.0, "1": 1.0}


@dataclass(frozen=True)
class Outcome:
    """Bounds, and how they came about.

    Attributes:
        lower, upper: [B, S], or [B, n] for the n outputs themselves.
        seconds: of loading, compiling, the first run, and a further run where one was measured.
        kernels: what became of requests for compiled code, of executors that compile.
        executor_reason: why this executor ran.
    """

    method: str
    executor: str
    dtype: str
    rounding: str
    lower: NDArray[Any]
    upper: NDArray[Any]
    seconds: Mapping[str, float]
    peak_bytes: int
    naive_bytes: int
    tasks: int
    lowering: Mapping[str, int]
    fallbacks: Mapping[str, int]
    kernels: Mapping[str, int] = field(default_factory=dict)
    executor_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` holds; bounds that are not finite are the strings "inf", "-inf" and "nan"."""
        return {
            "method": self.method,
            "executor": self.executor,
            "executor_reason": self.executor_reason,
            "dtype": self.dtype,
            "lower": finite_or_text(self.lower),
            "upper": finite_or_text(self.upper),
            "seconds": dict(self.seconds),
            "storage": {"peak_bytes": self.peak_bytes, "naive_bytes": self.naive_bytes},
            "tasks": self.tasks,
            "lowering": {"ops": dict(self.lowering), "fallbacks": dict(self.fallbacks)},
            "rounding": self.rounding,
            "kernels": dict(self.kernels),
        }


def radius(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``--eps``: a number of at least 0, or a fraction of two, as in "8/255"."""
    if value is None:
        return None
    above, slash, below = value.partition("/")
    try:
        number = float(above) / (float(below) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise click.BadParameter(f"{value!r} is neither a number nor a fraction such as 8/255") from None
    if not (math.isfinite(number) and number >= 0):
        raise click.BadParameter(f"{value!r} must be finite and not negative")
    return number


def memory_amount(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """``--memory-limit``: an amount of memory in bytes, as in "2GiB"."""
    if value is None:
        return None
    try:
        return parse_bytes(value)
    except OptionError as error:
        raise click.BadParameter(str(error)) from None


@click.command("bound")
@click.argument("net")
@click.option("--vnnlib", metavar="PROP", help="Bound over the input boxes of this property file.")
@click.option("--center", metavar="X.npy", help="Bound over a ball around this input, or around each of a batch.")
@click.option("--eps", callback=radius, metavar="E", help="Radius of the ball: a number, or a fraction such as 8/255.")
@click.option("--norm", type=click.Choice(list(NORMS)), help="Norm of the ball.  [default: inf]")
@click.option("--method", metavar="M", help="How to bound.  [default: the tightest quick method installed]")
@click.option("--executor", metavar="E", default="auto", help="What runs it.  [default: auto, the fastest by estimate]")
@click.option("--lowering", metavar="L", help="The executor's strategy for operations.  [default: the best for each]")
@click.option("--spec", metavar="C.npy", help="Bound the rows of this matrix times the outputs, not the outputs.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="To compute in.  [default: float32, with --rounding outward float64]",
)
@click.option(
    "--rounding",
    type=click.Choice(["nearest", "outward"]),
    default="nearest",
    show_default=True,
    help="outward: bounds that hold in exact arithmetic too; takes float64.",
)
@click.option("--memory-limit", callback=memory_amount, metavar="2GiB", help="Run in chunks that need no more memory.")
@click.option("--cache-dir", metavar="DIR", help="Keep compiled code here.  [default: the user's folder for caches]")
@click.option("--json", "json_path", metavar="OUT|-", help="Write the result as JSON to a file, or to stdout for -.")
def command(
    net: str,
    vnnlib: str | None,
    center: str | None,
    eps: float | None,
    norm: str | None,
    method: str | None,
    executor: str,
    lowering: str | None,
    spec: str | None,
    dtype: str | None,
    rounding: str,
    memory_limit: int | None,
    cache_dir: str | None,
    json_path: str | None,
) -> None:
    """Compute guaranteed bounds on the outputs of the network in the file NET.

    The inputs are given by --vnnlib, or by --center and --eps. An array X.npy has the shape of one input, or a batch
    axis before it. An array C.npy has shape [S, n] for n outputs, or [B, S, n] with its own rows for each of B regions.

    \b
    Examples:
      boundflow bound net.onnx --vnnlib property.vnnlib
      boundflow bound net.onnx --center x.npy --eps 8/255 --method ibp --json -
    """
    check_usage(vnnlib, center, eps, norm)
    check_output(json_path)
    if cache_dir is not None:
        os.environ["BOUNDFLOW_CACHE_DIR"] = cache_dir  # for executors that compile
    plugins = registry()
    chosen = plugins.method(method).name if method is not None else default_method(plugins)
    if executor != "auto":
        plugins.executor(executor)
    started = perf_counter()
    graph = bf.load(net)
    loaded = perf_counter() - started
    if vnnlib is not None:
        region: Region = property_boxes(net, graph, vnnlib)
    else:
        region = ball(net, graph, str(center), eps, NORMS[norm or "inf"])
    rows = None if spec is None else spec_rows(net, graph, spec, regions(region))
    with chunk_progress(shown=json_path != "-") as progress:
        outcome = compute(
            graph,
            region,
            rows,
            chosen,
            executor,
            dtype or ("float64" if rounding == "outward" else "float32"),
            loaded,
            rounding=rounding,
            lowering=lowering,
            memory_limit=memory_limit,
            progress=progress,
            twice=json_path is not None,
        )
    if json_path is not None:
        write_json(outcome.to_json(), json_path)
    if json_path != "-":
        bound_table.show(outcome, "row" if spec is not None else "output")


def check_usage(vnnlib: str | None, center: str | None, eps: float | None, norm: str | None) -> None:
    """The inputs are given in exactly one way, and completely.

    Raises:
        click.UsageError: they are not.
    """
    if vnnlib is not None:
        extra = [name for name, value in (("--center", center), ("--eps", eps), ("--norm", norm)) if value is not None]
        if extra:
            raise click.UsageError(f"{extra[0]} does not go with --vnnlib, which gives the inputs already")
    elif center is None:
        raise click.UsageError("the inputs are missing: give --vnnlib PROP, or --center X.npy and --eps E")
    elif eps is None:
        raise click.UsageError("--center needs --eps, the radius of the ball")


def default_method(plugins: Registry) -> str:
    """The tightest of the quick methods (the tightest of all if there is no quick one).

    Raises:
        UnknownNameError: none is installed; says what to install.
    """
    ranked = sorted(plugins.methods.values(), key=lambda method: (method.rank >= QUICK, -method.rank, method.name))
    return ranked[0].name if ranked else plugins.method("ibp").name


# -- inputs -----------------------------------------------------------------------------------------------------------


def property_boxes(net: str, graph: PrimalGraph, path: str) -> Region:
    """The input boxes of a property, one region each.

    Raises:
        PropertyError: the file cannot be read.
        InputError: it is made for another network.
    """
    prop = bf.read_property(path)
    shape, outputs = graph.input_type.shape, output_count(graph)
    inputs = int(np.prod(np.array(shape, dtype=np.int64)))
    if prop.n_in != inputs:
        raise InputError(f"{path}: a property of {prop.n_in} inputs, but {net} has {inputs} {format_shape(shape)}")
    if prop.n_out != outputs:
        raise InputError(
            f"{path}: a property of {prop.n_out} outputs, but {net} has {outputs} "
            f"{format_shape(graph.output_type.shape)}"
        )
    lower, upper = prop.boxes()
    return bf.Box(lower.reshape(-1, *shape), upper.reshape(-1, *shape))


def ball(net: str, graph: PrimalGraph, path: str, eps: float | None, norm: float) -> Region:
    """Balls around the inputs in a file.

    Raises:
        InputError: the file cannot be read, or the shape is not that of the network's input.
    """
    center, shape = read_array(path), graph.input_type.shape
    if center.shape != shape and (center.ndim == 0 or center.shape[1:] != shape or center.shape[0] == 0):
        batched = format_shape(("B", *shape))  # type: ignore[arg-type]
        raise InputError(
            f"{path}: has shape {format_shape(center.shape)}, but {net} takes {format_shape(shape)}, or {batched} "
            "for B of them"
        )
    return bf.LpBall(center.reshape(-1, *shape), eps, norm)


def regions(region: Region) -> int:
    """How many regions there are; all made here have a batch axis."""
    return int((region.lower if isinstance(region, bf.Box) else region.center).shape[0])


def spec_rows(net: str, graph: PrimalGraph, path: str, count: int) -> bf.LinearSpec:
    """Specification rows in a file.

    Raises:
        InputError: the file cannot be read, or the shape fits neither the network's outputs nor the regions.
    """
    rows, outputs = read_array(path), output_count(graph)
    if rows.ndim not in (2, 3) or rows.shape[-1] != outputs or 0 in rows.shape:
        raise InputError(
            f"{path}: has shape {format_shape(rows.shape)}, but specification rows for {net} have shape "
            f"[S, {outputs}] or [B, S, {outputs}]"
        )
    if rows.ndim == 3 and rows.shape[0] not in (1, count):
        raise InputError(f"{path}: holds rows for {rows.shape[0]} regions, but there are {count}")
    return bf.LinearSpec(rows)


def output_count(graph: PrimalGraph) -> int:
    return int(np.prod(np.array(graph.output_type.shape, dtype=np.int64)))


# -- the work ---------------------------------------------------------------------------------------------------------


def compute(
    graph: PrimalGraph,
    region: Region,
    spec: bf.LinearSpec | None,
    method: str,
    executor: str,
    dtype: str,
    loaded: float,
    *,
    rounding: str = "nearest",
    lowering: str | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
    twice: bool,
) -> Outcome:
    """Compile and run.

    Args:
        region: B regions, with their batch axis.
        loaded: seconds that loading took.
        rounding: "nearest" or "outward".
        lowering: the strategy that shall run all that it supports.
        memory_limit: bytes that the planned peak must not exceed.
        progress: told of each chunk.
        twice: run once more, to tell what a run takes when everything is warm.
    """
    count = regions(region)
    started = perf_counter()
    rows = None if spec is None else spec.rows
    run = bf.compile(
        graph,
        method=method,
        spec_rows=rows,
        batch=count,
        executor=executor,
        dtype=dtype,
        cache=False,
        memory_limit=memory_limit,
        rounding=rounding,
        lowering=lowering,
        calls=2 if twice else 1,
    )
    compiled = perf_counter() - started
    before = run.stats.compile_seconds
    started = perf_counter()
    bounds = run(region, spec, progress=progress)
    # what is compiled for these very sizes is compiled by the first run
    late = run.stats.compile_seconds - before
    seconds = {"load": loaded, "compile": compiled + late, "first_run": perf_counter() - started - late}
    if twice:
        started = perf_counter()
        run(region, spec, progress=progress)
        seconds["run"] = perf_counter() - started
    return Outcome(
        method=method,
        executor=run.executor,
        dtype=dtype,
        rounding=rounding,
        lower=np.asarray(bounds.lower).reshape(count, -1),
        upper=np.asarray(bounds.upper).reshape(count, -1),
        seconds=seconds,
        peak_bytes=int(run.plan.storage.peak_bytes),
        naive_bytes=int(run.plan.storage.naive_bytes),
        tasks=len(run.plan.tasks),
        lowering=dict(run.stats.lowering),
        fallbacks=dict(run.stats.fallbacks),
        kernels=dict(run.stats.kernels),
        executor_reason=run.stats.executor_reason,
    )
