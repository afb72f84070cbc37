"""Reader of VNN-LIB property files. Those of version 1.0: the SMT-LIB subset in which VNN-COMP states what is to be
refuted.

What is read: ``declare-const X_i Real`` (inputs) and ``Y_i`` (outputs), in any order of the indices, also as
``(declare-fun X_0 () Real)``; ``assert`` of ``and`` / ``or`` (any depth and mix) over ``<= >= < > =`` between linear
terms (``+ - * /`` with constants), ``true`` and ``false``; comments, quoted symbols; ``check-sat`` and the like are
passed over. Files may be gzipped.

Strict inequalities are read as non-strict: the closed set contains the open one, so "verified" stays right, while a
counterexample may lie on a border that the file excludes. Literals are rounded to the nearest float64, and arithmetic
on constants is done in float64.

A file is read as a stream: time and memory grow linearly with its size (and with the disjuncts it multiplies out to),
and nesting depth costs no recursion.

Files of version 2.0, which begin with ``(vnnlib-version <2.0>)``, are read where the package ``vnnlib`` is installed:
one network of one input and one output, whose elements count in the order of their memory.
"""

from __future__ import annotations

import os
import re

from boundflow_core.errors import PropertyError
from boundflow_core.property import Property
from boundflow_onnx._vnnlib_parser import Reader
from boundflow_onnx._vnnlib_query import read_query
from boundflow_onnx._vnnlib_tokens import ErrorAt, locate, read_all, read_start

__all__ = ["read_vnnlib"]

# What a file of version 2.0 begins with, after comments.
_IS_QUERY = re.compile(r"(?:\s+|;[^\n]*\n)*\(\s*vnnlib-version\b").match


def read_vnnlib(path: str | os.PathLike[str]) -> Property:
    """Read a property from a VNN-LIB file (plain or gzipped).

    The file describes the counterexamples: all its asserts hold for an input ``X`` and the network's output ``Y``.

    Returns:
        A property with one case per distinct input box, in file order.

    Raises:
        PropertyError: ``file:line:column: what is wrong`` for anything that is not such a file, inputs without bounds,
            input constraints that are no box, X and Y in one comparison, or more than a million disjuncts once
            multiplied out; ``file: ...`` if it cannot be read at all, or is of version 2.0 and the package ``vnnlib``
            is not installed.
    """
    name = os.fspath(path)
    if _IS_QUERY(read_start(name)):
        return read_query(name, read_all(name))
    try:
        return Reader(name).read()
    except ErrorAt as error:
        line, column = locate(name, error.offset)
        raise PropertyError(f"{name}:{line}:{column}: {error.message}") from None
