"""``boundflow demo``: certify two small networks on handwritten digits."""

from __future__ import annotations

from pathlib import Path

import click

from boundflow_core.cli.console import console
from boundflow_core.cli.files import check_output, write_json
from boundflow_core.errors import OptionError

__all__ = ["command"]

PICTURE = "boundflow-demo.png"


@click.command("demo")
@click.option(
    "--output",
    metavar="FILE",
    default=PICTURE,
    show_default=True,
    help="Where to draw the picture: a .png, .svg or .pdf file.",
)
@click.option("--json", "json_path", metavar="OUT|-", help="Write the results as JSON to a file, or to stdout for -.")
@click.option("--methods", metavar="A,B", help="Methods to compare, separated by commas.  [default: all]")
def command(output: str, json_path: str | None, methods: str | None) -> None:
    """Certify two small networks on handwritten digits, and draw a picture.

    For a range of eps it shows how many of the test images keep their class, provably, when every pixel changes by up
    to eps. Works offline; the networks and images come with BoundFlow.
    """
    check_output(json_path)
    names = None if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if names == []:
        raise OptionError("--methods names no method")
    from boundflow_core.demo.run import run_demo

    result = run_demo(names, Path(output), console(stderr=json_path == "-"))
    if json_path is not None:
        write_json(result.to_json(), json_path)
