"""The task graph as a picture: layers from top to bottom, continued in a further column where they get too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from boundflow_core.cli.bound_table import size_text
from boundflow_core.planner.description import PlanDescription, TaskEntry
from boundflow_core.report.layers import Layers, arrange
from boundflow_core.report.svg import Point, arrow_path, element, smooth, text

__all__ = ["graph_picture", "shortened", "stage_class"]

WIDTH, WIDEST = 1160.0, 1440.0  # wider drawings are shrunk to the width of the page
NODE_WIDTH, NODE_HEIGHT, PITCH = 162.0, 36.0, 56.0
GUTTER, LANE, TOP = 56.0, 6.0, 30.0
LETTERS = 19  # of a name that fit into a node
LEAST_LAYERS = 14  # of a column


@dataclass(frozen=True)
class _Columns:
    """How the layers are cut into columns: ``left`` is what to add to x in each, in pixels."""

    layers: Layers
    per_column: int
    left: tuple[float, ...]
    right: tuple[float, ...]
    top: float
    width: float

    def at(self, x: float, layer: int) -> Point:
        """Middle of the upper edge of a node."""
        column, row = divmod(layer, self.per_column)
        return (self.left[column] + x * NODE_WIDTH, self.top + row * PITCH)


def graph_picture(plan: PlanDescription) -> str:
    """SVG of the tasks and of what they hand to each other; a dot marks those that read prepared weights."""
    prepared = [number for number, task in enumerate(plan["tasks"]) if not task["stage"]]
    drawn = [number for number, task in enumerate(plan["tasks"]) if task["stage"]]
    number_of = {task["name"]: number for number, task in enumerate(plan["tasks"])}
    place = {number: index for index, number in enumerate(drawn)}
    links: dict[tuple[int, int], list[str]] = {}
    reading: set[int] = set()
    for edge in plan["edges"]:
        a, b = number_of[edge["producer"]], number_of[edge["consumer"]]
        if a in place and b in place:
            links.setdefault((a, b), []).append(f"%{edge['value']}, {size_text(edge['bytes'])}")
        elif b in place:
            reading.add(b)
    per_row = int(WIDTH // (NODE_WIDTH * 1.14))
    top = PITCH * -(-len(prepared) // per_row)
    columns = _columns(arrange(len(drawn), [(place[a], place[b]) for a, b in links]), top)
    layers = columns.layers
    parts = [_arrowhead(), *_routes(columns, links, place)]
    for index, number in enumerate(prepared):
        row, at = divmod(index, per_row)
        middle = (at * 1.14 + 0.5) * NODE_WIDTH + 2
        parts.append(_node(number, plan, (middle, 4 + row * PITCH), reads_weights=False))
    for number in drawn:
        where = columns.at(layers.x[place[number]], layers.layer[place[number]])
        parts.append(_node(number, plan, where, reads_weights=number in reading))
    several = layers.count > columns.per_column
    height = columns.top + min(layers.count, columns.per_column) * PITCH + (TOP if several else 0) - 12
    box = f"0 0 {columns.width:.0f} {height:.0f}"
    return element("svg", *parts, viewBox=box, class_="graph", role="img", aria_label="Task graph")


def stage_class(plan: PlanDescription, task: TaskEntry) -> str:
    """The colour of a task: that of its stage."""
    names = [stage["name"] for stage in plan["stages"]]
    return f"s{names.index(task['stage']) % 6}" if task["stage"] in names else "once"


def shortened(name: str, letters: int) -> str:
    """``name`` with letters left out after its number, since the ends of names tell them apart."""
    if len(name) <= letters:
        return name
    head, colon, tail = name.partition(":")
    kept = letters - len(head) - 2
    return f"{head}{colon}…{tail[-kept:]}"


def _columns(layers: Layers, top: float) -> _Columns:
    """As many columns as fit side by side, each of at least some layers."""
    for count in range(max(1, layers.count // LEAST_LAYERS), 0, -1):
        per_column = max(1, -(-layers.count // count))
        spans = [_span(layers, first, first + per_column) for first in range(0, layers.count, per_column)]
        widths = [(high - low) * NODE_WIDTH for low, high in spans]
        total = sum(widths) + GUTTER * (len(spans) - 1) + 4
        if total <= WIDEST or count == 1:
            break
    whole = max(WIDTH, total)
    left, at = [], (whole - total) / 2 + 2
    for (low, _), width in zip(spans, widths, strict=True):
        left.append(at - low * NODE_WIDTH)
        at += width + GUTTER
    right = [start + high * NODE_WIDTH for start, (_, high) in zip(left, spans, strict=True)]
    return _Columns(layers, per_column, tuple(left), tuple(right), top + (TOP if len(spans) > 1 else 4), whole)


def _span(layers: Layers, first: int, end: int) -> tuple[float, float]:
    """Leftmost and rightmost point of the layers from ``first`` to before ``end``."""
    inside = [x for x, layer in zip(layers.x, layers.layer, strict=True) if first <= layer < end]
    passing = [
        x
        for (a, _), route in layers.routes.items()
        for layer, x in enumerate(route, layers.layer[a])
        if first <= layer < end
    ]
    return (
        min([*(x - 0.5 for x in inside), *passing], default=0.0),
        max([*(x + 0.5 for x in inside), *passing], default=1.0),
    )


def _routes(columns: _Columns, links: dict[tuple[int, int], list[str]], place: dict[int, int]) -> list[str]:
    layers = columns.layers
    lanes: dict[int, int] = {}  # edges that have gone from each column to the next
    drawn = []
    for (a, b), values in links.items():
        one, other = place[a], place[b]
        first = layers.layer[one]
        path, run = "", list[Point]()
        route = layers.routes[one, other]
        for step, x in enumerate(route):
            layer = first + step
            above = columns.at(x, layer)
            under = (above[0], above[1] + NODE_HEIGHT)
            if step and layer % columns.per_column == 0:
                lane = lanes.setdefault(layer, 0)
                lanes[layer] += 1
                path += smooth(run) + arrow_path(_around(columns, layer, run[-1], above, lane), 8)
                run = []
            run += [under] if step == 0 else [above] if step == len(route) - 1 else [above, under]
        path += smooth(run)
        title = element("title", text(f"{len(values)} values: " + "; ".join(values)))
        drawn.append(element("path", title, d=path, class_="edge", marker_end="url(#head)", data_from=a, data_to=b))
    return drawn


def _around(columns: _Columns, layer: int, start: Point, end: Point, lane: int) -> list[Point]:
    """From the foot of one column through the gutter to the head of the next."""
    column = layer // columns.per_column
    foot = columns.top + (columns.per_column - 1) * PITCH + NODE_HEIGHT + 8 + lane * LANE
    gutter = columns.right[column - 1] + GUTTER / 2 + (lane % 5 - 2) * LANE
    head = columns.top - 8 - lane * LANE
    return [start, (start[0], foot), (gutter, foot), (gutter, head), (end[0], head), end]


def _node(number: int, plan: PlanDescription, where: Point, *, reads_weights: bool) -> str:
    task = plan["tasks"][number]
    x, y = where[0] - NODE_WIDTH / 2, where[1]
    ops = len(task["ops"])
    about = f"{task['kind']} · {ops} op{'' if ops == 1 else 's'} · {size_text(task['bytes_out'])}"
    needs = "once, when the plan is prepared" if not task["stage"] else f"depends on {', '.join(task['depends'])}"
    names = ", ".join(op["name"] for op in task["ops"])
    parts = [
        element("title", text(f"{task['name']}\n{about}\n{needs}\n{names}")),
        element("rect", x=x, y=y, width=NODE_WIDTH, height=NODE_HEIGHT, rx=6),
        element("text", text(shortened(task["name"], LETTERS)), x=x + 10, y=y + 15.5, class_="name"),
        element("text", text(about), x=x + 10, y=y + 28.5, class_="about"),
    ]
    if reads_weights:
        parts.append(element("circle", cx=x, cy=y + NODE_HEIGHT / 2, r=3.5, class_="reads"))
    classes = f"node {task['kind']} {stage_class(plan, task)}"
    return element("a", *parts, href=f"#task-{number}", id=f"node-{number}", class_=classes, data_task=number)


def _arrowhead() -> str:
    path = element("path", d="M0 0L7 3.5L0 7z")
    marker = element(
        "marker", path, id="head", viewBox="0 0 7 7", refX=6.5, refY=3.5, markerWidth=6, markerHeight=6, orient="auto"
    )
    return element("defs", marker)


def legend(plan: PlanDescription) -> Sequence[tuple[str, str]]:
    """Class and words of each colour."""
    stages = [(f"s{number % 6}", f"depends on {stage['name']}") for number, stage in enumerate(plan["stages"])]
    once = [("once", "once, when the plan is prepared")] if any(not task["stage"] for task in plan["tasks"]) else []
    return [*stages, *once]
