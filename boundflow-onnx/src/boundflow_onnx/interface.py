"""Inputs and outputs of ONNX networks: which value is the input, its shape, and which output is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from boundflow_core.errors import LoadError, OptionError
from boundflow_onnx.model import Model

__all__ = ["Input", "choose_output", "find_input"]

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Input:
    """The network's input, its shape with a batch axis of 1 where it has one, and whether it has."""

    name: str
    shape: tuple[int, ...]
    batch_axis: bool


def find_input(model: Model, dims: Mapping[str | int, int]) -> Input:
    """The only input that is no initializer.

    The first of two or more dimensions is the batch axis where it is symbolic, unknown or 1, and stands for 1.

    Args:
        dims: values of symbolic dimensions by name, or of any dimension by the number of its axis.

    Raises:
        LoadError: not one input, one that is no float tensor, or a dimension without a value.
        OptionError: ``dims`` names a dimension that the input lacks, or gives one a value that cannot be.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if not inputs:
        raise LoadError(f"{model.file} has no input: its output is a constant")
    if len(inputs) > 1:
        names = ", ".join(f"{value.name} {_described(value)}" for value in inputs)
        raise LoadError(
            f"{model.file} has {len(inputs)} inputs ({names}), but only networks of one input are supported"
        )
    value = inputs[0]
    if not value.type.HasField("tensor_type"):
        raise LoadError(f"{model.file}: input {value.name!r} is no tensor")
    kind = value.type.tensor_type
    if kind.elem_type not in _FLOATS:
        name = onnx.TensorProto.DataType.Name(kind.elem_type)
        raise LoadError(f"{model.file}: input {value.name!r} has element type {name}; only floats can be bounded")
    if not kind.HasField("shape"):
        raise LoadError(f"{model.file}: input {value.name!r} has no shape; set it, even if with symbolic dimensions")
    shape, batch_axis = _concrete(model, value, dims)
    return Input(value.name, shape, batch_axis)


def _described(value: onnx.ValueInfoProto) -> str:
    dims = value.type.tensor_type.shape.dim
    return "[" + ", ".join(dim.dim_param or str(dim.dim_value or "?") for dim in dims) + "]"


def _concrete(model: Model, value: onnx.ValueInfoProto, dims: Mapping[str | int, int]) -> tuple[tuple[int, ...], bool]:
    declared = value.type.tensor_type.shape.dim
    symbols = [dim.dim_param for dim in declared if dim.dim_param]
    for key, size in dims.items():
        known = key in range(len(declared)) if isinstance(key, int) else key in symbols
        if not known:
            found = f"{', '.join(symbols)}" if symbols else "none with a name"
            raise OptionError(f"{model.file}: input {value.name!r} has no dimension {key!r} (it has {found})")
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise OptionError(f"{model.file}: dimension {key!r} cannot be {size!r}")
    shape: list[int] = []
    open_axes: list[int] = []
    for axis, dim in enumerate(declared):
        if axis in dims or dim.dim_param in dims:
            shape.append(dims[axis] if axis in dims else dims[dim.dim_param])
        elif dim.dim_value > 0:
            shape.append(dim.dim_value)
        else:
            if axis > 0 or len(declared) == 1:
                open_axes.append(axis)
            shape.append(1)
    if open_axes:
        axis = open_axes[0]
        key = declared[axis].dim_param or axis
        given = f'{{"{key}": 16}}' if isinstance(key, str) else f"{{{key}: 16}}"
        raise LoadError(
            f"{model.file}: dimension {key!r} of input {value.name!r} {_described(value)} has no value; "
            f"give it one, as in load(path, dims={given})"
        )
    return tuple(shape), len(shape) >= 2 and shape[0] == 1


def choose_output(model: Model, wanted: str | None) -> str:
    """Name of the value to compute: the only output, or ``wanted``, which may be any value of the graph.

    Raises:
        LoadError: several outputs to choose from.
        OptionError: no value of that name.
    """
    names = [str(value.name) for value in model.graph.output]
    if wanted is None:
        if len(names) > 1:
            raise LoadError(
                f"{model.file} has {len(names)} outputs ({', '.join(names)}); "
                f'choose one, as in load(path, output="{names[0]}")'
            )
        return names[0]
    values = {name for node in model.graph.node for name in node.output if name}
    if wanted not in values and wanted not in names:
        raise OptionError(f"{model.file} has no value {wanted!r}; its outputs are {', '.join(names)}")
    return wanted
