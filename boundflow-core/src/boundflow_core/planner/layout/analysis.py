"""Which layouts each value of a program may have and which its readers would like best, and what the passes took away.

Values lie row by row in the layout of their shape today; a preference is what a kernel for it would be offered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from boundflow_core.ir.program import BoundProgram, Op, Value
from boundflow_core.ir.types import Shape, format_shape
from boundflow_core.planner.layout.sink import layout_ops

__all__ = ["LayoutReport", "PREFERENCES", "ValueLayout", "analyse_layout", "possible_layouts"]

ROW_MAJOR = "row-major"
BLOCKS = (16, 8)

# What reads an image, and which layouts suit it, best first. Direct convolutions read the channels of one pixel as
# vectors, so blocks of them come first; windows keep to what convolutions around them have; a reshape needs its
# elements in the order of the shape. Readers higher up decide.
PREFERENCES: Mapping[str, tuple[str, ...]] = {
    "conv2d": ("NCHW16c", "NCHW8c", "NCHW"),
    "conv2d_input_grad": ("NCHW16c", "NCHW8c", "NCHW"),
    "max_pool2d": ("NCHW16c", "NCHW8c", "NCHW"),
    "reshape": ("NCHW",),
    "matmul": ("NCHW",),
}


@dataclass(frozen=True)
class ValueLayout:
    """Layouts of one value.

    Attributes:
        possible: the layouts in which it could lie.
        preferred: the one that suits its readers.
        reason: the kind of reader that decided ("" where none has a preference).
    """

    name: str
    shape: Shape
    possible: tuple[str, ...]
    preferred: str
    reason: str = ""

    def __str__(self) -> str:
        reason = f" for {self.reason}" if self.reason else ""
        return f"%{self.name} {format_shape(self.shape)}: {self.preferred}{reason} (of {', '.join(self.possible)})"


@dataclass(frozen=True)
class LayoutReport:
    """Layouts of a program's values, and what the passes did.

    Attributes:
        values: inputs and results of operations, in program order.
        before, after: layout operations of a run, by kind, before and after the passes. Those on constants that never
            change do not count: they are done before any run.
    """

    values: tuple[ValueLayout, ...] = ()
    before: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)

    @property
    def eliminated(self) -> Mapping[str, int]:
        """Layout operations that are gone, by kind; negative where one kind became another."""
        kinds = sorted({*self.before, *self.after})
        gone = {kind: self.before.get(kind, 0) - self.after.get(kind, 0) for kind in kinds}
        return {kind: count for kind, count in gone.items() if count}

    def __str__(self) -> str:
        lines = [f"layout operations: {sum(self.before.values())} before, {sum(self.after.values())} after the passes"]
        for kind in sorted({*self.before, *self.after}):
            lines.append(f"  {kind}: {self.before.get(kind, 0)} -> {self.after.get(kind, 0)}")
        return "\n".join([*lines, *(f"  {value}" for value in self.values)])


def possible_layouts(shape: Shape) -> tuple[str, ...]:
    """Layouts in which a value of ``shape`` could lie; values of four axes are read as images [N, C, H, W]."""
    if len(shape) != 4:
        return (ROW_MAJOR,)
    channels = shape[1]
    blocked = [f"NCHW{b}c" for b in BLOCKS if isinstance(channels, int) and channels > 0 and channels % b == 0]
    return ("NCHW", "NHWC", *blocked)


def analyse_layout(before: BoundProgram, after: BoundProgram) -> LayoutReport:
    """The report on ``after``, which the passes made of ``before``."""
    readers: dict[Value, set[str]] = {}
    for op in after.ops:
        for value in op.inputs:
            readers.setdefault(value, set()).add(op.name)
    values = [*after.inputs, *(value for op in after.ops for value in op.outputs)]
    found = tuple(_value_layout(value, readers.get(value, set())) for value in values)
    return LayoutReport(found, _kinds(layout_ops(before)), _kinds(layout_ops(after)))


def _value_layout(value: Value, readers: set[str]) -> ValueLayout:
    possible = possible_layouts(value.shape)
    reader = next((name for name in PREFERENCES if name in readers), "") if len(possible) > 1 else ""
    wanted = PREFERENCES.get(reader, possible)
    preferred = next(layout for layout in wanted if layout in possible)
    return ValueLayout(value.name, value.shape, possible, preferred, reader)


def _kinds(ops: tuple[Op, ...]) -> dict[str, int]:
    return dict(sorted(Counter(op.name for op in ops).items()))
