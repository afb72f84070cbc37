"""A frontend: networks from files of a format of one's own.

Here it is `.toy`, one layer a line:

    input 2
    linear 1 -1 0.5 ; 2 0 1     # a row of weights and its bias for each output
    relu
    linear 1 1 0

is a network of two inputs and one output.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from boundflow_core.errors import IRError, LoadError
from boundflow_core.extension import Frontend
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.normalize import normalize
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


def accepts(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(".toy")


def load(path: str | os.PathLike[str]) -> PrimalGraph:
    """Reads a file; LoadError names file and line of what makes no sense."""
    number = 0
    try:
        text = Path(path).read_text()
        lines = [(at, line.partition("#")[0].split(None, 1)) for at, line in enumerate(text.splitlines(), 1)]
        (number, (word, size)), *layers = [(at, words) for at, words in lines if words]
        if word != "input":
            raise ValueError("the first line must be `input N`")
        g = PrimalBuilder(Path(path).stem, "x", (int(size),))
        x: Any = g.input
        for number, words in layers:  # noqa: B007 (the line of an error)
            if words[0] == "linear":
                rows = np.array([[float(entry) for entry in row.split()] for row in words[1].split(";")])
                x = g.op("linear", x, rows[:, :-1], rows[:, -1])
            else:
                x = g.op(words[0], x)  # relu, tanh...
        return normalize(g.finish(x), batch_axis=False)
    except (ValueError, IndexError, IRError) as error:
        raise LoadError(f"{path}, line {number}: {error}") from error


@hookimpl
def boundflow_register_frontends() -> list[Frontend]:
    return [Frontend("toy", "one layer a line", accepts, load, suffixes=(".toy",))]
