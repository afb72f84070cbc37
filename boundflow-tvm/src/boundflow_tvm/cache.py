"""Compiled code kept: in the process, and as object files in a folder that any number of processes share."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boundflow_tvm.backend import load

__all__ = ["KERNELS", "KernelCache", "KernelCounts", "cache_folder", "clear_folder", "kept_files"]

_log = logging.getLogger(__name__)

VARIABLE = "BOUNDFLOW_CACHE_DIR"
MAGIC = b"boundflow kernels 2\n"
SUFFIX = ".kernels"
WRITING = ".writing-"

Functions = Callable[[str], Callable[..., Any]]


def cache_folder() -> Path:
    """Where compiled code is kept: ``BOUNDFLOW_CACHE_DIR``, or `boundflow` in the user's folder for caches."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser() / "kernels"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "boundflow" / "kernels"


@dataclass
class KernelCounts:
    """What became of requests for compiled code.

    Attributes:
        compiled: compiled here and now.
        loaded: read from the folder.
        hits: known in this process.
        rebuilt: of the compiled ones, those whose file was there but could not be used.
    """

    compiled: int = 0
    loaded: int = 0
    hits: int = 0
    rebuilt: int = 0


@dataclass
class KernelCache:
    """Functions of compiled code by the text that identifies it. Safe in threads, and between processes.

    A file holds a line that names the format, the digests of its key and of its code, and the code. It is written
    under another name and then renamed, so that nobody sees half a file; what does not match is compiled again.
    """

    _known: dict[str, Functions] = field(default_factory=dict)
    _parts: dict[str, bytes] = field(default_factory=dict)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def part(self, key: str, compile_code: Callable[[], bytes], folder: Path) -> bytes:
        """Code that several pieces of code have in common; it is compiled if neither process nor ``folder`` has it."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        with self._lock_of(digest):
            if digest not in self._parts:
                path = folder / (digest + SUFFIX)
                code = _read(path, digest)
                if not code:
                    code = compile_code()
                    _write(path, digest, code)
                self._parts[digest] = code
            return self._parts[digest]

    def _lock_of(self, digest: str) -> threading.Lock:
        with self._lock:
            return self._locks.setdefault(digest, threading.Lock())

    def get(self, key: str, compile_code: Callable[[], bytes], counts: KernelCounts, folder: Path) -> Functions:
        """The functions of the code with this key; it is compiled if neither process nor ``folder`` has it.

        A folder that cannot be read or written is done without.
        """
        digest = hashlib.sha256(key.encode()).hexdigest()
        with self._lock_of(digest):
            if digest in self._known:
                counts.hits += 1
                return self._known[digest]
            path = folder / (digest + SUFFIX)
            functions = _loaded(path, digest, counts)
            if functions is None:
                _log.info("compiling kernels, once: they are kept in %s", folder)
                code = compile_code()
                functions = load(code)
                counts.compiled += 1
                _write(path, digest, code)
            self._known[digest] = functions
            return functions

    def holds(self, key: str, folder: Path) -> str:
        """Where the code with this key is: in the "process", in the "folder", or nowhere (""); nothing is read."""
        digest = hashlib.sha256(key.encode()).hexdigest()
        if digest in self._known:
            return "process"
        return "folder" if (folder / (digest + SUFFIX)).is_file() else ""

    def forget(self) -> None:
        """Lets go of what the process has; loaded functions stay valid for whoever holds them."""
        with self._lock:
            self._known.clear()
            self._parts.clear()
            self._locks.clear()


def _loaded(path: Path, digest: str, counts: KernelCounts) -> Functions | None:
    code = _read(path, digest)
    if code is None:
        return None
    if code:
        with suppress(ValueError):
            functions = load(code)
            counts.loaded += 1
            return functions
    counts.rebuilt += 1
    return None


def _read(path: Path, digest: str) -> bytes | None:
    """The code in a file: empty if it is damaged, None where there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    head = MAGIC + digest.encode() + b"\n"
    code = content[len(head) + 65 :]
    whole = content[: len(head)] == head and content[len(head) : len(head) + 65] == _digest(code)
    return code if whole else b""


def _digest(code: bytes) -> bytes:
    return hashlib.sha256(code).hexdigest().encode() + b"\n"


def _write(path: Path, digest: str, code: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=WRITING, dir=path.parent)
    except OSError:
        return  # no place to keep it
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + digest.encode() + b"\n" + _digest(code) + code)
        os.replace(name, path)
    except OSError:
        Path(name).unlink(missing_ok=True)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def kept_files(folder: Path) -> dict[Path, int]:
    """The files of the cache with their sizes, unfinished ones of processes that were killed among them."""
    found: dict[Path, int] = {}
    for pattern in ("*" + SUFFIX, WRITING + "*"):
        for path in folder.glob(pattern):
            with suppress(OSError):  # another process may have removed it
                found[path] = path.stat().st_size
    return found


def clear_folder(folder: Path) -> tuple[int, int]:
    """Removes the files of the cache; gives the number and the bytes of those that are gone."""
    count = size = 0
    for path, length in kept_files(folder).items():
        with suppress(OSError):
            path.unlink()
            count, size = count + 1, size + length
    return count, size


KERNELS = KernelCache()
"""The cache of this process."""
