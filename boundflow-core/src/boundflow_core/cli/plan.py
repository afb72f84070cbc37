"""``boundflow plan``: how bounds would be computed, without computing them."""

from __future__ import annotations

import click

import boundflow_core as bf
from boundflow_core.cli import plan_table
from boundflow_core.cli.bound import default_method, memory_amount
from boundflow_core.cli.files import STDOUT, check_output, write_json, write_text
from boundflow_core.compiled import CompiledBounds
from boundflow_core.memory import chunk_count, chunk_sizes
from boundflow_core.planner.describe import describe_plan
from boundflow_core.planner.description import ChunkEntry, PlanDescription
from boundflow_core.planner.pipeline import bind_plan
from boundflow_core.plugins import registry

__all__ = ["command", "describe"]


@click.command("plan")
@click.argument("net")
@click.option("--method", metavar="M", help="How to bound.  [default: the tightest quick method installed]")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Number of regions of a call.")
@click.option("--spec-rows", type=click.IntRange(min=1), metavar="S", help="Specification rows of a call, if any.")
@click.option("--executor", metavar="E", default="auto", help="What runs it.  [default: auto, the fastest by estimate]")
@click.option("--lowering", metavar="L", help="The executor's strategy for operations.  [default: the best for each]")
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True, help="To compute in."
)
@click.option("--memory-limit", callback=memory_amount, metavar="2GiB", help="Cut calls so that they need no more.")
@click.option("--json", "json_path", metavar="OUT|-", help="Write the plan as JSON to a file, or to stdout for -.")
@click.option("--html", "html_path", metavar="OUT", help="Draw the plan on a page that needs no other file.")
def command(
    net: str,
    method: str | None,
    batch: int,
    spec_rows: int | None,
    executor: str,
    lowering: str | None,
    dtype: str,
    memory_limit: int | None,
    json_path: str | None,
    html_path: str | None,
) -> None:
    """Show how bounds on the outputs of the network in the file NET would be computed.

    Shows the tasks in the order in which they run, which of them are skipped when an input has not changed, how much
    memory they share, and what each operation runs on. Nothing is computed.

    \b
    Examples:
      boundflow plan net.onnx --method ibp --batch 16 --spec-rows 9
      boundflow plan net.onnx --method ibp --html plan.html
    """
    if html_path == STDOUT:
        raise click.UsageError("--html needs the name of a file")
    for path in (json_path, html_path):
        check_output(path)
    if html_path is not None and html_path == json_path:
        raise click.UsageError("--json and --html name the same file")
    plugins = registry()
    chosen = plugins.method(method).name if method is not None else default_method(plugins)
    if executor != "auto":
        plugins.executor(executor)
    run = bf.compile(
        bf.load(net),
        method=chosen,
        batch=batch,
        spec_rows=spec_rows,
        executor=executor,
        lowering=lowering,
        dtype=dtype,
        cache=False,
    )
    described = describe(run, memory_limit)
    if html_path is not None:
        from boundflow_core.report.page import plan_page

        write_text(plan_page(described, net, chosen, dtype), html_path)
    if json_path is not None:
        why = {"executor_reason": run.stats.executor_reason}
        write_json({"network": net, "method": chosen, "dtype": dtype, **why, **described}, json_path)
    if json_path != STDOUT:
        plan_table.show(described, net, chosen, dtype, run.stats.executor_reason)


def describe(run: CompiledBounds, memory_limit: int | None) -> PlanDescription:
    """The plan of ``run``; with a memory limit that of one chunk, and into how many a call is cut.

    Raises:
        MemoryLimitError: one row of one region does not fit.
    """
    if memory_limit is None:
        return describe_plan(run.plan)
    asked = run.plan.sizes
    chunk = chunk_sizes(run.plan, asked, memory_limit)
    chunks: ChunkEntry = {"limit_bytes": memory_limit, "asked": dict(asked), "count": chunk_count(asked, chunk)}
    return describe_plan(bind_plan(run.plan, chunk), chunks)
