"""What executor `cuda` tells of itself. Light: neither torch nor TVM is imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from glob import glob
from importlib.util import find_spec
from pathlib import Path

from boundflow_core.extension import LoweringStrategy
from boundflow_core.ir.program import Op
from boundflow_tvm import backend

__all__ = ["NAME", "STRATEGY", "unavailable"]

NAME = "cuda_tir"

# Where GPUs of NVIDIA appear: Linux, and Linux within Windows.
_DEVICES = ("/dev/nvidia[0-9]*", "/dev/dxg")


@lru_cache(maxsize=1)
def unavailable() -> str | None:
    """Why no kernel can be launched here, or None. The driver is not asked: a process that did could not fork."""
    if reason := backend.unavailable():
        return reason
    torch = find_spec("torch")
    if torch is None or not torch.submodule_search_locations:
        return "torch is not installed: pip install 'boundflow-core[torch]'"
    if not sys.platform.startswith("linux"):
        return "kernels are launched on Linux only"
    if not any((Path(place) / "lib" / "libtorch_cuda.so").exists() for place in torch.submodule_search_locations):
        return "this torch is built without CUDA"
    if not any(glob(pattern) for pattern in _DEVICES):
        return "there is no GPU of NVIDIA here"
    return None


def _supports(op: Op, known: Sequence[bool]) -> str | None:
    from boundflow_tvm.cuda.kernels import refused

    return refused(op)


STRATEGY = LoweringStrategy(
    NAME,
    "chains, reductions and steps through activations as kernels of a GPU; the rest is torch's",
    "cuda",
    unavailable,
    _supports,
    lambda op, known: 0.0,  # there is no other
)
