"""What a description of a plan holds: the keys of ``boundflow plan --json``.

Everything is numbers, names and lists, so that it can be stored, compared and drawn without the program. Values go by
their names in the program, operations by their step: the index at which they run. Step -1 is before the first one, when
the inputs are there, and the number of operations is the step after the last, when the results are read.
"""

from __future__ import annotations

from typing import TypedDict

__all__ = [
    "BufferEntry",
    "ChunkEntry",
    "EdgeEntry",
    "LayoutEntry",
    "LoweringEntry",
    "LoweringRow",
    "MemoryStep",
    "OpEntry",
    "PlanDescription",
    "StageEntry",
    "StorageEntry",
    "TaskEntry",
    "ValueEntry",
    "ValueLayoutEntry",
]


class ValueEntry(TypedDict):
    """A value in memory, alive from ``first_def`` to ``last_use``.

    ``view_of`` names the value in whose memory it lies in its own arrangement, ``written_onto`` the one whose memory it
    takes over because it dies there; both are None for a value that begins a piece of memory.
    """

    name: str
    type: str
    bytes: int
    first_def: int
    last_use: int
    view_of: str | None
    written_onto: str | None


class BufferEntry(TypedDict):
    """Memory that ``values`` use one after another; ``offset`` in the arena, None where a kernel allocates it."""

    index: int
    bytes: int
    dtype: str
    offset: int | None
    planned: bool
    first_def: int
    last_use: int
    values: list[ValueEntry]


class OpEntry(TypedDict):
    """An operation and how it runs.

    ``memory`` says where its result lies: "arena", "in place" (onto an operand that dies), "view" (nothing is written),
    "own" (the kernel allocates it) or "beforehand" (computed once, when the plan is prepared).
    """

    step: int
    name: str
    origin: str
    inputs: list[str]
    outputs: list[str]
    type: str
    memory: str
    strategy: str
    kernel: str
    reason: str


class TaskEntry(TypedDict):
    """A task; ``stage`` is empty if it runs only once, when the plan is prepared. ``bytes_out``: what it hands on."""

    name: str
    kind: str
    depends: list[str]
    stage: str
    inputs: list[str]
    outputs: list[str]
    bytes_out: int
    ops: list[OpEntry]


class EdgeEntry(TypedDict):
    producer: str
    consumer: str
    value: str
    bytes: int


class StageEntry(TypedDict):
    """Tasks that run again together or not at all; ``keeps`` is what is stored if it is ``cached``."""

    name: str
    depends: list[str]
    tasks: list[str]
    keeps: list[str]
    bytes_kept: int
    cached: bool


class MemoryStep(TypedDict):
    """Memory while one step runs.

    ``arena_used``: bytes of the arena that hold a value alive; ``own``: results that kernels allocated themselves;
    ``workspace``: what is needed for this step alone (after the last one, for copies of the results); ``naive``: what
    one buffer per value would have taken by now.
    """

    step: int
    arena_used: int
    own: int
    workspace: int
    naive: int


class StorageEntry(TypedDict):
    """``peak_bytes`` is the arena and ``beside_bytes``, the most that kernels' own results and workspace take."""

    peak_bytes: int
    naive_bytes: int
    arena_bytes: int
    beside_bytes: int
    arena_buffers: int
    own_buffers: int
    steps: list[MemoryStep]


class LoweringRow(TypedDict):
    """All operations of one name on one strategy; ``kernels`` counts the different ones among them."""

    op: str
    strategy: str
    ops: int
    kernels: int


class LoweringEntry(TypedDict):
    ops: dict[str, int]
    kernels: int
    fallbacks: dict[str, int]
    table: list[LoweringRow]


class ValueLayoutEntry(TypedDict):
    """Layouts that a value may have and the one that suits its readers; ``reason``: the kind of reader that decided."""

    name: str
    shape: str
    possible: list[str]
    preferred: str
    reason: str


class LayoutEntry(TypedDict):
    """Operations of a run that only move data, by name, before and after the passes, and layouts of all values."""

    before: dict[str, int]
    after: dict[str, int]
    eliminated: dict[str, int]
    values: list[ValueLayoutEntry]


class ChunkEntry(TypedDict):
    """How calls of the ``asked`` sizes are cut so that the planned peak is at most ``limit_bytes``."""

    limit_bytes: int
    asked: dict[str, int]
    count: int


class PlanDescription(TypedDict):
    program: str
    executor: str
    differentiable: bool
    sizes: dict[str, int]
    inputs: list[str]
    outputs: dict[str, str]
    tasks: list[TaskEntry]
    edges: list[EdgeEntry]
    buffers: list[BufferEntry]
    storage: StorageEntry
    stages: list[StageEntry]
    lowering: LoweringEntry
    layout: LayoutEntry
    chunks: ChunkEntry | None
