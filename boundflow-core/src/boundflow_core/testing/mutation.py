"""Planted mistakes: would the tests see it if a line of the code were another?"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any

__all__ = ["mutated"]


@contextmanager
def mutated(function: Any, text: str, instead: str) -> Iterator[None]:
    """Within the block, ``function`` runs as if ``text`` of its source read ``instead``, for all who hold it.

    Its code is exchanged in place, so that tables that it is in have it too.

    Args:
        function: a function of a module or a class, not one that another function made.

    Raises:
        LookupError: the source does not have ``text`` exactly once: it was changed, and the mutation means nothing.
    """
    assert isinstance(function, FunctionType), f"{function!r} is not a function"
    where = f"{function.__module__}.{function.__qualname__}"
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(text) != 1:
        raise LookupError(f"{where} has {text!r} {source.count(text)} times, not once: plant the mistake anew")
    if function.__code__.co_freevars:
        raise LookupError(f"{where} is made by another function: mutate that one")
    module = compile("from __future__ import annotations\n" + source.replace(text, instead), where, "exec")
    code = next(item for item in module.co_consts if isinstance(item, CodeType) and item.co_name == function.__name__)
    original = function.__code__
    function.__code__ = code
    try:
        yield
    finally:
        function.__code__ = original
