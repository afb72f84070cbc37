"""``boundflow cache``: the compiled kernels that are kept on disk."""

from __future__ import annotations

import click

from boundflow_core.cli.files import write_json
from boundflow_tvm.cache import cache_folder, clear_folder, kept_files

__all__ = ["command"]


@click.group("cache")
def command() -> None:
    """Show or clear the cache of compiled kernels.

    It lies in the user's folder for caches, or where the environment variable BOUNDFLOW_CACHE_DIR says.
    """


@command.command("info")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(as_json: bool) -> None:
    """Show where the cache lies and how much is in it."""
    files = kept_files(cache_folder())
    count, size = len(files), sum(files.values())
    if as_json:
        write_json({"folder": str(cache_folder()), "files": count, "bytes": size}, "-")
    else:
        click.echo(f"{cache_folder()}: {count} {'file' if count == 1 else 'files'}, {size:,} bytes")


@command.command("clear")
@click.option("--json", "as_json", is_flag=True, help="Print what was removed as JSON.")
def clear(as_json: bool) -> None:
    """Remove everything from the cache; what runs keeps what it has loaded."""
    count, size = clear_folder(cache_folder())
    if as_json:
        write_json({"folder": str(cache_folder()), "removed": count, "bytes": size}, "-")
    else:
        click.echo(f"removed {count} {'file' if count == 1 else 'files'}, {size:,} bytes")
