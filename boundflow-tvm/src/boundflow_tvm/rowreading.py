"""What is known of the values of a program that depend on rows: the reading half of :mod:`.rowfusion`.

Operations are read in order. Each value that depends on rows is noted as a map of the rows, with some order of its
axes, as a sum per row, or as something on the way from one to the other. A chain starts at an operation that only rows
go through; its steps are those of a row program.
"""

from __future__ import annotations

from collections.abc import Iterable

from boundflow_core.ir.program import BoundProgram, Value
from boundflow_core.ir.types import size
from boundflow_core.planner.partition import dependencies
from boundflow_tvm.rowreaders import READERS
from boundflow_tvm.rowstates import Chain, MapState, Operand, Partial, State, Sum, map_shape

__all__ = ["Reading"]


class Reading:
    """The chains of a program.

    Attributes:
        states: what is known of values.
        chains: those whose sum, if other operations read it, is a single one of all terms.
        leaving: which values these are.
    """

    def __init__(self, program: BoundProgram) -> None:
        self.program = program
        self.makers = {value: op for op in program.ops for value in op.outputs}
        self.depends = dependencies(program)
        self.states: dict[Value, State] = {}
        self.leaving: dict[Chain, list[Value]] = {}
        self._all: list[Chain] = []
        for op in program.ops:
            reader = READERS.get(op.name)
            if reader is None or not reader(self, op):
                self._leave(op.inputs)
        self._leave(program.outputs.values())
        self.chains = [chain for chain in self._all if self._is_whole(chain)]

    def _leave(self, values: Iterable[Value]) -> None:
        for value in values:
            state = self.states.get(value)
            if isinstance(state, Partial):
                state.chain.broken = True
            elif state is not None:
                chains = [chain for chain, _ in state.terms] if isinstance(state, Sum) else [state.chain]
                for chain in dict.fromkeys(chains):
                    self.leaving.setdefault(chain, []).append(value)

    def _is_whole(self, chain: Chain) -> bool:
        leaving = {value: self.states[value] for value in self.leaving.get(chain, ())}
        maps = {state.number for state in leaving.values() if isinstance(state, MapState)} - {0}
        sums = [state for state in leaving.values() if isinstance(state, Sum)]
        terms = {v for s in self.states.values() if isinstance(s, Sum) for c, v in s.terms if c is chain}
        held = [v for state in sums for c, v in state.terms if c is chain]
        whole = sorted(v.id for v in held) == sorted(v.id for v in terms)
        return not chain.broken and whole and len(sums) <= 1 and bool(maps or sums)

    # -- what readers ask ---------------------------------------------------------------------------------------------

    def known(self, value: Value) -> bool:
        """Whether ``value`` is there before any run."""
        return not self.depends[value]

    def map_of(self, value: Value) -> MapState | None:
        state = self.states.get(value)
        return state if isinstance(state, MapState) else None

    def rows(self, value: Value, front: int, axes: str) -> MapState | None:
        """The map that ``value`` is, of a new chain if nothing is known of it."""
        state = self.states.get(value)
        if state is not None:
            return state if isinstance(state, MapState) and axes in (state.axes, "") else None
        shape = map_shape(value.shape[front:], axes)
        source, lead = self._unmirrored(value)
        mirrored = source is not value
        lead = lead if mirrored else front
        if shape is None or lead > 2 or (lead == 2 and axes == "hwc" and not mirrored):
            return None
        if mirrored and size(value.shape[:front]) != 2 * size(source.shape[:lead]):
            return None
        chain = Chain(source, source.shape[:lead], mirrored, axes == "hwc", [shape])
        self._all.append(chain)
        self.states[value] = found = MapState(chain, 0, axes or ("chw" if value.rank - front == 3 else "n"))
        return found

    def _unmirrored(self, value: Value) -> tuple[Value, int]:
        """The rows that ``value``, perhaps reshaped, are together with their negatives, and how many axes they have."""
        op = self.makers.get(value)
        while op is not None and op.name == "reshape":
            op = self.makers.get(op.inputs[0])
        if op is not None and op.name == "concat" and len(op.inputs) == 2:
            negated = self.makers.get(op.inputs[1])
            if negated is not None and negated.name == "neg" and negated.inputs[0] is op.inputs[0]:
                return op.inputs[0], op.attrs["axis"] + 1
        return value, 0

    def map_operand(self, value: Value, state: MapState, front: int) -> Operand | None:
        """``value``, which is multiplied with a map of rows with ``front`` axes, as something that kernels can read."""
        chain, lead = state.chain, value.shape[:front]
        if not chain.ragged:
            if front == 2 and lead == (chain.front[0], 1):
                return Operand(value, "region")
            if front == 3 and lead == (chain.front[0], 1, chain.front[1]):
                return self._window(value) or Operand(value, "row")
            return None if chain.mirrored or lead != chain.front else Operand(value, "row")
        if front == 2:
            return (self._window(value) or Operand(value, "row")) if lead == (1, *chain.front) else None
        op = self.makers.get(value)
        if op is not None and op.name == "gather_rows" and op.attrs["axis"] == 0:
            region = self._unrepeated(op.inputs[1]) if chain.mirrored else op.inputs[1]
            if region is not None and chain.region in (None, region) and region.shape == chain.front:
                chain.region = region
                return Operand(op.inputs[0], "region")
        return None if chain.mirrored or lead != chain.front else Operand(value, "row")

    def _unrepeated(self, index: Value) -> Value | None:
        op = self.makers.get(index)
        repeats = op is not None and op.name == "concat" and len(op.inputs) == 2 and op.inputs[0] is op.inputs[1]
        return op.inputs[0] if op is not None and repeats else None

    def _window(self, value: Value) -> Operand | None:
        op = self.makers.get(value)
        while op is not None and op.name == "reshape":
            op = self.makers.get(op.inputs[0])
        return Operand(op.inputs[0], "window", op) if op is not None and op.name == "gather_windows" else None
