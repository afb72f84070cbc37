"""CUDA source to machine code: by NVRTC, which torch's CUDA builds bring, or by nvcc. Neither needs a GPU."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from boundflow_core.errors import OptionError
from boundflow_tvm.backend_cuda import ARCHITECTURE

__all__ = ["compiled", "compiled_by_nvcc", "compiled_by_nvrtc", "nvrtc"]

# No contraction of products and sums: results are then those of the reference, sums of many terms aside.
OPTIONS = ("--fmad=false",)


def compiled(source: str, architecture: str = ARCHITECTURE) -> bytes:
    """Machine code (a cubin) of CUDA source.

    Raises:
        OptionError: there is no compiler here, or it refuses the source; says why.
    """
    if nvrtc() is not None:
        return compiled_by_nvrtc(source, architecture)
    if shutil.which("nvcc") is None:
        raise OptionError("CUDA source cannot be compiled: neither NVRTC (nvidia-cuda-nvrtc) nor nvcc can be found")
    return compiled_by_nvcc(source, architecture)


def compiled_by_nvcc(source: str, architecture: str = ARCHITECTURE) -> bytes:
    """As :func:`compiled`, by the nvcc that is on the path."""
    compiler = shutil.which("nvcc")
    if compiler is None:
        raise OptionError("CUDA source cannot be compiled: nvcc is not on the path")
    with tempfile.TemporaryDirectory(prefix="boundflow-") as folder:
        path, result = Path(folder) / "kernels.cu", Path(folder) / "kernels.cubin"
        path.write_text(source, encoding="utf-8")
        command = [compiler, "-cubin", f"-arch={architecture}", *OPTIONS, "-o", str(result), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OptionError(f"nvcc refuses the source: {done.stderr.strip()}")
        return result.read_bytes()


def compiled_by_nvrtc(source: str, architecture: str = ARCHITECTURE) -> bytes:
    """As :func:`compiled`, by NVRTC."""
    library = nvrtc()
    if library is None:
        raise OptionError("CUDA source cannot be compiled: NVRTC cannot be found: pip install nvidia-cuda-nvrtc")

    def succeed(status: int) -> None:
        if status:
            raise OptionError(f"NVRTC fails: {library.nvrtcGetErrorString(status).decode()}")

    program = ctypes.c_void_p()
    succeed(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None))
    try:
        options = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in OPTIONS)]
        if library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)):
            size = ctypes.c_size_t()
            succeed(library.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
            log = ctypes.create_string_buffer(size.value)
            succeed(library.nvrtcGetProgramLog(program, log))
            raise OptionError(f"NVRTC refuses the source: {log.value.decode(errors='replace').strip()}")
        size = ctypes.c_size_t()
        succeed(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        code = ctypes.create_string_buffer(size.value)
        succeed(library.nvrtcGetCUBIN(program, code))
        return code.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


@lru_cache(maxsize=1)
def nvrtc() -> ctypes.CDLL | None:
    """NVRTC, or None where it cannot be found."""
    for name in _libraries():
        try:
            # it asks the linker for this one by name, which does not look into folders of packages
            for part in sorted(Path(name).parent.glob("libnvrtc-builtins.so.*")) if "/" in name else ():
                ctypes.CDLL(str(part))
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        return library
    return None


def _libraries() -> Iterator[str]:
    """Where NVRTC may be: packages of NVIDIA, which torch depends on, CUDA's folder, what the linker knows."""
    nvidia = find_spec("nvidia")
    for place in nvidia.submodule_search_locations or () if nvidia else ():
        for pattern in ("cu*/lib/libnvrtc.so.*", "cuda_nvrtc/lib/libnvrtc.so.*"):
            yield from (str(path) for path in sorted(Path(place).glob(pattern), reverse=True))
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if os.environ.get(variable):
            yield str(Path(os.environ[variable]) / "lib64" / "libnvrtc.so")
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so")
