"""The program ``boundflow``: finds the subcommand, and turns every error into one line on stderr and an exit code.

Exit codes: 0 an answer, 1 a bug in BoundFlow or a plugin, 2 bad usage or input, 130 interrupted, 141 the reader of a
pipe left.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from boundflow_core import __version__
from boundflow_core.errors import BoundFlowError, PluginError, UnknownNameError
from boundflow_core.extension import expect
from boundflow_core.plugins import registry
from boundflow_core.plugins.blame import culprit

__all__ = ["boundflow", "main"]

# Programs and plans are many small objects that live on, and hardly any refer to each other in cycles: with Python's
# own thresholds a third of the time of a short command went into looking for such cycles again and again.
COLLECTED_AFTER = (10_000, 10, 10)

ANSWERED, BUG, BAD_INPUT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141


class RegisteredCommands(click.Group):
    """A group whose subcommands are those of the registry, imported when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(registry().commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        try:
            command = registry().command(cmd_name)
        except UnknownNameError as error:
            raise click.UsageError(str(error), ctx) from error
        try:
            loaded = command.load()
        except ImportError as error:
            raise PluginError(f"command {cmd_name!r} cannot be loaded: {error}") from error
        return expect(registry().who("commands", command), loaded, click.Command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click's own, but from the registry's one-liners, so that help imports no subcommand."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.doc) for name, command in registry().commands.items()])


@click.command(
    cls=RegisteredCommands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`boundflow COMMAND --help` explains a command.",
)
@click.version_option(__version__, prog_name="boundflow")
@click.option("--debug", is_flag=True, help="After an error, also show where in the code it arose (at any place).")
@click.pass_context
def boundflow(ctx: click.Context, debug: bool) -> None:
    """Guaranteed bounds on the outputs of neural networks."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``boundflow`` with these arguments; returns the exit code.

    None: as the program itself, with the arguments of the process, which is set up for it.
    """
    if arguments is None:
        gc.set_threshold(*COLLECTED_AFTER)
        atexit.register(gc.freeze)  # what is left goes with the process; to take it apart first is slow
    debug, rest = take_debug(sys.argv[1:] if arguments is None else arguments)
    try:
        with boundflow.make_context("boundflow", rest) as context:
            boundflow.invoke(context)
        sys.stdout.flush()
        return ANSWERED
    except click.exceptions.Exit as leave:
        return _flushed(leave.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        return fail("interrupted", INTERRUPTED, debug)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx is not None else "boundflow"
        return fail(f"{error.format_message().rstrip('.')} (see `{path} --help`)", BAD_INPUT, debug)
    except click.ClickException as error:
        return fail(error.format_message(), BAD_INPUT, debug)
    except BoundFlowError as error:
        return fail(str(error), BAD_INPUT, debug)
    except BrokenPipeError:
        return _pipe_closed()
    except MemoryError as error:
        return fail(f"out of memory{f' ({error})' if str(error) else ''}", BAD_INPUT, debug)
    except OSError as error:
        return fail(str(error), BAD_INPUT, debug)
    except Exception as error:
        report = f"please report it with what --debug shows: {type(error).__name__}: {error}"
        return fail(f"{whose_bug(error)}, {report}", BUG, debug)


def whose_bug(error: Exception) -> str:
    """Who has to mend it: the plugin whose code ran last, else BoundFlow."""
    found = None
    with suppress(Exception):  # where the registry itself is what failed
        found = culprit(error, registry().records)
    if found is None:
        return "this is a bug in BoundFlow"
    plugin, place = found
    return f"plugin {plugin.name!r} of {plugin.distribution} failed at {place}; this looks like a bug of that plugin"


def take_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether ``--debug`` is among the arguments, wherever, and the others; after ``--`` nothing is an option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [argument for argument in arguments[:end] if argument != "--debug"]
    return len(head) < end, [*head, *arguments[end:]]


def fail(message: str, code: int, debug: bool) -> int:
    """Say on stderr, in one line, what is wrong; called while the exception is handled. Returns ``code``."""
    if debug:
        traceback.print_exc()
    print(f"boundflow: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def _flushed(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return _pipe_closed()
    return code


def _pipe_closed() -> int:
    """Leave quietly: Python would complain once more when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED
