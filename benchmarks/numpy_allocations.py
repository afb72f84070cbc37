"""The memory that NumPy's arrays take, byte by byte, without Python's objects, which tracemalloc counts too.

NumPy lets a program bring its own allocation functions (NEP 49): these count, and hand on to the C library.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["Held", "counted"]

_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_ZEROED = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_RESIZE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

_SET_HANDLER = 304  # place of PyDataMem_SetHandler in NumPy's table of C functions


class _Handler(ctypes.Structure):
    """``PyDataMem_Handler`` of NumPy's C interface, version 1."""

    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("ctx", ctypes.c_void_p),
        ("malloc", _ALLOCATE),
        ("calloc", _ZEROED),
        ("realloc", _RESIZE),
        ("free", _RELEASE),
    )


class Held:
    """Bytes that arrays hold now, and the most that they held at once."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def add(self, count: int) -> None:
        self.now += count
        self.peak = max(self.peak, self.now)


_held = Held()
_sizes: dict[int, int] = {}
_c = ctypes.CDLL(None)
_c.malloc.restype = _c.calloc.restype = _c.realloc.restype = ctypes.c_void_p
_c.malloc.argtypes, _c.calloc.argtypes = (ctypes.c_size_t,), (ctypes.c_size_t, ctypes.c_size_t)
_c.realloc.argtypes, _c.free.argtypes = (ctypes.c_void_p, ctypes.c_size_t), (ctypes.c_void_p,)


def _noted(address: int | None, count: int) -> int | None:
    if address:
        _sizes[address] = count
        _held.add(count)
    return address


@_ALLOCATE
def _malloc(ctx: int, count: int) -> int | None:
    return _noted(_c.malloc(count), count)


@_ZEROED
def _calloc(ctx: int, number: int, each: int) -> int | None:
    return _noted(_c.calloc(number, each), number * each)


@_RESIZE
def _realloc(ctx: int, address: int, count: int) -> int | None:
    _held.add(-_sizes.pop(address, 0))
    return _noted(_c.realloc(address, count), count)


@_RELEASE
def _free(ctx: int, address: int, count: int) -> None:
    _held.add(-_sizes.pop(address or 0, 0))
    _c.free(address)


# Arrays are released by the functions that allocated them: these live as long as the process.
_handler = _Handler(b"counting", 1, None, _malloc, _calloc, _realloc, _free)


def _set_handler(capsule: object) -> object:
    """Sets NumPy's allocation functions; the ones before."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    table = ctypes.cast(pointer(np._core._multiarray_umath._ARRAY_API, None), ctypes.POINTER(ctypes.c_void_p))
    return ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(table[_SET_HANDLER])(capsule)


@contextmanager
def counted() -> Iterator[Held]:
    """Counts what arrays take that are made meanwhile."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    before = _set_handler(new(ctypes.addressof(_handler), b"mem_handler", None))
    _held.peak = _held.now
    start = _held.now
    found = Held()
    try:
        yield found
    finally:
        found.now, found.peak = _held.now - start, _held.peak - start
        _set_handler(before)
