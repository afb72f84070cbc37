"""From a torch module to an exported program that the torch frontend can walk: no mutation, no shapes left open."""

from __future__ import annotations

import io
import logging
import operator
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from typing import Any

from boundflow_core.errors import LoadError
from boundflow_core.frontends.aten import Converter, converter_for

__all__ = ["EFFECTS", "FLOATS", "import_torch", "program_of"]

FLOATS = ("torch.float32", "torch.float64")
# Operators that compute nothing: checks of what holds for the example input.
EFFECTS = ("aten._assert", "aten._functional_assert", "aten._guard", "aten.sym_constrain")

_EXAMPLE = "pass example_inputs=(x,) with x of shape [N, *sample], such as torch.zeros(1, 3, 32, 32)"
_ONE_INPUT = "networks have one input here, not {}: wrap the module in one that takes one tensor and holds the others"


def import_torch() -> Any:
    """The torch package.

    Raises:
        LoadError: it is not installed.
    """
    try:
        import torch
        import torch.export
    except ImportError as error:
        raise LoadError(
            f"torch is needed to load torch modules: pip install 'boundflow-core[torch]' ({error})"
        ) from error
    return torch


def program_of(
    module: Any, example_inputs: Any, batch_axis: bool, title: str, converters: Mapping[str, Converter]
) -> tuple[Any, Mapping[str, Any]]:
    """The functional program of a module or ExportedProgram, and the tensors that it holds by name.

    Raises:
        LoadError: the inputs do not fit, or torch cannot export the module.
    """
    torch = import_torch()
    if isinstance(module, torch.export.ExportedProgram):
        program, tensors = _exported_program(torch, module, example_inputs, batch_axis, title)
    elif isinstance(module, torch.nn.Module):
        program, tensors = _export(torch, module, _sample(torch, example_inputs, batch_axis), title), _state(module)
    else:
        raise LoadError(f"{type(module).__name__} is neither a torch.nn.Module nor an ExportedProgram")
    program = _functional(torch, program, converters, title)
    return program, {**program.state_dict, **program.constants, **tensors}


# -- inputs -----------------------------------------------------------------------------------------------------------


def _sample(torch: Any, example_inputs: Any, batch_axis: bool) -> Any:
    """The tensor to export with: the first sample, as a batch of 1."""
    if example_inputs is None:
        raise LoadError(f"a torch module does not tell the shape of its input: {_EXAMPLE}")
    inputs = (example_inputs,) if isinstance(example_inputs, torch.Tensor) else example_inputs
    if not isinstance(inputs, Sequence) or not all(isinstance(x, torch.Tensor) for x in inputs):
        raise LoadError(f"example_inputs must be a tuple of one torch tensor: {_EXAMPLE}")
    if len(inputs) != 1:
        raise LoadError(
            f"networks have one input here, not {len(inputs)}: wrap the module in one that takes one tensor"
        )
    x = inputs[0]
    if str(x.dtype) not in FLOATS:
        raise LoadError(f"the example input has element type {x.dtype}; float32 and float64 are supported")
    if batch_axis and (x.dim() == 0 or x.shape[0] == 0):
        raise LoadError(f"the example input of shape {list(x.shape)} holds no sample: {_EXAMPLE}")
    return (x[:1] if batch_axis else x).detach()


def _state(module: Any) -> dict[str, Any]:
    """The module's own parameters and buffers by name, shared ones under each of their names."""
    return {
        **dict(module.named_parameters(remove_duplicate=False)),
        **dict(module.named_buffers(remove_duplicate=False)),
    }


def _exported_program(
    torch: Any, program: Any, example_inputs: Any, batch_axis: bool, title: str
) -> tuple[Any, Mapping[str, Any]]:
    """An exported program with literal shapes, exported anew for one sample where its batch is dynamic."""
    tensors = {**program.state_dict, **program.constants}
    shapes = [n.meta["val"].shape for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
    if len(shapes) != 1:
        raise LoadError(
            f"networks have one input here, not {len(shapes)}: wrap the module in one that takes one tensor"
        )
    dims = list(shapes[0])
    dynamic = [axis for axis, dim in enumerate(dims) if not isinstance(dim, int)]
    if dynamic:
        if example_inputs is None and dynamic == [0] and batch_axis:
            example_inputs = (torch.zeros([1, *dims[1:]], dtype=_user_input(program).dtype),)
        elif example_inputs is None:
            raise LoadError(f"the axes {dynamic} of the exported input have no fixed size: {_EXAMPLE}")
        return _export(torch, program.module(), _sample(torch, example_inputs, batch_axis), title), tensors
    if batch_axis and (not dims or dims[0] != 1):
        raise LoadError(
            f"{title} was exported for an input of shape {dims}; export it with a batch of 1 or a dynamic one, "
            "or pass batch_axis=False where all of it is one sample"
        )
    return program, tensors


def _user_input(program: Any) -> Any:
    return next(n for n in program.graph.nodes if n.name in program.graph_signature.user_inputs).meta["val"]


# -- exporting --------------------------------------------------------------------------------------------------------


def _export(torch: Any, module: Any, sample: Any, title: str) -> Any:
    with _eval_mode(module), _explained(f"torch.export cannot trace {title}"):
        return torch.export.export(module, (sample,), strict=False)


@contextmanager
def _eval_mode(module: Any) -> Iterator[None]:
    """Every submodule in eval mode inside, and in its own mode again afterwards."""
    before = [(part, part.training) for part in module.modules()]
    for part, _ in before:
        part.training = False
    try:
        yield
    finally:
        for part, training in before:
            part.training = training


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns torch's failures into one line, and keeps what its tracer logs and prints about them off stderr."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()) as written:
            # about a call within torch.export itself
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            yield
        sys.stderr.write(written.getvalue())
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
        raise LoadError(
            f"{what} for this input ({reason}); check the input's shape, and let no control flow depend on values"
        ) from error
    finally:
        logger.setLevel(level)


def _functional(torch: Any, program: Any, converters: Mapping[str, Converter], title: str) -> Any:
    """``program`` without mutation, where operators that have no converter are decomposed as far as torch can."""
    with _explained(f"torch cannot make {title} functional"):
        if _mutates(torch, program) or _without_converter(torch, program, converters):
            program = program.run_decompositions({})
        known: Mapping[Any, Any] = {}
        for _ in range(8):  # a decomposition may hold operators that need one in turn
            missing = _without_converter(torch, program, converters)
            if not missing:
                break
            known = known or _decompositions(torch)
            table = {op: known[op] for op in missing if op in known}
            if not table:
                break
            program = program.run_decompositions(table)
    return program


def _mutates(torch: Any, program: Any) -> bool:
    """Whether something writes in place, or holds operators inside (a region under no_grad), which may."""
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    overload = torch._ops.OpOverload
    return any(t._schema.is_mutable if isinstance(t, overload) else t is not operator.getitem for t in calls)


def _decompositions(torch: Any) -> Mapping[Any, Any]:
    if hasattr(torch.export, "default_decompositions"):
        return dict(torch.export.default_decompositions())
    from torch._decomp import core_aten_decompositions

    return dict(core_aten_decompositions())


def _without_converter(torch: Any, program: Any, converters: Mapping[str, Converter]) -> list[Any]:
    depends: set[Any] = set()
    missing = []
    for node in program.graph.nodes:
        if node.op == "placeholder" or any(parent in depends for parent in node.all_input_nodes):
            depends.add(node)
            overload = isinstance(node.target, torch._ops.OpOverload) and not str(node.target).startswith(EFFECTS)
            if overload and converter_for(str(node.target), converters) is None and node.target not in missing:
                missing.append(node.target)
    return missing
