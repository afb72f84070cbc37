"""Executable legality of graphs and programs. Tests call it after every pass; each message names what is wrong."""

from __future__ import annotations

from typing import TypeGuard

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import infer_types
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_ops import infer_type
from boundflow_core.ir.program import BoundProgram, Primitive, Value
from boundflow_core.ir.types import DType, SymDim

__all__ = ["verify_graph", "verify_program"]


def verify_graph(graph: PrimalGraph) -> PrimalGraph:
    """``graph`` itself if it is legal: single assignment, definitions before uses, types, no dead node.

    Raises:
        IRError: what is wrong, and at which node.
    """
    if overlap := set(graph.constants) & {graph.input}:
        raise IRError(f"{overlap} is both the input and a constant")
    defined: dict[str, bool] = {graph.input: True, **dict.fromkeys(graph.constants, False)}
    names: set[str] = set()
    for node in graph.nodes:
        where = f"node {node.name!r} ({node.op})"
        if node.name in names:
            raise IRError(f"two nodes are named {node.name!r}")
        names.add(node.name)
        for name in node.inputs:
            if name not in defined:
                raise IRError(f"{where} reads {name!r}, which is not defined before it")
        if node.output in defined:
            raise IRError(f"{where} defines {node.output!r} a second time")
        if not node.spec.accepts(len(node.inputs)):
            raise IRError(f"{where} takes ({', '.join(node.spec.operands)}), not {len(node.inputs)} operands")
        if not any(defined[name] for name in node.inputs):
            raise IRError(f"{where} does not depend on the input: it should be a constant")
        for name, operand in zip(node.inputs, node.spec.operands, strict=False):
            if operand in node.spec.constants and defined[name]:
                raise IRError(f"{where}: operand {operand.rstrip('?')!r} must be a constant")
        if node.spec.elementwise:
            ranks = {graph.type_of(name).rank for name in node.inputs if defined[name]}
            if ranks != {node.type.rank}:
                raise IRError(f"{where}: operands of ranks {sorted(ranks)} give a result of rank {node.type.rank}")
            if wide := [name for name in node.inputs if graph.type_of(name).rank > node.type.rank]:
                raise IRError(f"{where}: {wide} have more axes than the result")
        kind = infer_type(node.spec, node.attrs, [(graph.type_of(name), defined[name]) for name in node.inputs])
        if kind != node.type:
            raise IRError(f"{where} is declared as {node.type} but gives {kind}")
        if node.op == "gather":
            places, index = graph.type_of(node.inputs[0]).shape[node.attrs["axis"]], graph.constants[node.inputs[1]]
            if not index.is_live and ((index.numpy() < 0) | (index.numpy() >= places)).any():
                raise IRError(f"{where}: indices outside 0..{places} - 1")  # NumPy and torch differ there
        defined[node.output] = True
    if not defined.get(graph.output, False):
        raise IRError(f"the output {graph.output!r} is not defined by a node or the input")
    used = {name for node in graph.nodes for name in node.inputs} | {graph.output}
    if dead := [node.name for node in graph.nodes if node.output not in used]:
        raise IRError(f"nobody reads the results of the nodes {dead}")
    if unused := set(graph.constants) - used:
        raise IRError(f"nobody reads the constants {sorted(unused)}")
    return graph


def verify_program(program: BoundProgram) -> BoundProgram:
    """``program`` itself if it is legal: single assignment, definitions before uses, types, no dead operation.

    Raises:
        IRError: what is wrong, and at which operation.
    """
    if len({value.name for value in program.inputs}) != len(program.inputs):
        raise IRError(f"two inputs of {program.name} have one name")
    defined: set[Value] = {*program.inputs, *program.constants}
    if len(defined) != len(program.inputs) + len(program.constants):
        raise IRError("a value is both an input and a constant")
    for value, constant in program.constants.items():
        both_float = value.type.dtype.is_float and constant.type.dtype.is_float
        same_kind = both_float or value.type.dtype is constant.type.dtype
        if value.shape != constant.type.shape or not same_kind:
            raise IRError(f"{value!r} holds a constant of type {constant.type}")
    dtypes = {v.type.dtype for v in defined if v.type.dtype.is_float}
    dtype = dtypes.pop() if len(dtypes) == 1 else DType.FLOAT64
    for op in program.ops:
        for value in op.inputs:
            if value not in defined:
                raise IRError(f"{op}: reads %{value.name}, which is not defined before it")
        kinds = infer_types(op.spec, [value.type for value in op.inputs], op.attrs, dtype)
        if tuple(value.type for value in op.outputs) != kinds:
            raise IRError(f"{op}: the operands give {', '.join(map(str, kinds))}")
        for value in op.outputs:
            if value in defined:
                raise IRError(f"{op}: defines %{value.name} a second time")
            defined.add(value)
        if isinstance(op.spec, Primitive) and len(op.outputs) != 1:
            raise IRError(f"{op}: a primitive has one output")
    if missing := [name for name, value in program.outputs.items() if value not in defined]:
        raise IRError(f"the outputs {missing} are not defined")
    if not program.outputs:
        raise IRError(f"{program.name} has no output")
    used = {value for op in program.ops for value in op.inputs} | set(program.outputs.values())
    for op in program.ops:
        if not used.intersection(op.outputs):
            raise IRError(f"{op}: nobody reads the result")
    if unread := [value.name for value in program.constants if value not in used]:
        raise IRError(f"nobody reads the constants {unread}")
    alone = {dim.symbols[0] for value in program.inputs for dim in value.shape if _is_symbol(dim)}
    if hidden := _symbols(program) - alone:
        raise IRError(f"the symbols {sorted(hidden)} are no dimension of an input, so no run can tell their values")
    return program


def _symbols(program: BoundProgram) -> set[str]:
    """Symbols of all shapes and attributes."""
    values = [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]
    stack: list[object] = [value.shape for value in values] + [op.attrs[key] for op in program.ops for key in op.attrs]
    found: set[str] = set()
    while stack:
        item = stack.pop()
        if isinstance(item, SymDim):
            found.update(item.symbols)
        elif isinstance(item, tuple):
            stack.extend(item)
    return found


def _is_symbol(dim: object) -> TypeGuard[SymDim]:
    return isinstance(dim, SymDim) and dim.coefficient == 1 and len(dim.symbols) == 1
