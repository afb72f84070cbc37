"""The scalar code of one element of a fused operation: what is loaded from where, and what is computed from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from boundflow_core.ir.types import Dim, DType, Shape, divide
from boundflow_tvm.codegen.index import Axis, Index, Opaque, Space, SplitAxis, constant, flat_address, reshaped
from boundflow_tvm.fused import CONSTANT, Step

__all__ = ["Instruction", "LoopNest", "loop_nest"]


@dataclass(frozen=True)
class Instruction:
    """One step of the scalar code.

    Attributes:
        name: a primitive, or "load" (operand ``operands[0]`` at ``index``), "constant", "number" (``index`` itself),
            or "inside" (whether ``index`` is in 0..dim-1).
        operands: numbers of the instructions that it reads.
    """

    name: str
    operands: tuple[int, ...]
    dtype: DType
    index: Index = field(default_factory=Index)
    dim: Dim = 1
    attrs: Any = ()


@dataclass(frozen=True)
class LoopNest:
    """Loops around scalar code.

    Attributes:
        extents: of the loops, outer first.
        reduced: which of them are summed (or maximized) over.
        code: the instructions; the last one is the element.
        store: address of the result.
        reduction: "reduce_sum", "reduce_max", "reduce_min"; empty without one.
    """

    extents: tuple[Dim, ...]
    reduced: frozenset[int]
    code: tuple[Instruction, ...]
    store: Index
    reduction: str = ""


@dataclass
class _Writer:
    steps: Sequence[Step]
    space: Space
    code: dict[Instruction, int] = field(default_factory=dict)
    known: dict[tuple[int, tuple[Index, ...]], int] = field(default_factory=dict)

    def add(self, instruction: Instruction) -> int:
        return self.code.setdefault(instruction, len(self.code))

    def at(self, number: int, indices: Sequence[Index]) -> int:
        """The instruction that gives element ``indices`` of step ``number``."""
        key = (number, tuple(indices))
        if key not in self.known:
            self.known[key] = self._element(self.steps[number], number, list(indices))
        return self.known[key]

    def _element(self, step: Step, number: int, indices: list[Index]) -> int:
        if not step.name:
            # the only index of an axis of size 1 is zero
            at = [Index() if dim == 1 else index for index, dim in zip(indices, step.type.shape, strict=True)]
            return self.add(Instruction("load", (number,), step.type.dtype, flat_address(at, step.type.shape)))
        if step.name == CONSTANT:
            return self.add(Instruction(CONSTANT, (), step.type.dtype, attrs=step.attrs["value"]))
        if step.name in _MOVES:
            return _MOVES[step.name](self, step, indices)
        operands = [self.at(i, _broadcast(indices, self.steps[i].type.shape)) for i in step.operands]
        return self.add(Instruction(step.name, tuple(operands), step.type.dtype, attrs=step.attrs))

    def shape(self, step: Step, operand: int = 0) -> Shape:
        return self.steps[step.operands[operand]].type.shape

    def index_of(self, number: int, position: Index) -> Index:
        """The integer at ``position`` of a vector of the body, as an index."""
        found = self.at(number, [position])
        instruction = list(self.code)[found]
        return instruction.index if instruction.name == "number" else Index.of({(Opaque("value", value=found), ()): 1})


def _broadcast(indices: Sequence[Index], shape: Shape) -> list[Index]:
    own = list(indices[len(indices) - len(shape) :])
    return [Index() if dim == 1 else index for index, dim in zip(own, shape, strict=True)]


def _reshape(w: _Writer, step: Step, indices: list[Index]) -> int:
    return w.at(step.operands[0], reshaped(w.space, indices, step.type.shape, w.shape(step)))


def _permute(w: _Writer, step: Step, indices: list[Index]) -> int:
    at = [Index()] * len(indices)
    for place, axis in enumerate(step.attrs["axes"]):
        at[axis] = indices[place]
    return w.at(step.operands[0], at)


def _spread(w: _Writer, step: Step, indices: list[Index]) -> int:
    return w.at(step.operands[0], _broadcast(indices, w.shape(step)))


def _slice(w: _Writer, step: Step, indices: list[Index]) -> int:
    rule = zip(indices, step.attrs["starts"], step.attrs["steps"], strict=True)
    return w.at(step.operands[0], [index.times(stride) + constant(start) for index, start, stride in rule])


def _clamped(index: Index, dim: Dim) -> Index:
    return Index.of({(Opaque("clamp", index, dim), ()): 1})


def _select(w: _Writer, dtype: DType, conditions: Sequence[int], value: int, other: int) -> int:
    for condition in conditions:
        value = w.add(Instruction("where", (condition, value, other), dtype))
    return value


def _pad(w: _Writer, step: Step, indices: list[Index]) -> int:
    shape = w.shape(step)
    other = w.add(Instruction(CONSTANT, (), step.type.dtype, attrs=step.attrs["value"]))
    if 0 in shape:
        return other
    at, conditions = list(indices), []
    for axis, (low, high, dim) in enumerate(zip(step.attrs["low"], step.attrs["high"], shape, strict=True)):
        if low == high == 0:
            continue
        moved = indices[axis] + constant(-low)
        conditions.append(w.add(Instruction("inside", (), DType.BOOL, moved, dim)))
        at[axis] = _clamped(moved, dim)
    return _select(w, step.type.dtype, conditions, w.at(step.operands[0], at), other)


def _concat(w: _Writer, step: Step, indices: list[Index]) -> int:
    axis = step.attrs["axis"]
    parts: list[tuple[int, Index, Dim]] = []
    start = Index()
    for place, operand in enumerate(step.operands):
        dim = w.shape(step, place)[axis]
        if dim == 0:
            continue
        parts.append((operand, indices[axis] + start.times(-1), dim))
        start = start + constant(dim)
    found = -1 if parts else w.add(Instruction(CONSTANT, (), step.type.dtype, attrs=0))
    for operand, moved, dim in reversed(parts):
        at = list(indices)
        at[axis] = _clamped(moved, dim) if len(parts) > 1 else moved
        value = w.at(operand, at)
        if found >= 0:
            found = _select(
                w, step.type.dtype, [w.add(Instruction("inside", (), DType.BOOL, moved, dim))], value, found
            )
        else:
            found = value
    return found


def _gather(w: _Writer, step: Step, indices: list[Index]) -> int:
    axis = step.attrs["axis"]
    at = list(indices)
    at[axis] = w.index_of(step.operands[1], indices[axis])
    return w.at(step.operands[0], at)


def _numbers(w: _Writer, step: Step, indices: list[Index]) -> int:
    return w.add(Instruction("number", (), DType.INT64, indices[0]))


_MOVES: Mapping[str, Callable[[_Writer, Step, list[Index]], int]] = {
    "reshape": _reshape,
    "permute": _permute,
    "broadcast": _spread,
    "slice": _slice,
    "pad": _pad,
    "concat": _concat,
    "gather_rows": _gather,
    "row_numbers": _numbers,
}


def loop_nest(steps: Sequence[Step]) -> LoopNest:
    """The loops of a body of ``steps``, with as few divisions and as few loops as its layouts allow."""
    last = steps[-1]
    reduction = last.name if last.name in ("reduce_sum", "reduce_max", "reduce_min") else ""
    root = last.operands[0] if reduction else len(steps) - 1
    splits: list[list[Dim]] = [[dim] for dim in steps[root].type.shape]
    while True:
        extents = tuple(dim for parts in splits for dim in parts)
        try:
            return _merged(_written(steps, root, splits, Space(extents), reduction))
        except SplitAxis as split:
            _split(splits, split)


def _split(splits: list[list[Dim]], split: SplitAxis) -> None:
    number = split.axis.number
    for parts in splits:
        if number < len(parts):
            parts[number : number + 1] = [divide(parts[number], split.inner), split.inner]
            return
        number -= len(parts)


def _written(
    steps: Sequence[Step], root: int, splits: Sequence[Sequence[Dim]], space: Space, reduction: str
) -> LoopNest:
    indices: list[Index] = []
    owner: list[int] = []
    for axis, parts in enumerate(splits):
        total = Index()
        for dim in parts:
            own = Index() if dim == 1 else Index.of({(Axis(len(owner)), ()): 1})
            total = total.times(dim) + own
            owner.append(axis)
        indices.append(total)
    writer = _Writer(steps, space)
    element = writer.at(root, indices)
    code = list(writer.code)
    if element != len(code) - 1:  # the element may have been computed before something that turned out not to be read
        code.append(Instruction("same", (element,), code[element].dtype))
    last = steps[-1]
    if not reduction:
        return LoopNest(space.extents, frozenset(), tuple(code), flat_address(indices, last.type.shape))
    axes = set(last.attrs["axes"])
    kept = [index for axis, index in enumerate(indices) if axis not in axes]
    shape = tuple(dim for axis, dim in enumerate(steps[root].type.shape) if axis not in axes)
    reduced = frozenset(number for number, axis in enumerate(owner) if axis in axes)
    return LoopNest(space.extents, reduced, tuple(code), flat_address(kept, shape), reduction)


def _merged(nest: LoopNest) -> LoopNest:
    """Neighbouring loops that are one loop for every address become one; loops of one step are left out."""
    extents = list(nest.extents)
    number = len(extents) - 2
    while number >= 0:
        if (number in nest.reduced) == (number + 1 in nest.reduced) and _joined(nest, extents, number):
            nest, extents = _join(nest, extents, number)
        number -= 1
    return LoopNest(tuple(extents), nest.reduced, nest.code, nest.store, nest.reduction)


def _indices_of(nest: LoopNest) -> list[Index]:
    found = [nest.store, *(instruction.index for instruction in nest.code)]
    for index in found:  # grows while it is walked
        found.extend(atom.index for (atom, _), _ in index.terms if isinstance(atom, Opaque))
    return found


def _joined(nest: LoopNest, extents: Sequence[Dim], number: int) -> bool:
    for index in _indices_of(nest):
        outer = Index.of({key: count for key, count in index.table.items() if key[0] == Axis(number)})
        inner = Index.of({key: count for key, count in index.table.items() if key[0] == Axis(number + 1)})
        moved = inner.times(extents[number + 1]).map_atoms(lambda atom: Index.of({(Axis(number), ()): 1}))
        if extents[number] == 1 or extents[number + 1] == 1:
            continue
        if outer.terms != moved.terms:
            return False
    return True


def _join(nest: LoopNest, extents: Sequence[Dim], number: int) -> tuple[LoopNest, list[Dim]]:
    """Loops ``number`` and ``number + 1`` as one, which takes the place of the inner one's variable."""
    one_step = extents[number] == 1
    inner_step = extents[number + 1] == 1

    def change(atom: Any) -> Index:
        if isinstance(atom, Axis):
            if atom.number == number:
                return Index.of({(Axis(number), ()): 1}) if inner_step and not one_step else Index()
            if atom.number == number + 1:
                return Index.of({(Axis(number), ()): 1})
            return Index.of({(Axis(atom.number - (atom.number > number)), ()): 1})
        changed = Opaque(atom.kind, atom.index.map_atoms(change), atom.dim, atom.value)
        return Index.of({(changed, ()): 1})

    code = tuple(Instruction(i.name, i.operands, i.dtype, i.index.map_atoms(change), i.dim, i.attrs) for i in nest.code)
    reduced = frozenset(axis - (axis > number) for axis in nest.reduced)
    joined = [*extents[:number], extents[number] * extents[number + 1], *extents[number + 2 :]]
    return LoopNest(tuple(joined), reduced, code, nest.store.map_atoms(change), nest.reduction), joined
