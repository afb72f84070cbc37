"""``boundflow verify``: a verdict on one property, or on a whole benchmark."""

from __future__ import annotations

from pathlib import Path

import click

import boundflow_core as bf
from boundflow_bab.alarm import alarm
from boundflow_bab.batch import run_batch
from boundflow_bab.clock import Clock, OutOfTime
from boundflow_bab.results import results_text
from boundflow_bab.show import Line, show_report
from boundflow_bab.verdict import Report, Verdict
from boundflow_bab.verify import SPLITS, Options, Story, verify
from boundflow_core.cli.files import check_output, write_json, write_text
from boundflow_core.errors import BoundFlowError
from boundflow_core.plugins import registry

__all__ = ["command", "decide"]


@click.command("verify")
@click.argument("net", required=False)
@click.argument("prop", required=False)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Seconds.  [default: none]")
@click.option("--results-file", metavar="F", help="Write sat, unsat, unknown or timeout, and the counterexample.")
@click.option("--executor", metavar="E", default="auto", help="What runs it.  [default: what suits the network]")
@click.option(
    "--trust-float32", is_flag=True, help="Take bounds computed in float32 at their word; the verdict says so."
)
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default="auto",
    show_default=True,
    help="What a search splits: input boxes, activations, or what suits the network.",
)
@click.option(
    "--branching",
    metavar="H",
    default="babsr",
    show_default=True,
    help="The heuristic that says which neuron is split; boundflow plugins lists them.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the attack's random starts.")
@click.option("--json", "json_path", metavar="OUT|-", help="Write the result as JSON to a file, or to stdout for -.")
@click.option("--batch", metavar="CSV", help="Run the lines NET,PROP,TIMEOUT of a file, in one process.")
@click.option("--vnncomp", is_flag=True, help="Say unknown instead of failing on what is not supported.")
def command(
    net: str | None,
    prop: str | None,
    timeout: float | None,
    results_file: str | None,
    executor: str,
    trust_float32: bool,
    split: str,
    branching: str,
    seed: int,
    json_path: str | None,
    batch: str | None,
    vnncomp: bool,
) -> None:
    """Decide whether the network in the file NET has a counterexample to the property in the file PROP.

    Prints first: verified (there is none), falsified (there is one, and it was run through the network), unknown or
    timeout. Bounds are computed in float32; before a property counts as verified they are computed once more such that
    they hold in exact arithmetic.

    \b
    Examples:
      boundflow verify net.onnx property.vnnlib --timeout 60
      boundflow verify --batch instances.csv --json table.json
    """
    options = Options(
        timeout=timeout, executor=executor, trust_float32=trust_float32, split=split, branching=branching, seed=seed
    )
    registry().branching_heuristic(branching)
    if executor != "auto":
        registry().executor(executor)
    for path in (json_path, results_file):
        check_output(path)
    if batch is not None:
        if net is not None or results_file is not None:
            raise click.UsageError("--batch takes networks, properties and results from its file alone")
        run_batch(batch, options, json_path, decide)
        return
    if net is None or prop is None:
        raise click.UsageError("give NET and PROP, or --batch CSV")
    try:
        report = decide(net, prop, options, shown=json_path != "-")
    except BoundFlowError as error:
        if not vnncomp:
            raise
        report = Report(Verdict.UNKNOWN, str(error))
    if results_file is not None:
        write_text(results_text(report), results_file)
    if json_path is not None:
        write_json(report.to_json(), json_path)
    if json_path != "-":
        show_report(report)


def decide(net: str, prop: str, options: Options, *, shown: bool) -> Report:
    """The verdict on a network and a property, from files. Interrupted, it is what is known until then.

    Args:
        shown: whether a line tells of the progress where a person looks on.

    Raises:
        BoundFlowError: a file cannot be read, or the network is not supported.
    """
    clock = Clock(options.timeout)
    with Line(shown=shown) as line:
        story = Story(clock, options, line.update)
        try:
            with alarm(options.timeout):
                with clock.phase("load"):
                    graph, wanted = bf.load(net), bf.read_property(prop)
                return verify(graph, wanted, options, path=Path(net), story=story)
        except OutOfTime:
            return story.report(Verdict.TIMEOUT)
        except KeyboardInterrupt:
            return story.report(Verdict.UNKNOWN, "interrupted")
