"""The torch frontend: a module, by way of torch.export, to a graph. Torch is imported only when something is loaded.

torch.export traces the module into ATen operators. Of those, only what mutates is rewritten (functionalization), and
what has no converter is decomposed, so that layers stay whole.

Floating-point parameters and buffers are held by reference: bounds follow a training step without loading again, also
through what is derived from them. Buffers of integers and bools (masks, indices) and tensors that are neither parameter
nor buffer are taken as they are now, as are the shapes.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.errors import IRError, LoadError, UnsupportedOpError
from boundflow_core.frontends.aten import Call, Converter, Refused, converter_for
from boundflow_core.frontends.torch_program import EFFECTS, FLOATS, import_torch, program_of
from boundflow_core.ir.constants import Constant, frozen, live
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder, Tensor
from boundflow_core.normalize import normalize

__all__ = ["load_module"]

_WHERE = "the torch.export frontend"
_ADD_RULE = (
    "pass converters={{{name!r}: convert}}, where convert(call, *args, **kwargs) writes it with call.g "
    "(boundflow_core.frontends.aten has examples)"
)


def load_module(
    module: Any,
    example_inputs: Any = None,
    *,
    batch_axis: bool = True,
    name: str | None = None,
    converters: Mapping[str, Converter] | None = None,
) -> PrimalGraph:
    """The graph of a torch module in eval mode; the module's own training flags are left as they were.

    Args:
        module: a ``torch.nn.Module`` with one input and one output, or an ``ExportedProgram`` of one.
        example_inputs: ``(x,)``, a float32 or float64 tensor [N, *sample], of which the first sample's shape is
            used. An ExportedProgram needs none.
        batch_axis: whether the first axis of the input counts samples. Without, all of ``x`` is one sample.
        name: the graph's name; by default the module's class.
        converters: further converters by operator ("mylib.op" or "aten.op.overload"), which precede the known ones.

    Returns:
        The normalized graph. Float parameters and buffers are live constants: the module's own tensors.

    Raises:
        LoadError: torch is missing, the inputs do not fit, the module cannot be exported, or weights are not finite.
        UnsupportedOpError: an operator has no converter, or is used in a way that none can express.
    """
    title = name or ("exported" if type(module).__name__ == "ExportedProgram" else type(module).__name__)
    table = dict(converters or {})
    program, tensors = program_of(module, example_inputs, batch_axis, title, table)
    graph = _Translation(import_torch(), program, tensors, table, title).graph()
    return normalize(graph, batch_axis=batch_axis)


# -- translating ------------------------------------------------------------------------------------------------------


@dataclass
class _Translation:
    """The walk over an exported program.

    ``values`` holds what each node of it gives: an Operand; a torch tensor, where it follows from constants that never
    change (computed by torch itself); or a tuple of these, or None for a result that cannot be had.
    """

    torch: Any
    program: Any
    tensors: Mapping[str, Any]
    converters: Mapping[str, Converter]
    title: str
    values: dict[Any, Any] = field(default_factory=dict)

    def graph(self) -> PrimalGraph:
        nodes = list(self.program.graph.nodes)
        inputs = [node for node in nodes if node.name in self.program.graph_signature.user_inputs]
        if len(inputs) != 1:
            raise LoadError(
                f"{self.title} has {len(inputs)} inputs; wrap it in a module that takes one tensor, "
                "which holds the others as buffers"
            )
        self._check_dtype(inputs[0])
        g = PrimalBuilder(self.title, inputs[0].name, _shape_of(inputs[0]))
        self.values[inputs[0]] = g.input
        for node in nodes:
            if node.op == "call_function":
                with g.at(node.name):
                    self.values[node] = self._result(g, node)
        return self._finished(g)

    def _finished(self, g: PrimalBuilder) -> PrimalGraph:
        names = self.program.graph_signature.user_outputs
        if len(names) != 1:
            raise LoadError(f"{self.title} has {len(names)} outputs; wrap it in a module that returns one tensor")
        output = next((value for node, value in self.values.items() if node.name == names[0]), None)
        if not isinstance(output, Tensor):
            raise LoadError(f"the output of {self.title} does not depend on its input")
        return g.finish(output)

    # -- operands

    def _value(self, node: Any) -> Any:
        if node.op == "placeholder" and node not in self.values:
            self.values[node] = self._held(node)
        return self.values.get(node)

    def _held(self, node: Any) -> Any:
        """A parameter, buffer or lifted constant. Only what is used is looked at."""
        spec = next(s for s in self.program.graph_signature.input_specs if getattr(s.arg, "name", None) == node.name)
        tensor = self.tensors.get(spec.target)
        if not isinstance(tensor, self.torch.Tensor):
            raise LoadError(f"{self.title} holds {spec.target!r}, which is no tensor")
        if spec.kind.name == "CONSTANT_TENSOR" or not (tensor.is_floating_point() or tensor.is_complex()):
            return tensor.detach().clone()
        if str(tensor.dtype) not in FLOATS:
            raise LoadError(
                f"{spec.target!r} has element type {tensor.dtype}; convert the module by .float() or .double()"
            )
        return live(tensor, f"{spec.kind.name.lower()} {spec.target!r}")

    def _operands(self, node: Any, *, frozen_too: bool) -> tuple[Any, Any]:
        from torch.fx.node import map_arg

        def of(argument: Any) -> Any:
            value = self._value(argument)
            if value is None:
                raise Refused(f"its operand {argument.name!r} is not among the results that can be had (values only)")
            if frozen_too and isinstance(value, self.torch.Tensor):
                value = frozen(value, f"constant {argument.name!r}")
            return value

        return map_arg(node.args, of), map_arg(node.kwargs, of)

    # -- operators

    def _result(self, g: PrimalBuilder, node: Any) -> Any:
        op = str(node.target)
        if op.startswith(EFFECTS):
            return None
        try:
            if node.target is operator.getitem:
                return self._value(node.args[0])[node.args[1]]
            if not any(_is_operand(self._value(parent)) for parent in node.all_input_nodes):
                return self._computed(node, op)
            return self._converted(g, node, op)
        except (Refused, IRError) as error:
            raise UnsupportedOpError(op, _place(node), _WHERE, str(error)) from error

    def _computed(self, node: Any, op: str) -> Any:
        """An operator on constants that never change (a mask, an index, a creation): what torch says."""
        if not isinstance(node.target, self.torch._ops.OpOverload):
            raise Refused("control flow and other operators of higher order have no counterpart")
        if self.torch.Tag.nondeterministic_seeded in node.target.tags:
            raise Refused("random numbers make the network no function")
        args, kwargs = self._operands(node, frozen_too=False)
        with self.torch.no_grad():
            result = node.target(*args, **kwargs)
            # What was never written to must not be left to chance.
            return self.torch.zeros_like(result) if op.startswith("aten.empty") else result

    def _converted(self, g: PrimalBuilder, node: Any, op: str) -> Any:
        self._check_dtype(node)
        convert = converter_for(op, self.converters)
        if convert is None:
            packet = op.rpartition(".")[0] if op.count(".") > 1 else op
            raise UnsupportedOpError(op, _place(node), _WHERE, _ADD_RULE.format(name=packet))
        args, kwargs = self._operands(node, frozen_too=True)
        result = convert(Call(g, _shape_of(node)), *args, **kwargs)
        _check_shapes(node, op, result)
        return result

    def _check_dtype(self, node: Any) -> None:
        for value in _metas(node):
            kind = str(getattr(value, "dtype", FLOATS[0]))
            if kind in ("torch.float16", "torch.bfloat16") or kind.startswith("torch.complex"):
                raise LoadError(
                    f"{node.name!r} has element type {kind}; convert the module by .float() or .double() "
                    "(complex numbers are not supported)"
                )
        first = _metas(node)[0]
        if str(first.dtype) not in FLOATS:
            raise Refused(f"its result has element type {first.dtype}, which depends on the input in steps")


def _is_operand(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(_is_operand(part) for part in value)
    return isinstance(value, (Tensor, Constant))


def _metas(node: Any) -> Sequence[Any]:
    value = node.meta.get("val")
    return value if isinstance(value, (list, tuple)) else (value,)


def _shape_of(node: Any) -> tuple[int, ...]:
    dims = tuple(_metas(node)[0].shape)
    if not all(isinstance(dim, int) for dim in dims):
        raise LoadError(f"{node.name!r} has a shape that depends on values: {list(dims)}")
    return dims


def _check_shapes(node: Any, op: str, result: Any) -> None:
    """A converter's result must have the shapes that torch worked out."""
    results = result if isinstance(result, tuple) else (result,)
    for made, meta in zip(results, _metas(node), strict=False):
        if made is not None and made.shape != tuple(meta.shape):
            raise IRError(
                f"its converter gives shape {list(made.shape)}, but torch {list(meta.shape)}: a bug of the converter"
            )


def _place(node: Any) -> str:
    """Name of the node, with the path and class of the innermost module that it comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return str(node.name)
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else kind.__qualname__
    return f"{node.name} in {path or 'the module itself'} ({kind.rpartition('.')[2]})"
