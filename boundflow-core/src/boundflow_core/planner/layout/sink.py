"""Moves rearrangements of elements downwards through the operations that can do without them, until they cancel.

Permutations and reshapes are put off: a value is known by its :class:`Form`, and operations with a rule in
``CARRY_RULES`` work on the base of the form. What needs its operands as they are (convolutions, windows, composites,
results) has them written before it; most often nothing is left to write then.

A part of the program is changed only where it has fewer layout operations afterwards, or as many but fewer that copy.
These numbers fall with every round, so that this ends; and a second run changes nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from boundflow_core.ir.program import BoundProgram, Op, Primitive, Value
from boundflow_core.planner.layout.carry import carry_rule, written
from boundflow_core.planner.layout.forms import Form, whole
from boundflow_core.planner.layout.local import LOCAL_RULES, emit_layout
from boundflow_core.planner.rewrite import Rewriter, begin

__all__ = ["layout_ops", "sink_everywhere", "sink_layout"]


NOTHING = (0, 0)


def layout_ops(program: BoundProgram) -> tuple[Op, ...]:
    """The layout operations that a run of ``program`` executes: all but those on frozen constants alone."""
    return tuple(op for op in running_ops(program) if isinstance(op.spec, Primitive) and op.spec.kind == "layout")


def running_ops(program: BoundProgram) -> tuple[Op, ...]:
    """The operations that are not computed before any run."""
    settled = {value for value, constant in program.constants.items() if not constant.is_live}
    running = []
    for op in program.ops:
        if settled.issuperset(op.inputs):
            settled.update(op.outputs)
        else:
            running.append(op)
    return tuple(running)


def sink_layout(program: BoundProgram) -> BoundProgram:
    """``program`` with rearrangements moved to where they cancel; itself where nothing is gained."""
    while (better := _round(program)) is not None:
        program = better
    return program


def _round(program: BoundProgram) -> BoundProgram | None:
    """``program`` with fewer layout operations, if there is such."""
    parts = _parts(program)
    before = _costs(program, parts)
    # Moving reshapes too sometimes gains more, and sometimes less, as a reshape before a value of many readers is one.
    tried = [_gained(program, parts, before, reshapes=reshapes) for reshapes in (False, True)] if before else []
    better = [found for found in tried if found is not None and _is_better(found, program)]
    return min(better, key=_cost, default=None)


def _gained(
    program: BoundProgram, parts: Mapping[Value, int], before: Mapping[int, tuple[int, int]], *, reshapes: bool
) -> BoundProgram | None:
    """``program`` with the rules applied in those of its parts that gain by it."""
    trial, owner = _sunk(program, parts, before, reshapes=reshapes)
    after = _costs(trial, owner)
    gaining = {part for part in before if after.get(part, NOTHING) < before[part]}
    if gaining and gaining != set(before):
        trial, _ = _sunk(program, parts, gaining, reshapes=reshapes)
    return trial if gaining else None


def _costs(program: BoundProgram, parts: Mapping[Value, int]) -> dict[int, tuple[int, int]]:
    """For each part with layout operations their number, and how many of them are no reshapes, which seldom copy."""
    costs: dict[int, tuple[int, int]] = {}
    for op in layout_ops(program):
        part = parts[op.outputs[0]]
        total, copying = costs.get(part, NOTHING)
        costs[part] = (total + 1, copying + (op.name != "reshape"))
    return costs


def sink_everywhere(program: BoundProgram) -> BoundProgram:
    """``program`` with every rule applied wherever it can be, whether or not that gains anything."""
    parts = _parts(program)
    return _sunk(program, parts, set(parts.values()), reshapes=True)[0]


def _is_better(new: BoundProgram, old: BoundProgram) -> bool:
    """Fewer layout operations, or as many but fewer that copy, and no more work."""
    return _cost(new) < _cost(old) and _contractions(new) <= _contractions(old)


def _cost(program: BoundProgram) -> tuple[int, int]:
    return _costs(program, defaultdict(int)).get(0, NOTHING)


def _contractions(program: BoundProgram) -> int:
    return sum(not isinstance(op.spec, Primitive) or op.spec.kind == "contraction" for op in running_ops(program))


def _ends_here(op: Op) -> bool:
    """Whether no rearrangement gets past ``op``: rules use it up at most."""
    return carry_rule(op) is None or (op.name == "matmul" and op.outputs[0].rank == 2)


def _parts(program: BoundProgram) -> dict[Value, int]:
    """A number for each value: the same for those between which a rearrangement may move."""
    parent: dict[Value, Value] = {}

    def find(value: Value) -> Value:
        while parent.setdefault(value, value) is not value:
            parent[value] = value = parent[parent[value]]
        return value

    for op in program.ops:
        if carry_rule(op) is None:
            continue
        varying = [value for value in op.inputs if value not in program.constants]
        # Factors of a product follow each other's order, even where their product does not.
        joined = varying if _ends_here(op) else [*varying, op.outputs[0]]
        for value in joined[1:]:
            parent[find(value)] = find(joined[0])
    values = [*program.inputs, *program.constants, *(value for op in program.ops for value in op.outputs)]
    return {value: find(value).id for value in values}


def _sunk(
    program: BoundProgram, parts: Mapping[Value, int], enabled: Collection[int], *, reshapes: bool
) -> tuple[BoundProgram, dict[Value, int]]:
    """``program`` with the rules applied in the parts ``enabled``, and for which part each operation was written."""
    w, values = begin(program)
    w.moves_reshapes = reshapes
    forms: dict[Value, Form] = {}  # of what is put off; everything else is what it is in ``values``
    for op in program.ops:
        w.mark(op.origin)
        pending = any(value in forms for value in op.inputs)
        home = _home(w, op, values, forms) if _ends_here(op) else None
        w.tag = parts[home or op.outputs[0]]
        # An elementwise operation follows what is put off of its operands, if anything is.
        rule = carry_rule(op) if w.tag in enabled and (pending or not _is_elementwise(op)) else None
        form = rule(w, op, [_form(value, values, forms) for value in op.inputs]) if rule is not None else None
        if form is None:
            values.update(zip(op.outputs, _copied(w, op, values, forms, parts), strict=True))
        elif form.trivial:
            values[op.outputs[0]] = form.base
        else:
            forms[op.outputs[0]] = form
    w.mark("")
    outputs = {}
    for name, value in program.outputs.items():
        w.tag = parts[value]
        outputs[name] = written(w, _form(value, values, forms))
    tags = w.tags
    return w.finish(outputs), tags


def _is_elementwise(op: Op) -> bool:
    return isinstance(op.spec, Primitive) and op.spec.kind == "elementwise"


def _form(value: Value, values: Mapping[Value, Value], forms: Mapping[Value, Form]) -> Form:
    form = forms.get(value)
    return whole(values[value]) if form is None else form


def _home(w: Rewriter, op: Op, values: Mapping[Value, Value], forms: Mapping[Value, Form]) -> Value | None:
    """The first operand of ``op`` that is no weight."""
    return next((v for v in op.inputs if not w.is_weight(forms[v].base if v in forms else values[v])), None)


def _copied(
    w: Rewriter, op: Op, values: Mapping[Value, Value], forms: Mapping[Value, Form], parts: Mapping[Value, int]
) -> Sequence[Value]:
    """``op`` on its operands as they were."""
    operands = []
    for value in op.inputs:
        if value in forms:
            w.tag = parts[value]
            operands.append(written(w, forms[value]))
        else:
            operands.append(values[value])
    w.tag = parts[op.outputs[0]]
    if op.name in LOCAL_RULES and len(operands) == 1:
        return [emit_layout(w, op.name, operands[0], op.attrs)]
    return w.copy(op, operands)
