"""What a template is: it describes the kernel for one operation.

A template looks at one operation, a primitive or a composite, and either leaves it (None) or describes a
:class:`Kernel` for it. It decides from the layer alone (types, attributes, which operands are known beforehand), never
from the number of rows: symbolic dimensions are variables of the kernel, so that one kernel serves all sizes.

What a kernel can rely on:

- operands and results are contiguous, row-major, aligned to 64 bytes (parts of arrays: to their element), on the CPU;
- results never share memory with operands;
- it runs on one thread, several kernels of one plan one after another.

Composites that some template may take are named in :data:`boundflow_tvm.templates.CLAIMS`, so that the planner leaves
them whole; where the template then gives None, the operation is written out in primitives, which is counted and shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from boundflow_core.ir.program import Op

__all__ = ["Input", "Kernel", "Operand", "Output", "Packed", "Scratch", "Template"]


@dataclass(frozen=True)
class Input:
    """Operand ``number`` of the operation as it is, of the operation's (symbolic) shape."""

    number: int


@dataclass(frozen=True)
class Output:
    """Result ``number`` of the operation."""

    number: int = 0


@dataclass(frozen=True)
class Packed:
    """Operands known before any run, laid out anew once: ``pack(*arrays) -> array``.

    Attributes:
        inputs: their numbers; each must be known beforehand.
        pack: from NumPy arrays to a contiguous one; the same ``name`` of the same arrays is packed once only.
        name: what tells this arrangement from others, with its parameters ("interval-matmul/16").
    """

    inputs: tuple[int, ...]
    pack: Callable[..., NDArray[Any]]
    name: str


@dataclass(frozen=True)
class Scratch:
    """Memory of the kernel's own, of fixed size, that keeps what is written there from one run to the next.

    It starts as zeros: a border of zeros needs to be made only once.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"


Operand = Input | Output | Packed | Scratch


@dataclass(frozen=True)
class Kernel:
    """Code for one operation.

    Attributes:
        name: of the template, for reports.
        key: tells the code from any other code of this template: its parameters as text. Equal names and keys mean
            equal code, on which the caches rely; change a number in the name's version when the code changes.
        build: gives the TVM PrimFunc, whose parameters are buffers in the order of ``operands``. Each symbolic
            dimension of a buffer must be a plain variable somewhere (``T.match_buffer(a, (rows, 256))``), which is
            bound to the operand's size there. Buffers may see an operand in another shape of the same elements only
            if all dimensions but the first are known. Called only when nothing compiled is in the cache, so
            tvm is imported inside.
        operands: what the parameters are.
        flops: arithmetic operations of one run with all symbols 1, for estimates.
    """

    name: str
    key: str
    build: Callable[[], Any]
    operands: tuple[Operand, ...]
    flops: float = 0.0


Template = Callable[[Op, Sequence[bool]], "Kernel | None"]
"""``template(op, known) -> Kernel or None``; ``known[i]``: whether operand i is there before any run (frozen weights,
and what follows from them), so that it can be packed."""
