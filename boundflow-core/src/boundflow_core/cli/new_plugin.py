"""``boundflow new-plugin``: a distribution to start from."""

from __future__ import annotations

from pathlib import Path

import click

from boundflow_core import __version__
from boundflow_core.plugins import registry
from boundflow_core.scaffold import KINDS, check_name, contents, write

__all__ = ["command"]


@click.command("new-plugin")
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), required=True, help="What it brings.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where to write it.  [default: NAME, here]")
def command(name: str, kind: str, folder: Path | None) -> None:
    """Write a distribution with a plugin of one's own, called NAME.

    It has a pyproject.toml with the entry point, an example that works, and tests with the conformance kit. What is
    left to write is marked TODO, and each TODO is a failing test.

    \b
    Example:
      boundflow new-plugin boundflow-octagon --kind domain
    """
    check_name(name, kind, registry())
    found = contents(name, kind, __version__)
    target = folder or Path(name)
    write(target, found)
    click.echo(f"{target}: {KINDS[kind].what.lower()}, in {len(found)} files")
    for path in sorted(found):
        click.echo(f"  {path}")
    click.echo(
        f'next:\n  pip install -e "./{target}[testing]"\n  pytest {target}/tests/test_kit.py    # passes: the example'
        f"\n  pytest {target}          # fails where you have something to write, and says what"
    )
