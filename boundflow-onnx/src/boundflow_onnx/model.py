"""Reading of ONNX files: from a path to a checked model with all its data, or one clear error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.external_data_helper
import onnx.inliner
import onnx.numpy_helper
from numpy.typing import NDArray

from boundflow_core.errors import LoadError

__all__ = ["OPSETS", "Model", "array_of", "read_model"]

OPSETS = range(8, 22)
_DEFAULT_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class Model:
    """A checked model.

    Attributes:
        file: its name, for messages.
        path: where it lies; None for a model in memory.
        proto: the model, functions inlined, external data read.
        opset: version of the standard operators.
    """

    file: str
    path: Path | None
    proto: onnx.ModelProto
    opset: int

    @property
    def graph(self) -> onnx.GraphProto:
        return self.proto.graph


def read_model(source: str | os.PathLike[str] | onnx.ModelProto) -> Model:
    """The model in a file (with external data beside it), or one in memory.

    Raises:
        LoadError: no such file, no ONNX model, a damaged one, or an opset that is not supported.
    """
    if isinstance(source, onnx.ModelProto):
        proto = onnx.ModelProto()
        proto.CopyFrom(source)
        file, path = f"model {source.graph.name!r}", None
    else:
        path = Path(source)
        file, proto = str(path), _parsed(path)
    if not proto.HasField("graph") or not proto.graph.output:
        raise LoadError(f"{file} is no ONNX network: it holds no graph with an output")
    opset = _opset(file, proto)
    if proto.functions:
        proto = _inlined(file, proto)
    _read_external(file, proto, path.parent if path is not None else None)
    return Model(file, path, proto, opset)


def check(model: Model) -> None:
    """Runs ONNX's own checker.

    An output's shape may be missing, as runtimes allow: the checker is shown one, which nothing reads.

    Raises:
        LoadError: the model breaks the rules of ONNX.
    """
    for value in model.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    # What is too large for one message of protobuf can only be checked where it lies.
    large = model.path is not None and model.proto.ByteSize() >= onnx.checker.MAXIMUM_PROTOBUF
    try:
        onnx.checker.check_model(str(model.path) if large else model.proto)
    except Exception as error:  # the checker raises ValidationError, ValueError, and errors of protobuf
        raise LoadError(f"{model.file} is no valid ONNX network: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error of another library says, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(".: ") or type(error).__name__


def _parsed(path: Path) -> onnx.ModelProto:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LoadError(f"cannot read {path}: {error.strerror or error}") from error
    if not data:
        raise LoadError(f"{path} is no ONNX network: the file is empty")
    if data[:2] == b"\x1f\x8b":
        raise LoadError(f"{path} is compressed by gzip; unpack it first")
    if data.startswith(b"version https://git-lfs"):
        raise LoadError(f"{path} is a pointer of Git LFS, not the network itself; fetch it by 'git lfs pull'")
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except Exception as error:  # DecodeError, whose home differs between versions of protobuf
        raise LoadError(f"{path} is no ONNX network, or is damaged (it cannot be decoded)") from error
    return proto


def _opset(file: str, proto: onnx.ModelProto) -> int:
    versions = {entry.version for entry in proto.opset_import if entry.domain in _DEFAULT_DOMAINS}
    if not versions:
        raise LoadError(f"{file} does not say which ONNX operator set it uses: it is damaged or no ONNX network")
    version = max(versions)
    if version not in OPSETS:
        raise LoadError(
            f"{file} uses ONNX operator set {version}; supported are {OPSETS[0]} to {OPSETS[-1]}: convert it by "
            f"onnx.version_converter.convert_version(model, {min(max(version, OPSETS[0]), OPSETS[-1])})"
        )
    return int(version)


def _inlined(file: str, proto: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.inliner.inline_local_functions(proto)
    except Exception as error:
        raise LoadError(f"{file}: its functions cannot be inlined: {first_line(error)}") from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _read_external(file: str, proto: onnx.ModelProto, folder: Path | None) -> None:
    """Reads the tensors that the model keeps in files beside it into the model."""
    for tensor in _tensors(proto.graph):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        info = {entry.key: entry.value for entry in tensor.external_data}
        location = info.get("location", "")
        if folder is None:
            raise LoadError(f"{file}: tensor {tensor.name!r} is in a file {location!r}; load the model from its path")
        if not location or not (folder / location).is_file():
            raise LoadError(f"{file}: the file {location!r} with the data of tensor {tensor.name!r} is missing")
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(folder))
        except Exception as error:
            raise LoadError(
                f"{file}: the data of tensor {tensor.name!r} cannot be read from {location!r}: {first_line(error)}"
            ) from error
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def array_of(file: str, tensor: onnx.TensorProto) -> NDArray[Any]:
    """The values of a tensor; bfloat16 and 8-bit floats as float32.

    Raises:
        LoadError: a damaged tensor, or one of strings or complex numbers.
    """
    kind = onnx.TensorProto.DataType.Name(tensor.data_type)
    if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        raise LoadError(f"{file}: tensor {tensor.name!r} holds {kind}, which is not supported")
    try:
        array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:
        raise LoadError(f"{file}: tensor {tensor.name!r} ({kind}) is damaged: {first_line(error)}") from error
    if array.dtype.kind not in "fiub":
        array = array.astype(np.float32)
    return np.asarray(array)
