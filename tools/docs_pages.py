"""Pages of the documentation that are made from the code: hooks, IR and command line. A hook of mkdocs (mkdocs.yml).

`python tools/docs_pages.py FOLDER` writes them to files, for a look without mkdocs.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import click

__all__ = ["PAGES", "on_files"]


def on_files(files: Any, config: Any) -> Any:
    """Called by mkdocs: adds the pages."""
    from mkdocs.structure.files import File

    for name, write in PAGES.items():
        files.append(File.generated(config, name, content=write()))
    return files


# -- text -------------------------------------------------------------------------------------------------------------


def markdown(doc: str) -> str:
    """A docstring as Markdown: indented code becomes fenced, ``code`` becomes `code`, roles their names."""
    text = re.sub(r":(?:mod|class|func|data|meth):`~?([^`]+)`", r"`\1`", inspect.cleandoc(doc))
    lines: list[str] = []
    code: list[str] = []
    wanted = False  # whether the paragraph before announces code
    for line in [*text.splitlines(), "end"]:
        if wanted and (line.startswith("    ") or (code and not line)):
            code.append(line[4:])
            continue
        if code:
            while not code[-1]:
                code.pop()
            lines += ["```" + language(code), *code, "```", ""]
            code, wanted = [], False
        if line:
            wanted = line.endswith("::")
        lines.append(re.sub(r"::$", ":", line).replace("``", "`"))
    return "\n".join(lines[:-1])


def language(code: Iterable[str]) -> str:
    return "toml" if any(line.startswith("[project") for line in code) else "python"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    cells = [list(head), *map(list, rows)]
    cells.insert(1, ["---"] * len(cells[0]))
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells) + "\n"


def signature(function: Callable[..., Any]) -> str:
    """Without the modules of the annotations."""
    text = str(inspect.signature(function)).replace("'", "")
    return f"{function.__name__}{re.sub(r'[a-z_]+(?:[.][a-z_]+)*[.](?=[A-Z])', '', text)}"


# -- hooks ------------------------------------------------------------------------------------------------------------


def hooks() -> str:
    """The hook specifications, in their order, and below them the types that hooks return."""
    from boundflow_core import extension
    from boundflow_core.plugins import hookspecs

    found = [
        f for name, f in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(f, f"{hookspecs.PROJECT}_spec")
    ]
    found.sort(key=lambda f: f.__code__.co_firstlineno)
    parts = ["# Hooks\n", f"Version of the hooks: `BOUNDFLOW_API = {hookspecs.BOUNDFLOW_API}`.\n"]
    parts.append(markdown(hookspecs.__doc__ or ""))
    for hook in found:
        parts.append(f"\n## {hook.__name__}\n\n`{signature(hook)}`\n\n{markdown(hook.__doc__ or '')}")
    parts.append("\n## What they return\n\nAll of `boundflow_core.extension`.\n")
    parts += [one_type(extension, name) for name in extension.__all__ if inspect.isclass(getattr(extension, name))]
    return "\n".join(parts)


def one_type(module: ModuleType, name: str) -> str:
    kind = getattr(module, name)
    doc, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    described = fields_of(attributes)
    rows = [
        (f"`{field}`", f"`{annotation}`", described.get(field, ""))
        for field, annotation in inspect.get_annotations(kind).items()
    ]
    return f"### {name}\n\n{markdown(doc)}\n\n{table(('field', 'type', ''), rows)}"


def fields_of(text: str) -> dict[str, str]:
    """Descriptions by name of an ``Attributes:`` section; names may share one ("lower, upper: ...")."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\w)", "\n" + text):
        names, colon, what = " ".join(entry.split()).partition(": ")
        if colon:
            found.update(dict.fromkeys(map(str.strip, names.split(",")), what.replace("``", "`")))
    return found


# -- the IR -----------------------------------------------------------------------------------------------------------

ABOUT_IR = """\
A bound computation is a `BoundProgram`: straight-line tensor code in single-assignment form over the {count} primitives
below. Shapes may hold symbols: `B` regions, `S` specification rows. An executor that runs the primitives runs every
method of every plugin; `boundflow_core.ir.meaning` says in NumPy what each means.
"""
ABOUT_COMPOSITES = """\
Named operations that plugins declare by their decomposition into primitives. A lowering may claim the whole with one
kernel; elsewhere the decomposition runs, which is counted and shown. These are of the distributions that this page was
made with.
"""
KINDS = {
    "elementwise": "Operands broadcast as in NumPy. Comparisons give booleans.",
    "contraction": "Sums of products.",
    "reduction": "`axes`, and whether they stay as axes of size 1 (`keepdims`).",
    "layout": "No arithmetic: most run as views, or not at all.",
    "index": "Rows picked by data, for computations whose size is data.",
}


def ir() -> str:
    """The primitives, the composites of what is installed, and the operators of networks."""
    from boundflow_core.ir import primal_ops
    from boundflow_core.ir.primal_ops import PRIMAL_OPS
    from boundflow_core.ir.primitives import PRIMITIVES
    from boundflow_core.plugins import registry

    parts = [
        "# The IR\n",
        ABOUT_IR.format(count=len(PRIMITIVES)),
    ]
    for kind, about in KINDS.items():
        rows = [(f"`{one.name}`", as_code(one.doc)) for one in PRIMITIVES.values() if one.kind == kind]
        parts.append(f"\n## Primitives: {kind}\n\n{about}\n\n{table(('primitive', 'meaning'), rows)}")
    composites = [(f"`{one.name}`", as_code(one.doc)) for one in registry().composites.values()]
    parts.append(f"\n## Composites\n\n{ABOUT_COMPOSITES}\n{table(('composite', 'meaning'), composites)}")
    parts.append(f"\n## Operators of networks\n\n{markdown(primal_ops.__doc__ or '')}\n")
    rows_of_ops = [
        (f"`{one.name}`", f"`{', '.join(one.operands)}`", as_code(one.doc), "" if one.decompose is None else "yes")
        for one in PRIMAL_OPS.values()
    ]
    parts.append(table(("operator", "operands", "meaning", "written out where a domain has no rule"), rows_of_ops))
    return "\n".join(parts)


def as_code(doc: str) -> str:
    """Brackets that Markdown would read as links are code."""
    return re.sub(r"(?<!`)(\[[^\]`]*\])(?!`)", r"`\1`", doc)


# -- the command line -------------------------------------------------------------------------------------------------


ABOUT_CLI = """\
Exit code 0: an answer; 2: bad usage or input, with one line on stderr that says what is wrong. `--debug`, at any place,
adds a traceback. Commands are brought by plugins; these are of the distributions that this page was made with.
"""


def cli() -> str:
    """What ``--help`` says, of every command that is installed."""
    from boundflow_core.cli.main import boundflow
    from boundflow_core.plugins import registry

    context = click.Context(boundflow, info_name="boundflow", max_content_width=88, terminal_width=88)
    parts = [
        "# Command line\n",
        f"{ABOUT_CLI}\n```text\n{boundflow.get_help(context)}\n```\n",
    ]
    for name, command in registry().commands.items():
        inner = command.load()
        below = click.Context(inner, info_name=name, parent=context, max_content_width=88, terminal_width=88)
        parts.append(f"\n## boundflow {name}\n\n```text\n{inner.get_help(below)}\n```\n")
    return "\n".join(parts)


PAGES: Mapping[str, Callable[[], str]] = {
    "reference/hooks.md": hooks,
    "reference/ir.md": ir,
    "reference/cli.md": cli,
}


if __name__ == "__main__":
    for name, write in PAGES.items():
        target = Path(sys.argv[1]) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(write())
