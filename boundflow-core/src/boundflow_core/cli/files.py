"""Files of the command line: arrays read without surprises, results written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import InputError

__all__ = ["check_output", "finite_or_text", "read_array", "write_json", "write_text"]

STDOUT = "-"


def read_array(path: str) -> NDArray[Any]:
    """The numbers in a ``.npy`` file.

    Raises:
        InputError: the file is missing, damaged, no ``.npy`` file, holds Python objects, or a value is not finite.
    """
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except (ValueError, EOFError, MemoryError, OverflowError) as error:
        raise InputError(f"{path}: not a readable .npy file of numbers: {error}") from error
    if array.dtype.kind not in "fiub":
        raise InputError(f"{path}: holds values of type {array.dtype}, not real numbers")
    if not np.isfinite(array).all():
        raise InputError(f"{path}: holds values that are not finite (NaN or infinity)")
    return np.asarray(array)


def check_output(path: str | None) -> None:
    """Complain about an output that cannot be written before any work is done. ``None`` and ``"-"`` are fine.

    Raises:
        InputError: the folder does not exist, or the file cannot be written.
    """
    if path is None or path == STDOUT:
        return
    target = _target(path)
    if target.is_dir():
        raise InputError(f"{path}: is a directory, not a file to write to")
    if not target.parent.is_dir():
        raise InputError(f"{path}: the directory {target.parent} does not exist")
    if target.exists() and not os.access(target, os.W_OK):
        raise InputError(f"{path}: cannot be written (permission denied)")
    if _replaceable(target):
        try:
            with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}."):
                pass
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def write_json(values: Mapping[str, Any], path: str) -> None:
    """Write ``values`` as one line of JSON, to stdout for ``"-"``; a file appears whole or not at all.

    Raises:
        InputError: the file cannot be written after all.
    """
    write_text(json.dumps(values, allow_nan=False) + "\n", path)


def write_text(text: str, path: str) -> None:
    """Write ``text``, to stdout for ``"-"``; a file appears whole or not at all.

    Raises:
        InputError: the file cannot be written after all.
    """
    if path == STDOUT:
        click.echo(text, nl=False)
        return
    target = _target(path)
    try:
        if not _replaceable(target):
            target.write_text(text, encoding="utf-8")
            return
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with open(beside, "x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        except BaseException:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error


def finite_or_text(values: NDArray[Any]) -> Any:
    """Nested lists of numbers; JSON has no infinity and no NaN, so these are the strings "inf", "-inf" and "nan"."""

    def plain(item: Any) -> Any:
        if isinstance(item, list):
            return [plain(part) for part in item]
        return item if math.isfinite(item) else str(item)

    nested = values.tolist()
    return nested if np.isfinite(values).all() else plain(nested)


def _target(path: str) -> Path:
    """The file itself where ``path`` is a link, so that the link stays."""
    return Path(os.path.realpath(path))


def _replaceable(target: Path) -> bool:
    """Whether it is an ordinary file or none yet; devices and pipes are written to, never replaced."""
    return target.is_file() or not target.exists()
