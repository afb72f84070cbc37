"""Run the demo: certify, print the table, draw the picture. The command `boundflow demo` calls `run_demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from boundflow_core.demo import picture
from boundflow_core.demo.digits import (
    NETWORKS,
    Curve,
    DemoResult,
    Skipped,
    certify,
    load_network,
    load_test_set,
)
from boundflow_core.errors import BoundFlowError, PluginError
from boundflow_core.plugins.catalogue import KNOWN_DISTRIBUTIONS

__all__ = ["run_demo"]

SHOWN = (0.01, 0.02, 0.04, 0.06, 0.08, 0.1)  # the eps that fit into a table of 80 columns; the result holds them all

EXPLANATION = "Certified at eps: right, and provably so when every pixel moves by up to eps."


def run_demo(
    methods: Sequence[str] | None, output: Path | None, console: Console, executor: str = "auto"
) -> DemoResult:
    """Certify both digit networks with each method, print a table to `console`, write a picture to `output`.

    Args:
        methods: names of methods, shown in this order; None takes every registered one by rank, and a method
            that cannot bound a network is then reported beside the table instead of ending the run.
        output: `.png`, `.svg` or `.pdf`; None draws nothing. Without matplotlib a line says what to install.

    Raises:
        InputError: `output` cannot be written; said before anything is computed.
        BoundFlowError: a method that was asked for is unknown or cannot bound a network, or none that is
            registered can, or nothing reads ONNX.
    """
    if output is not None:
        picture.check_output(output)
    chosen = registered_methods() if methods is None else tuple(dict.fromkeys(methods))
    if not chosen:
        provider = KNOWN_DISTRIBUTIONS["method", "ibp"]
        raise PluginError(f"the demo needs a method, and none is registered: pip install {provider}")
    test_set = load_test_set()
    curves: list[Curve] = []
    skipped: list[Skipped] = []
    for network in NETWORKS:
        graph = load_network(network)
        for method in chosen:
            with console.status(f"certifying {len(test_set.labels)} digits: {network.name}, {method}"):
                try:
                    curves.append(certify(network, graph, method, test_set, executor=executor))
                except BoundFlowError as error:
                    if methods is not None:
                        raise
                    skipped.append(Skipped(network.name, method, str(error)))
    if not curves:
        raise PluginError(f"no registered method bounds the demo's networks; {skipped[0].method}: {skipped[0].reason}")
    result = DemoResult(len(test_set.labels), tuple(curves), tuple(skipped))
    console.print(table(result))
    console.print(f"\n{EXPLANATION}", style="dim", markup=False)
    for miss in skipped:
        console.print(f"{miss.network}, {miss.method}: {miss.reason}", style="yellow", markup=False)
    if output is None:
        return result
    if not picture.have_matplotlib():
        console.print("No picture: matplotlib is not installed. pip install 'boundflow-core[demo]'", markup=False)
        return result
    picture.save(result, test_set.images, output)
    console.print(f"Picture: {output}", markup=False, soft_wrap=True)
    return replace(result, picture=str(output))


def table(result: DemoResult) -> Table:
    """A row per network and method: clean accuracy, certified accuracy at some eps, seconds for all of them."""
    radii = [point.eps for point in result.curves[0].points if point.eps in SHOWN] if result.curves else []
    shown = Table(
        title=f"Certified accuracy on {result.images} handwritten digits, in percent",
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=None,
        padding=(0, 1),
        pad_edge=False,
    )
    shown.add_column("network")
    shown.add_column("method", no_wrap=True)
    shown.add_column("clean", justify="right")
    for radius in radii:
        shown.add_column(f"{'eps ' if radius == radii[0] else ''}{radius:g}", justify="right", no_wrap=True)
    shown.add_column("seconds", justify="right")
    previous = ""
    for curve in result.curves:
        if previous and curve.network != previous:
            shown.add_row()
        kept = {point.eps: point.certified_accuracy for point in curve.points}
        shown.add_row(
            "" if curve.network == previous else curve.network,
            curve.method,
            f"{curve.clean_accuracy:.1%}".rstrip("%"),
            *(f"{kept[radius]:.1%}".rstrip("%") for radius in radii),
            f"{curve.seconds:.2f}",
        )
        previous = curve.network
    return shown


def registered_methods() -> tuple[str, ...]:
    """Names of all methods that the installed distributions bring, from loose and quick to tight and slow."""
    from boundflow_core.plugins import registry

    methods = registry().methods.values()
    return tuple(method.name for method in sorted(methods, key=lambda method: (method.rank, method.name)))
