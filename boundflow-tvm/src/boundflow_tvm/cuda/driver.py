"""A GPU as the CUDA driver shows it: code is loaded, and kernels are launched. Tensors are torch's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from boundflow_core.errors import BoundFlowError, OptionError

__all__ = ["LIBRARY", "Arguments", "Driver", "GpuError"]

LIBRARY = "libcuda.so.1"

_Handle = ctypes.c_void_p
_PlaceOf = ctypes.POINTER
# Types of the parameters of the functions that are called, all of which return an error code.
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cuInit": (ctypes.c_uint,),
    "cuGetErrorString": (ctypes.c_int, _PlaceOf(ctypes.c_char_p)),
    "cuDeviceGet": (_PlaceOf(ctypes.c_int), ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_PlaceOf(_Handle), ctypes.c_int),
    "cuCtxPushCurrent_v2": (_Handle,),
    "cuCtxPopCurrent_v2": (_PlaceOf(_Handle),),
    "cuModuleLoadData": (_PlaceOf(_Handle), ctypes.c_char_p),
    "cuModuleGetFunction": (_PlaceOf(_Handle), _Handle, ctypes.c_char_p),
    "cuLaunchKernel": (_Handle, *(ctypes.c_uint,) * 7, _Handle, _PlaceOf(_Handle), _PlaceOf(_Handle)),
}


class GpuError(BoundFlowError, RuntimeError):
    """The driver of the GPU reports an error."""


class Arguments:
    """The arguments of a launch in the form that the driver takes: a table of the places of their values.

    Every argument, an address or an int64, takes eight bytes.
    """

    def __init__(self, values: Sequence[int]) -> None:
        self.values = (ctypes.c_int64 * len(values))(*values)
        first = ctypes.addressof(self.values)
        self.table = (ctypes.c_void_p * len(values))(*(first + 8 * place for place in range(len(values))))


class Driver:
    """One GPU. What is loaded stays loaded: kernels may still run when nobody here knows of them any more.

    Args:
        library: the driver's library.
        ordinal: number of the GPU, as torch counts.

    Raises:
        OptionError: there is no such GPU.
    """

    def __init__(self, library: ctypes.CDLL, ordinal: int) -> None:
        self._library = library
        for name, types in _FUNCTIONS.items():
            function = getattr(library, name)
            function.argtypes, function.restype = types, ctypes.c_int
        self._modules: dict[bytes, _Handle] = {}
        device, self._context = ctypes.c_int(), _Handle()
        try:
            self._call("cuInit", 0)
            self._call("cuDeviceGet", ctypes.byref(device), ordinal)
            # the context that torch's tensors are in
            self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        except GpuError as error:
            raise OptionError(f"GPU {ordinal} cannot be used: {error}") from error

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            text = ctypes.c_char_p()
            self._library.cuGetErrorString(status, ctypes.byref(text))
            raise GpuError(f"{name}: {(text.value or b'unknown error').decode()} ({status})")

    @contextmanager
    def current(self) -> Iterator[None]:
        """What must hold in a thread while it loads and launches."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(_Handle()))

    def load(self, code: bytes) -> Callable[[str], Any]:
        """The kernels of machine code, by name."""
        if code not in self._modules:
            module = _Handle()
            self._call("cuModuleLoadData", ctypes.byref(module), code)
            self._modules[code] = module
        module = self._modules[code]

        def kernel(name: str) -> _Handle:
            function = _Handle()
            self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
            return function

        return kernel

    def launch(self, kernel: Any, blocks: int, threads: int, stream: int, arguments: Arguments) -> None:
        """Has ``blocks`` (at least one) of ``threads`` run ``kernel`` after what the stream was given before.

        The arguments are read before this returns.
        """
        self._call("cuLaunchKernel", kernel, blocks, 1, 1, threads, 1, 1, 0, stream, arguments.table, None)
