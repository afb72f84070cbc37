"""Memory of a program: lifetimes of its values, which of them are views of others, and which share a buffer.

A plan is made once, on symbolic shapes: which values share memory depends on lifetimes alone, so only the sizes of the
buffers are computed anew for each batch. Constants, and what follows from frozen constants alone, lie elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

from boundflow_core.errors import IRError
from boundflow_core.ir.program import BoundProgram, Op, Primitive, Value
from boundflow_core.ir.types import Dim, DType, SymDim, concrete_dim, size
from boundflow_core.planner.views import Strided, contiguous, is_channels_last, is_row_major, view_of

__all__ = [
    "ALIGNMENT",
    "BufferSpec",
    "MemoryTraits",
    "Operand",
    "StoragePlan",
    "last_uses",
    "nbytes",
    "no_workspace",
    "plan_storage",
]

ALIGNMENT = 64


Sizes = Mapping[str, int]


class Operand(NamedTuple):
    """What is known of an operand, or of the result, beforehand.

    Attributes:
        in_order: whether its elements lie in row-major order.
        channels_last: whether they do but for the axis after the first, which lies innermost.
        fixed: whether it has the same elements in every run.
    """

    in_order: bool
    channels_last: bool
    fixed: bool


Workspace = Callable[[Op, Sizes, Sequence[Operand]], int]


def no_workspace(op: Op, sizes: Sizes, operands: Sequence[Operand]) -> int:
    """Of kernels that allocate nothing but their result."""
    return 0


@dataclass(frozen=True)
class MemoryTraits:
    """What an executor's kernels can do with memory.

    Attributes:
        into: primitives and composites that write into memory given to them; others allocate their result.
        strided: whether they read views with any strides; else only contiguous ones.
        inplace: whether elementwise kernels may write onto an operand.
        arranged: primitives whose kernels write into memory with any strides.
        workspace: bytes that the kernel of an operation takes at most while it runs, beside operands and result, where
            the symbols in the shapes have these sizes and the operands, and the result after them, are such.
        working: names of the operations that ``workspace`` is asked about, others take none; None: all are.
    """

    into: frozenset[str] = frozenset()
    strided: bool = True
    inplace: bool = True
    arranged: frozenset[str] = frozenset()
    workspace: Workspace = no_workspace
    working: frozenset[str] | None = None

    def takes_workspace(self, op: Op) -> bool:
        """Whether the kernel of ``op`` may take workspace."""
        return self.workspace is not no_workspace and (self.working is None or op.name in self.working)


@dataclass(frozen=True)
class BufferSpec:
    """A piece of memory that several values use one after another.

    Attributes:
        elements: sizes of its values, of which the largest counts.
        first_def, last_use: indices of the operations that first write and last read it (-1: before the first).
        alias_group: the values that lie in it, views among them.
        planned: whether it lies in the arena; else its one value is allocated by the kernel that makes it.
    """

    index: int
    dtype: DType
    elements: tuple[Dim, ...]
    first_def: int
    last_use: int
    alias_group: tuple[Value, ...]
    planned: bool = True
    device: str = "cpu"
    layout: str = "row-major"
    alignment: int = ALIGNMENT

    def nbytes(self, sizes: Mapping[str, int]) -> int:
        return max(concrete_dim(count, sizes) for count in self.elements) * self.dtype.itemsize


@dataclass(frozen=True)
class StoragePlan:
    """Where each value lies.

    Attributes:
        buffers: all buffers.
        home: buffer of each value, by index; views are in the buffer of what they view.
        views: how each value lies in its buffer.
        lifetimes: index of the defining and of the last reading operation of each value.
        onto: results that are written onto an operand that dies there, with that operand's base.
        temporaries: bytes that are allocated for a moment at a step, from the sizes: workspace of the operation with
            that index; after the last one, the copies of the results that the caller gets.
        sizes: values of the symbols.
    """

    buffers: tuple[BufferSpec, ...]
    home: Mapping[Value, int]
    views: Mapping[Value, Strided]
    lifetimes: Mapping[Value, tuple[int, int]]
    onto: Mapping[Value, Value] = field(default_factory=dict)
    temporaries: Mapping[int, Callable[[Sizes], int]] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    def bind(self, sizes: Mapping[str, int]) -> StoragePlan:
        return replace(self, sizes=dict(sizes))

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Offset of each buffer in the arena, in bytes; -1 for one that is not planned."""
        offsets, at = [], 0
        for buffer in self.buffers:
            offsets.append(at if buffer.planned else -1)
            at += _aligned(buffer.nbytes(self.sizes), buffer.alignment) if buffer.planned else 0
        return tuple(offsets)

    @cached_property
    def arena_bytes(self) -> int:
        """Size of the one allocation that the planned buffers share."""
        return sum(_aligned(b.nbytes(self.sizes), b.alignment) for b in self.buffers if b.planned)

    @cached_property
    def peak_bytes(self) -> int:
        """The arena and the most that kernels' own results and temporaries take beside it at any time."""
        own = [(b.first_def, b.last_use, b.nbytes(self.sizes)) for b in self.buffers if not b.planned]
        steps = {first for first, _, _ in own} | set(self.temporaries)
        beside = [
            sum(count for first, last, count in own if first <= step <= last) + self.temporary_bytes(step)
            for step in steps
        ]
        return self.arena_bytes + max(beside, default=0)

    def temporary_bytes(self, step: int) -> int:
        """What is allocated for a moment at ``step``."""
        return self.temporaries[step](self.sizes) if step in self.temporaries else 0

    @property
    def naive_bytes(self) -> int:
        """One buffer per value."""
        return sum(concrete_dim(size(v.shape), self.sizes) * v.type.dtype.itemsize for v in self.home)

    def validate(self) -> StoragePlan:
        """The plan itself if no two values that are alive together share memory without one being a view of the other.

        Raises:
            IRError: which values overlap.
        """
        ends = _group_ends(self.views, self.lifetimes)
        for buffer in self.buffers:
            roots = [value for value in buffer.alias_group if self.views[value].base is value]
            spans = sorted(((self.lifetimes[root][0], ends[root], root) for root in roots), key=lambda span: span[:2])
            for (_, end, one), (start, _, other) in pairwise(spans):
                if start < end or (start == end and self.onto.get(other) is not one):
                    raise IRError(f"%{one.name} and %{other.name} are alive together in buffer {buffer.index}")
            for root in roots:
                if size(root.shape) not in buffer.elements or root.type.dtype is not buffer.dtype:
                    raise IRError(f"%{root.name} does not fit into buffer {buffer.index}")
        return self


def _aligned(count: int, alignment: int) -> int:
    return -(-count // alignment) * alignment


def nbytes(value: Value, sizes: Mapping[str, int]) -> int:
    """Size of ``value`` in bytes."""
    return concrete_dim(size(value.shape), sizes) * value.type.dtype.itemsize


def last_uses(program: BoundProgram) -> dict[Value, int]:
    """Index of the last operation that reads each value; outputs live to the end."""
    last = {value: index for index, op in enumerate(program.ops) for value in op.inputs}
    return {**last, **dict.fromkeys(program.outputs.values(), len(program.ops))}


def plan_storage(
    program: BoundProgram,
    skip: frozenset[Value],
    traits: MemoryTraits,
    *,
    reuse: bool = True,
    lasting: frozenset[Value] = frozenset(),
) -> StoragePlan:
    """Places the values of ``program``.

    Args:
        skip: values that lie elsewhere: constants and what is computed from them beforehand.
        traits: what the kernels can do.
        reuse: whether buffers are shared and operations may write onto their operands.
        lasting: values that later runs, of a loop, read again: they live to the end. Operations that make such values
            or lead to them come first, and are not run again; inputs live until the others begin, which loops write to.
    """
    last = {**last_uses(program), **dict.fromkeys(lasting, len(program.ops))}
    if lasting:
        begin = max((index for index, op in enumerate(program.ops) if not lasting.isdisjoint(op.outputs)), default=-1)
        last.update((value, max(last.get(value, -1), begin)) for value in program.inputs)
    views: dict[Value, Strided] = {value: contiguous(value) for value in program.inputs}
    lifetimes: dict[Value, tuple[int, int]] = {value: (-1, last.get(value, -1)) for value in program.inputs}
    kernel_made: set[Value] = set()
    temporaries: dict[int, Callable[[Sizes], int]] = {len(program.ops): partial(_copies, program)}
    readers = _readers(program)
    for index, op in enumerate(program.ops):
        for value in op.outputs:
            if value in skip:
                continue
            seen = view_of(op, views, strided=traits.strided)
            if seen is None and op.name not in traits.into:
                kernel_made.add(value)
            if seen is None and traits.takes_workspace(op):
                views[value] = _arranged(op, value, readers[value], traits)
                operands = [_operand(program, operand, views, skip) for operand in (*op.inputs, value)]
                temporaries[index] = partial(_workspace, traits, op, operands)
            views[value] = seen or _arranged(op, value, readers[value], traits)
            lifetimes[value] = (index, last.get(value, index))
    ends = _group_ends(views, lifetimes)
    onto = _written_onto(program, views, ends, traits, kernel_made) if reuse else {}
    placed = _placed(views, lifetimes, ends, onto, kernel_made, reuse=reuse)
    return replace(placed, temporaries=temporaries)


def _operand(program: BoundProgram, value: Value, views: Mapping[Value, Strided], skip: frozenset[Value]) -> Operand:
    constant = program.constants.get(value)
    return Operand(
        in_order=value not in views or is_row_major(value, views[value]),
        channels_last=value in views and is_channels_last(value, views[value]),
        fixed=value in skip and not (constant is not None and constant.is_live),
    )


def _workspace(traits: MemoryTraits, op: Op, operands: Sequence[Operand], sizes: Sizes) -> int:
    return traits.workspace(op, sizes, operands)


def _copies(program: BoundProgram, sizes: Sizes) -> int:
    return sum(nbytes(value, sizes) for value in program.outputs.values())


def _readers(program: BoundProgram) -> Mapping[Value, list[Op | None]]:
    """The operations that read each value, and None for the caller."""
    readers: dict[Value, list[Op | None]] = {value: [] for op in program.ops for value in (*op.inputs, *op.outputs)}
    for op in program.ops:
        for value in op.inputs:
            readers[value].append(op)
    for value in program.outputs.values():
        readers.setdefault(value, []).append(None)
    return readers


def _arranged(op: Op, value: Value, readers: Sequence[Op | None], traits: MemoryTraits) -> Strided:
    """Row-major, but channels last where nobody reads [N, C, H, W] otherwise: then the next reshape is a view."""
    if op.name not in traits.arranged or not readers:
        return contiguous(value)
    if not all(reader and reader.name == "permute" and reader.attrs["axes"] == (0, 2, 3, 1) for reader in readers):
        return contiguous(value)
    _, c, h, w = value.shape
    return Strided(value, (h * w * c, 1, w * c, c))


def _group_ends(views: Mapping[Value, Strided], lifetimes: Mapping[Value, tuple[int, int]]) -> dict[Value, int]:
    """Last use of each root, its views included."""
    ends: dict[Value, int] = {}
    for value, view in views.items():
        ends[view.base] = max(ends.get(view.base, -1), lifetimes[value][1])
    return ends


def _written_onto(
    program: BoundProgram,
    views: Mapping[Value, Strided],
    ends: Mapping[Value, int],
    traits: MemoryTraits,
    kernel_made: set[Value],
) -> dict[Value, Value]:
    """For each elementwise result that may overwrite an operand, that operand's root."""
    onto: dict[Value, Value] = {}
    if not traits.inplace:
        return onto
    for index, op in enumerate(program.ops):
        if not isinstance(op.spec, Primitive) or op.spec.kind != "elementwise" or op.name not in traits.into:
            continue
        (out,) = op.outputs
        if out not in views:
            continue
        for operand in op.inputs:
            if _may_overwrite(operand, op, index, views, ends, kernel_made):
                onto[out] = views[operand].base
                break
    return onto


def _may_overwrite(
    operand: Value,
    op: Op,
    index: int,
    views: Mapping[Value, Strided],
    ends: Mapping[Value, int],
    kernel_made: set[Value],
) -> bool:
    """The operand fills its buffer in order, has the result's type, dies here, and is read in no other arrangement."""
    if operand not in views:
        return False
    view, root = views[operand], views[operand].base
    if operand.type != op.outputs[0].type or root.type.dtype is not operand.type.dtype or root in kernel_made:
        return False
    if ends[root] != index or view.strides != contiguous(operand).strides or size(root.shape) != size(operand.shape):
        return False
    # Of the same shape too: a slice that is broadcast would be read again after its elements are overwritten.
    others = [value for value in op.inputs if value in views and value is not operand and views[value].base is root]
    return all((other.shape, views[other]) == (operand.shape, view) for other in others)


def _placed(
    views: Mapping[Value, Strided],
    lifetimes: Mapping[Value, tuple[int, int]],
    ends: Mapping[Value, int],
    onto: Mapping[Value, Value],
    kernel_made: set[Value],
    *,
    reuse: bool,
) -> StoragePlan:
    chains = _chains([value for value, view in views.items() if view.base is value], onto)
    spans = [(chain, lifetimes[chain[0]][0], ends[chain[-1]]) for chain in chains]
    groups: list[list[tuple[Sequence[Value], int, int]]] = []
    taken: list[list[tuple[int, int]]] = []  # the lives in each group, in order
    pools: dict[tuple[object, ...], list[int]] = {}
    # Large ones first: each takes the first buffer of its class that is free throughout its life.
    for chain, start, end in sorted(spans, key=lambda span: (-_coefficient(span[0][0]), span[1])):
        key = (chain[0].type.dtype, _symbols(chain[0]), chain[0] in kernel_made)
        pool = pools.setdefault(key, [])
        shares = reuse and chain[0] not in kernel_made
        fit = next((g for g in pool if _is_free(taken[g], start, end)), None) if shares else None
        if fit is None:
            fit = len(groups)
            pool.append(fit)
            groups.append([])
            taken.append([])
        groups[fit].append((chain, start, end))
        insort(taken[fit], (start, end))
    members_of: dict[Value, list[Value]] = {}
    for value, view in views.items():
        members_of.setdefault(view.base, []).append(value)
    home: dict[Value, int] = {}
    buffers = []
    for index, members in enumerate(groups):
        roots = [root for chain, _, _ in members for root in chain]
        group = tuple(value for root in roots for value in members_of[root])
        home.update(dict.fromkeys(group, index))
        buffers.append(
            BufferSpec(
                index=index,
                dtype=roots[0].type.dtype,
                elements=tuple(dict.fromkeys(size(root.shape) for root in roots)),
                first_def=min(start for _, start, _ in members),
                last_use=max(end for _, _, end in members),
                alias_group=group,
                planned=roots[0] not in kernel_made,
            )
        )
    ordered = {value: home[value] for value in views}
    return StoragePlan(tuple(buffers), ordered, dict(views), dict(lifetimes), dict(onto))


def _is_free(taken: Sequence[tuple[int, int]], start: int, end: int) -> bool:
    """Whether the life from ``start`` to ``end`` meets none of those ``taken``, which are in order and do not meet."""
    after = bisect_left(taken, (start, start))
    return (after == len(taken) or end < taken[after][0]) and (after == 0 or taken[after - 1][1] < start)


def _chains(roots: Sequence[Value], onto: Mapping[Value, Value]) -> list[list[Value]]:
    """Roots that follow each other in one place because each is written onto the one before."""
    next_of = {before: after for after, before in onto.items()}
    starts = [root for root in roots if root not in onto]
    chains = []
    for start in starts:
        chain = [start]
        while chain[-1] in next_of:
            chain.append(next_of[chain[-1]])
        chains.append(chain)
    return chains


def _coefficient(value: Value) -> int:
    count = size(value.shape)
    return count if isinstance(count, int) else count.coefficient


def _symbols(value: Value) -> tuple[str, ...]:
    count = size(value.shape)
    return count.symbols if isinstance(count, SymDim) else ()
