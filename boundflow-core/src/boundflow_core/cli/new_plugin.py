"""``boundflow new-plugin``: a distribution to start from."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

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
    place = str(target) if target.is_absolute() else f"./{target}"  # pip takes a bare name for a distribution's
    click.echo(
        f"next:\n  pip install -e {quote(f'{place}[testing]')}"
        f"\n  pytest {quote(f'{place}/tests/test_active.py')}    # passes: it is found, and clashes with nothing"
        f"\n  pytest {quote(f'{place}/tests/test_kit.py')}    # passes: the example"
        f"\n  pytest {quote(place)}    # fails where you have something to write, and says what"
    )
