"""Constants: weights and other arrays that a graph or program holds by reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from boundflow_core.errors import LoadError
from boundflow_core.ir.types import Attrs, DType, TensorType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from boundflow_core.ir.primal_ops import PrimalOp

__all__ = ["Constant", "Derivation", "as_numpy", "frozen", "live"]

_DTYPES: Mapping[str, DType] = {
    "float16": DType.FLOAT32,
    "bfloat16": DType.FLOAT32,
    "float32": DType.FLOAT32,
    "float64": DType.FLOAT64,
    "bool": DType.BOOL,
    **{f"{sign}int{bits}": DType.INT64 for sign in ("", "u") for bits in (8, 16, 32, 64)},
}


@dataclass(frozen=True)
class Derivation:
    """How a constant follows from others: a primal operator applied to them."""

    spec: PrimalOp
    attrs: Attrs
    inputs: tuple[Constant, ...]


@dataclass(frozen=True, eq=False)
class Constant:
    """An array held by reference.

    Attributes:
        type: its type; half precision reads as float32, small integers as int64.
        data: a NumPy array that nobody writes to, or a framework's tensor (a *live* constant, whose values may
            change between runs, as the weights of a network in training do). None for a derived constant.
        derivation: how to compute it from live constants, where it is derived.
    """

    type: TensorType
    data: Any = None
    derivation: Derivation | None = None

    @property
    def is_live(self) -> bool:
        """Whether the values may change after loading."""
        return self.derivation is not None or not isinstance(self.data, np.ndarray)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(dim) for dim in self.type.shape)  # type: ignore[arg-type]

    def numpy(self) -> NDArray[Any]:
        """The values now, as a NumPy array of ``type`` (not to be written to)."""
        if self.derivation is not None:
            from boundflow_core.ir.evaluate import evaluate_op

            inputs = [constant.numpy() for constant in self.derivation.inputs]
            values = evaluate_op(self.derivation.spec, self.derivation.attrs, inputs)
            return np.asarray(values, dtype=self.type.dtype.numpy)
        return np.asarray(as_numpy(self.data), dtype=self.type.dtype.numpy)

    def sources(self) -> tuple[Constant, ...]:
        """The underived constants that this one depends on."""
        if self.derivation is None:
            return (self,)
        return tuple(source for parent in self.derivation.inputs for source in parent.sources())

    def __repr__(self) -> str:
        kind = f"derived by {self.derivation.spec.name}" if self.derivation else ("live" if self.is_live else "frozen")
        return f"Constant({self.type}, {kind})"


def as_numpy(data: Any) -> NDArray[Any]:
    """A NumPy view or copy of an array-like or of a torch tensor on any device."""
    if type(data) is np.ndarray:
        return data
    if hasattr(data, "detach"):
        data = data.detach()
        if str(data.dtype) == "torch.bfloat16":
            data = data.float()
        data = data.cpu().numpy()
    return np.asarray(data)


def _type_of(name: str, shape: tuple[int, ...], what: str) -> TensorType:
    if name not in _DTYPES:
        raise LoadError(f"{what} has element type {name}, which is not supported")
    return TensorType(_DTYPES[name], tuple(int(dim) for dim in shape))


def frozen(array: Any, what: str = "constant") -> Constant:
    """A constant whose values never change: ``array`` is copied unless nobody can write to its memory.

    Raises:
        LoadError: unsupported element type, or a NaN (an infinity too) among float values.
    """
    values = as_numpy(array)
    kind = _type_of(str(values.dtype), values.shape, what)
    if kind.dtype.is_float and not np.isfinite(values).all():
        raise LoadError(f"{what} holds values that are not finite (NaN or infinity)")
    if values.dtype != kind.dtype.numpy or _is_writeable(values):
        values = values.astype(kind.dtype.numpy)
        values.flags.writeable = False
    return Constant(kind, values)


def _is_writeable(array: NDArray[Any]) -> bool:
    """Whether the memory of ``array`` may be written to, through it or through an array that it is a view of."""
    base: Any = array
    while isinstance(base, np.ndarray):
        if base.flags.writeable:
            return True
        base = base.base
    return False


def live(tensor: Any, what: str = "parameter") -> Constant:
    """A constant that follows ``tensor`` (a torch tensor), whose values may change between runs.

    Raises:
        LoadError: unsupported element type, or values that are not finite now.
    """
    kind = _type_of(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), what)
    if kind.dtype.is_float and not bool(np.isfinite(as_numpy(tensor)).all()):
        raise LoadError(f"{what} holds values that are not finite (NaN or infinity)")
    return Constant(kind, tensor)
