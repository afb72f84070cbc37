"""Reader of VNN-LIB 1.0 property files: the SMT-LIB subset in which VNN-COMP states what is to be refuted.

What is read: ``declare-const X_i Real`` (inputs) and ``Y_i`` (outputs), in any order of the indices, also as
``(declare-fun X_0 () Real)``; ``assert`` of ``and`` / ``or`` (any depth and mix) over ``<= >= < > =`` between linear
terms (``+ - * /`` with constants), ``true`` and ``false``; comments, quoted symbols; ``check-sat`` and the like are
passed over. Files may be gzipped.

Strict inequalities are read as non-strict: the closed set contains the open one, so "verified" stays right, while a
counterexample may lie on a border that the file excludes. Literals are rounded to the nearest float64, and arithmetic
on constants is done in float64.

The file is read as a stream: time and memory grow linearly with its size (and with the disjuncts it multiplies out to),
and nesting depth costs no recursion.
"""

from __future__ import annotations

import os

from boundflow_core.errors import PropertyError
from boundflow_core.property import Property
from boundflow_onnx._vnnlib_parser import Reader
from boundflow_onnx._vnnlib_tokens import ErrorAt, locate

__all__ = ["read_vnnlib"]


def read_vnnlib(path: str | os.PathLike[str]) -> Property:
    """Read a property from a VNN-LIB 1.0 file (plain or gzipped).

    The file describes the counterexamples: all its asserts hold for an input ``X`` and the network's output ``Y``.

    Returns:
        A property with one case per distinct input box, in file order.

    Raises:
        PropertyError: ``file:line:column: what is wrong`` for anything that is not such a file, inputs without bounds,
            input constraints that are no box, X and Y in one comparison, or more than a million disjuncts once
            multiplied out; ``file: ...`` if it cannot be read at all.
    """
    name = os.fspath(path)
    try:
        return Reader(name).read()
    except ErrorAt as error:
        line, column = locate(name, error.offset)
        raise PropertyError(f"{name}:{line}:{column}: {error.message}") from None
