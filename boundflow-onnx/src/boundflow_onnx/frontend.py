"""The ONNX frontend: walks the nodes of a checked model and translates each by the table of converters."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from boundflow_core.errors import BoundFlowError, IRError, LoadError, OptionError, UnsupportedOpError
from boundflow_core.ir.constants import Constant
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder, Tensor
from boundflow_core.normalize import normalize
from boundflow_onnx.fold import FOLDABLE, fold
from boundflow_onnx.interface import Input, choose_output, find_input
from boundflow_onnx.model import Model, array_of, check, first_line, read_model
from boundflow_onnx.node import Converter, Known, OnnxNode, qualified
from boundflow_onnx.operators import CONVERTERS

__all__ = ["load_onnx", "read_graph"]


def load_onnx(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    dims: Mapping[str | int, int] | None = None,
    output: str | None = None,
    converters: Mapping[str, Converter] | None = None,
) -> PrimalGraph:
    """Reads an ONNX network of one input.

    A symbolic, unknown or unit first dimension of an input with two or more is the batch axis, and is not part of the
    graph's shapes; otherwise the whole input is one sample.

    Args:
        source: path of a file, or a model in memory.
        dims: values of other symbolic dimensions by name (or by the number of the axis).
        output: the value to compute, where the network has several outputs (or one of its inner values).
        converters: translations of further operators, by name ("Foo", "com.example::Foo"), which precede the known
            ones: ``converter(node)`` of an :class:`~boundflow_onnx.node.OnnxNode` writes the operator through
            ``node.g`` and gives its outputs.

    Raises:
        LoadError: no file, no valid ONNX network, weights that are not finite, or a dimension without a value.
        UnsupportedOpError: an operator that has no converter.
        OptionError: an option with an unknown name or value.
    """
    literal, found = read_graph(source, dims=dims, output=output, converters=converters)
    try:
        return normalize(literal, batch_axis=found.batch_axis)
    except IRError as error:
        raise LoadError(f"{_label(source)}: {error}") from error


def _label(source: Any) -> str:
    return os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"model {source.graph.name!r}"


def read_graph(
    source: str | os.PathLike[str] | onnx.ModelProto,
    *,
    dims: Mapping[str | int, int] | None = None,
    output: str | None = None,
    converters: Mapping[str, Converter] | None = None,
) -> tuple[PrimalGraph, Input]:
    """The network as it stands, before normalization and with its batch axis of 1; see :func:`load_onnx`."""
    if dims is not None and not isinstance(dims, Mapping):
        raise OptionError(f"dims must map names of dimensions to sizes, not {dims!r}")
    table = {**CONVERTERS, **(converters or {})}
    model = read_model(source)
    target = choose_output(model, output)
    nodes = _needed(model, target)
    try:
        _require_known(nodes, table)
        check(model)
        found = find_input(model, dims or {})
        return _Reader(model, table, found, nodes).read(target), found
    except IRError as error:
        raise LoadError(f"{model.file}: {error}") from error
    except (UnsupportedOpError, LoadError) as error:
        if not str(error).startswith(model.file):
            error.args = (f"{model.file}: {error}",)
        raise


def _node_name(proto: onnx.NodeProto) -> str:
    return proto.name or next((name for name in proto.output if name), proto.op_type)


def _needed(model: Model, target: str) -> list[onnx.NodeProto]:
    """The nodes that ``target`` depends on, in the order of the file."""
    producers = {name: node for node in model.graph.node for name in node.output if name}
    wanted: set[str] = set()
    stack = [target]
    while stack:
        name = stack.pop()
        if name and name not in wanted:
            wanted.add(name)
            stack.extend(producers[name].input if name in producers else ())
    return [node for node in model.graph.node if any(name in wanted for name in node.output)]


def _require_known(nodes: Sequence[onnx.NodeProto], table: Mapping[str, Converter]) -> None:
    """Names the first operator that nothing translates, before the checker, which would say less about it."""
    unknown = [node for node in nodes if qualified(node) not in table and qualified(node) not in FOLDABLE]
    if unknown:
        others = sorted({qualified(node) for node in unknown[1:]} - {qualified(unknown[0])})
        more = f" (nor are {', '.join(others)})" if others else ""
        op = qualified(unknown[0])
        raise UnsupportedOpError(
            op,
            _node_name(unknown[0]),
            f"the ONNX frontend{more}",
            f'give it a converter, as in load(path, converters={{"{op}": function}}), '
            "where function(node) writes it in operators of boundflow_core.ir.primal_ops",
        )


class _Reader:
    """Translates node by node; ``values`` holds what is known so far."""

    def __init__(
        self, model: Model, table: Mapping[str, Converter], found: Input, nodes: Sequence[onnx.NodeProto]
    ) -> None:
        self.model, self.table, self.nodes = model, table, nodes
        self.g = PrimalBuilder(model.graph.name or "network", found.name, found.shape)
        self.values: dict[str, Known] = {found.name: self.g.input}
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.frozen: dict[str, Constant] = {}
        self.opsets = {entry.domain: entry.version for entry in model.proto.opset_import}

    def read(self, target: str) -> PrimalGraph:
        reads = {name for node in self.nodes for name in node.input} | {target}
        for proto in self.nodes:
            name = _node_name(proto)
            opset = self.model.opset if proto.domain in ("", "ai.onnx") else self.opsets.get(proto.domain, 1)
            inputs = tuple(self._value(key) if key else None for key in proto.input)
            used = tuple(key in reads for key in proto.output)
            with self.g.at(name):
                self._store(proto, self._results(OnnxNode(self.g, proto, name, opset, inputs, used, self.frozen)))
        result = self.values.get(target)
        if not isinstance(result, Tensor):
            raise LoadError(f"{self.model.file}: output {target!r} does not depend on the input")
        return self.g.finish(result)

    def _value(self, name: str) -> Known:
        if name not in self.values:
            if name not in self.initializers:
                raise LoadError(f"{self.model.file}: value {name!r} is used, but nothing defines it")
            self.values[name] = array_of(self.model.file, self.initializers[name])
        return self.values[name]

    def _results(self, node: OnnxNode) -> Sequence[Known | None]:
        arrays = [value.numpy() if isinstance(value, Constant) else value for value in node.inputs]
        try:
            if node.op in FOLDABLE and not any(isinstance(value, Tensor) for value in arrays):
                return fold(node.proto, node.name, node.opset, arrays)  # type: ignore[arg-type]
            if node.op not in self.table:
                node.unsupported("of values that depend on the network's input", "it can only be applied to constants")
            results = self.table[node.op](node)
        except BoundFlowError:
            raise
        except (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError) as error:
            raise LoadError(f"node {node.name!r} ({node.op}) is malformed: {first_line(error)}") from error
        return [results] if isinstance(results, (Tensor, Constant, np.ndarray)) else results

    def _store(self, proto: onnx.NodeProto, results: Sequence[Known | None]) -> None:
        for key, value in zip(proto.output, results, strict=False):
            if key and value is not None:
                self.values[key] = value
