"""Memory over the steps of a run as a picture: how much is in use, and which value lies where and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boundflow_core.cli.bound_table import size_text
from boundflow_core.planner.description import BufferEntry, OpEntry, PlanDescription, ValueEntry
from boundflow_core.report.graph import stage_class
from boundflow_core.report.svg import element, number, text

__all__ = ["Block", "blocks", "lanes", "timeline_picture"]

WIDTH, LEFT, RIGHT = 1160.0, 104.0, 4.0
STRIP, CHART, ROW, GAP = 18.0, 150.0, 17.0, 3.0


@dataclass(frozen=True)
class Block:
    """A value with memory of its own, from its definition to the last use of it or of one of its views.

    Attributes:
        chain: number of the piece of memory within its buffer: values written onto each other are one chain.
        views: the values that are views of it.
    """

    value: ValueEntry
    start: int
    end: int
    chain: int
    views: tuple[ValueEntry, ...]


def blocks(buffer: BufferEntry) -> list[Block]:
    """The values of a buffer that have memory of their own, in the order in which they take it."""
    own = sorted(
        (value for value in buffer["values"] if value["view_of"] is None),
        key=lambda value: (value["first_def"], value["last_use"]),
    )
    found: list[Block] = []
    chain_of: dict[str, int] = {}
    for value in own:
        views = tuple(other for other in buffer["values"] if other["view_of"] == value["name"])
        before = value["written_onto"]
        chain = chain_of[before] if before in chain_of else len(set(chain_of.values()))
        chain_of[value["name"]] = chain
        end = max(other["last_use"] for other in (value, *views))
        found.append(Block(value, value["first_def"], end, chain, views))
    return found


def lanes(buffers: Sequence[BufferEntry]) -> list[list[BufferEntry]]:
    """Buffers that are not alive together, side by side in as few rows as possible."""
    rows: list[list[BufferEntry]] = []
    for buffer in sorted(buffers, key=lambda one: one["first_def"]):
        free = next((row for row in rows if row[-1]["last_use"] < buffer["first_def"]), None)
        if free is None:
            rows.append([buffer])
        else:
            free.append(buffer)
    return rows


@dataclass(frozen=True)
class _Frame:
    """Where steps lie: one more before the first operation, and one after the last."""

    steps: int

    @property
    def step_width(self) -> float:
        return (WIDTH - LEFT - RIGHT) / self.steps

    def x(self, step: int) -> float:
        """Left edge of a step."""
        return LEFT + (step + 1) * self.step_width


def timeline_picture(plan: PlanDescription) -> str:
    """SVG: the tasks on top, the memory in use below, then a row per buffer with its values."""
    steps = plan["storage"]["steps"]
    frame = _Frame(len(steps))
    maker = {
        name: (task, op) for task, entry in enumerate(plan["tasks"]) for op in entry["ops"] for name in op["outputs"]
    }
    colours = [stage_class(plan, task) for task in plan["tasks"]]
    parts = [_strip(plan, frame, colours), _chart(plan, frame, STRIP + 10)]
    y = STRIP + 10 + CHART + 26
    parts.append(element("text", text("arena"), x=0, y=y, class_="group"))
    y += 8
    for buffer in plan["buffers"]:
        if buffer["planned"]:
            parts.append(_row([buffer], f"#{buffer['index']}  {size_text(buffer['bytes'])}", y, frame, maker, colours))
            y += ROW + GAP
    own = [buffer for buffer in plan["buffers"] if not buffer["planned"]]
    if own:
        y += 20
        parts.append(element("text", text("allocated by kernels"), x=0, y=y, class_="group"))
        y += 8
        for row in lanes(own):
            largest = max(buffer["bytes"] for buffer in row)
            parts.append(_row(row, f"≤ {size_text(largest)}", y, frame, maker, colours))
            y += ROW + GAP
    return element(
        "svg",
        *parts,
        viewBox=f"0 0 {WIDTH:.0f} {y + 4:.0f}",
        class_="timeline",
        role="img",
        aria_label="Memory timeline",
    )


def _strip(plan: PlanDescription, frame: _Frame, colours: Sequence[str]) -> str:
    """One field per task over the steps in which it runs."""
    parts = [element("text", text("tasks"), x=0, y=STRIP - 5, class_="group")]
    for task, entry in enumerate(plan["tasks"]):
        first, last = entry["ops"][0]["step"], entry["ops"][-1]["step"]
        x, width = frame.x(first), (last - first + 1) * frame.step_width
        label = entry["name"].partition(":")[0]
        inside = [
            element("title", text(entry["name"])),
            element("rect", x=x, y=0, width=width - 0.7, height=STRIP, rx=2),
        ]
        if width > 7 * len(label) + 4:
            inside.append(element("text", text(label), x=x + width / 2, y=STRIP - 5, text_anchor="middle"))
        parts.append(element("g", *inside, class_=f"task {entry['kind']} {colours[task]}", data_task=task))
    return element("g", *parts, class_="strip")


def _chart(plan: PlanDescription, frame: _Frame, top: float) -> str:
    """In use against planned against one buffer per value, in bytes over steps."""
    storage = plan["storage"]
    most = max(storage["naive_bytes"], storage["peak_bytes"], 1)
    bottom = top + CHART

    def y(count: int) -> float:
        return bottom - count / most * (CHART - 14)

    def stairs(heights: Sequence[int]) -> str:
        return "".join(
            f"L{number(frame.x(step - 1))} {number(y(count))}H{number(frame.x(step))}"
            for step, count in enumerate(heights)
        )

    def area(heights: Sequence[int]) -> str:
        return f"M{number(LEFT)} {number(bottom)}{stairs(heights)}V{number(bottom)}z"

    used = [step["arena_used"] for step in storage["steps"]]
    both = [step["arena_used"] + step["own"] + step["workspace"] for step in storage["steps"]]
    naive = [step["naive"] for step in storage["steps"]]
    peak = y(storage["peak_bytes"])
    end = WIDTH - RIGHT
    parts = [
        element("line", x1=LEFT, x2=end, y1=bottom, y2=bottom, class_="axis"),
        element("path", d=area(naive), class_="naive"),
        element("path", d=area(both), class_="own"),
        element("path", d=area(used), class_="used"),
        element("line", x1=LEFT, x2=end, y1=peak, y2=peak, class_="peak"),
    ]
    if bottom - peak > 26:
        parts.append(element("text", text("0"), x=LEFT - 8, y=bottom, class_="tick"))
    labels = [(peak, "planned", storage["peak_bytes"])]
    if peak - y(storage["naive_bytes"]) > 24:
        labels.append((y(storage["naive_bytes"]), "naive", storage["naive_bytes"]))
    for height, name, count in labels:
        parts.append(element("text", text(name), x=LEFT - 8, y=height - 2, class_="tick name"))
        parts.append(element("text", text(size_text(count)), x=LEFT - 8, y=height + 10, class_="tick"))
    return element("g", *parts, class_="chart")


def _row(
    buffers: Sequence[BufferEntry],
    label: str,
    y: float,
    frame: _Frame,
    maker: dict[str, tuple[int, OpEntry]],
    colours: Sequence[str],
) -> str:
    """Buffers in one row; their values as blocks."""
    track = element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y + ROW, y2=y + ROW, class_="track")
    parts = [track, element("text", text(label), x=LEFT - 8, y=y + 12.5, class_="tick")]
    for buffer in buffers:
        inside = [_block(block, buffer, y, frame, maker, colours) for block in blocks(buffer)]
        parts.append(
            element(
                "g", *inside, id=f"buffer-{buffer['index']}", class_="buffer" if buffer["planned"] else "buffer own"
            )
        )
    return element("g", *parts)


def _block(
    block: Block,
    buffer: BufferEntry,
    y: float,
    frame: _Frame,
    maker: dict[str, tuple[int, OpEntry]],
    colours: Sequence[str],
) -> str:
    value = block.value
    task, op = maker.get(value["name"], (-1, None))
    # A value written onto another begins where that one ends: in the same step, of which each takes half.
    start = frame.x(block.start) + (frame.step_width / 2 if value["written_onto"] else 0)
    end = frame.x(block.end + 1) - (frame.step_width / 2 if _followed(value, buffer) else 0.7)
    name = op["name"] if op else value["name"]
    lines = [
        f"%{value['name']} = {name if op else 'input'}  {value['type']}, {size_text(value['bytes'])}",
        f"buffer {buffer['index']}, steps {block.start} to {block.end}",
        *([f"written onto %{value['written_onto']}"] if value["written_onto"] else []),
        *(f"seen as %{view['name']} {view['type']}" for view in block.views),
    ]
    parts = [
        element("title", text("\n".join(lines))),
        element("rect", x=start, y=y, width=max(end - start, 0.8), height=ROW, rx=0 if value["written_onto"] else 2),
    ]
    if value["written_onto"]:
        tip = min(5.0, max(end - start, 0.8) * 0.4)
        points = (
            f"{number(start)},{number(y)} {number(start + tip)},{number(y + ROW / 2)} {number(start)},{number(y + ROW)}"
        )
        parts.append(element("polygon", points=points, class_="onto"))
    parts += [_view(view, y, frame) for view in block.views]
    room = end - start - 12
    if room > 6 * len(name):
        parts.append(element("text", text(name), x=start + 8, y=y + 12))
    colour = colours[task] if op else "given"
    tone = " alt" if block.chain % 2 else ""
    return element("g", *parts, class_=f"block {colour}{tone}", data_task=task if op else None)


def _view(view: ValueEntry, y: float, frame: _Frame) -> str:
    """A stripe while a view of the value is alive."""
    x = frame.x(view["first_def"])
    width = frame.x(view["last_use"] + 1) - x - 0.7
    return element("rect", x=x, y=y + ROW - 3, width=width, height=2, class_="view")


def _followed(value: ValueEntry, buffer: BufferEntry) -> bool:
    return any(other["written_onto"] == value["name"] for other in buffer["values"])
