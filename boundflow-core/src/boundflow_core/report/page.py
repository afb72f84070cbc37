"""The page of a plan: figures, task graph, memory, stages, layout, lowering and every operation, in one HTML file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import PurePath

from boundflow_core import __version__
from boundflow_core.cli.bound_table import size_text
from boundflow_core.cli.plan_table import operations_text, sizes_text
from boundflow_core.planner.description import PlanDescription
from boundflow_core.report.graph import graph_picture, legend, stage_class
from boundflow_core.report.svg import element, text
from boundflow_core.report.timeline import timeline_picture

__all__ = ["plan_page"]

Cells = Sequence[str]


def plan_page(plan: PlanDescription, net: str, method: str, dtype: str) -> str:
    """HTML that shows ``plan``, and loads nothing from anywhere.

    Args:
        net: path or name of the network.
    """
    name = PurePath(net).name
    data = files("boundflow_core.report")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", text(f"{name}: plan of {method}")),
        element("style", data.joinpath("style.css").read_text(encoding="utf-8")),
    )
    given = ((method, "method"), (dtype, "element type"), (plan["executor"], "executor"))
    header = element(
        "header",
        element("p", text("BoundFlow plan"), class_="kicker"),
        element("h1", text(name)),
        element(
            "p",
            *(f"{element('span', text(label))} {element('b', text(value))} " for value, label in given),
            f"{element('span', text('for'))} {element('b', text(sizes_text(plan)))}",
            class_="given",
        ),
        _figures(plan),
        *_remarks(plan),
    )
    body = element(
        "body",
        element(
            "main", header, *_sections(plan), element("footer", text(f"boundflow plan {net}, version {__version__}"))
        ),
        element("script", data.joinpath("hover.js").read_text(encoding="utf-8")),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _sections(plan: PlanDescription) -> list[str]:
    sections = [
        _section(
            "graph",
            "Tasks",
            "Each task runs after those above it that point to it; its colour says what it depends on. Outlined tasks "
            "only move data; a dot marks a task that reads weights prepared beforehand.",
            _legend(plan),
            element("div", graph_picture(plan), class_="figure"),
        ),
        _section(
            "memory",
            "Memory",
            "A column per step. In the chart, filled: memory that holds values in use (blue: arena, orange: beside "
            "it); grey: what one buffer per value would have taken by then; dashed: the planned peak. Below, a row "
            "per buffer: a wedge marks a value written onto one that ends there, a stripe the life of a view, a change "
            "of tone memory that is used again.",
            element("div", timeline_picture(plan), class_="figure"),
        ),
        _section(
            "stages",
            "Caching",
            "Tasks of a stage run again together, and only if what they depend on has changed.",
            _stages(plan),
        ),
    ]
    sections += [
        _section(
            "layout",
            "Layout",
            "Operations of a run that only move data, before and after the passes; and for the values that could lie "
            "in several layouts, which would suit those that read them.",
            _layout(plan),
        ),
        _section("lowering", "Lowering", "What the operations run on.", _lowering(plan)),
        _section("operations", "Operations", "Open a task to see its operations.", *_tasks(plan)),
    ]
    return sections


def _section(id_: str, title: str, explained: str, *content: str) -> str:
    return element(
        "section", element("h2", text(title)), element("p", text(explained), class_="explained"), *content, id=id_
    )


# -- head -------------------------------------------------------------------------------------------------------------


def _figures(plan: PlanDescription) -> str:
    storage, lowering = plan["storage"], plan["lowering"]
    ops = [op for task in plan["tasks"] for op in task["ops"]]
    memory = Counter(op["memory"] for op in ops)
    own = f" + {size_text(storage['beside_bytes'])} beside it" if storage["beside_bytes"] else ""
    ratio = storage["naive_bytes"] / max(storage["peak_bytes"], 1)
    cached = sum(stage["cached"] for stage in plan["stages"])
    figures = [
        (size_text(storage["peak_bytes"]), "planned peak", f"arena {size_text(storage['arena_bytes'])}{own}"),
        (f"{ratio:.1f} ×", "less than naive", f"{size_text(storage['naive_bytes'])} with a buffer per value"),
        (str(len(plan["tasks"])), "tasks", f"in {_count(len(plan['stages']), 'stage')}, {cached} kept between calls"),
        (str(len(ops)), "operations", f"{lowering['kernels']} different kernels"),
        (
            str(memory["view"] + memory["in place"]),
            "need no memory",
            f"{memory['view']} views, {memory['in place']} in place",
        ),
        (str(sum(lowering["fallbacks"].values())), "fallbacks", "composites without a fused kernel"),
    ]
    return element(
        "div",
        *(
            element("div", element("b", text(value)), element("span", text(label)), element("small", text(more)))
            for value, label, more in figures
        ),
        class_="figures",
    )


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _remarks(plan: PlanDescription) -> list[str]:
    remarks = []
    chunks = plan["chunks"]
    if chunks is not None:
        asked = ", ".join(f"{symbol} = {count}" for symbol, count in chunks["asked"].items())
        limit, pieces = size_text(chunks["limit_bytes"]), _count(chunks["count"], "chunk")
        remarks.append(f"Memory limit {limit}: a call of {asked} runs in {pieces}; this is the plan of one.")
    if plan["differentiable"]:
        remarks.append("Differentiable: every value is kept for the gradient, and the executor plans no memory.")
    return [element("p", text(remark), class_="remark") for remark in remarks]


def _legend(plan: PlanDescription) -> str:
    items = (element("li", element("i", class_=colour), text(words)) for colour, words in legend(plan))
    return element("ul", *items, class_="legend")


# -- tables -----------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Iterable[Cells], right: Sequence[int] = ()) -> str:
    """A table of ready markup; columns whose index is in ``right`` hold numbers."""

    def row(tag: str, cells: Cells) -> str:
        return element(
            "tr", *(element(tag, cell, class_="n" if index in right else None) for index, cell in enumerate(cells))
        )

    top = element("thead", row("th", [text(name) for name in head]))
    return element(
        "div", element("table", top, element("tbody", *(row("td", cells) for cells in rows))), class_="table"
    )


def _stages(plan: PlanDescription) -> str:
    number = {task["name"]: index for index, task in enumerate(plan["tasks"])}
    rows = []
    for index, stage in enumerate(plan["stages"]):
        links = [
            element("a", text(name.partition(":")[0]), href=f"#task-{number[name]}", title=name)
            for name in stage["tasks"]
        ]
        kept = f"{len(stage['keeps'])} values, {size_text(stage['bytes_kept'])}" if stage["cached"] else "nothing"
        again = " or ".join(stage["depends"]) + " changes" if stage["cached"] else "always"
        name = element("i", class_=f"s{index % 6}") + text(stage["name"])
        rows.append((name, " ".join(links), text(kept), text(again)))
    return _table(("stage", "tasks", "kept between calls", "runs again when"), rows)


def _lowering(plan: PlanDescription) -> str:
    lowering = plan["lowering"]
    rows = [
        (text(row["op"]), text(row["strategy"]), text(row["ops"]), text(row["kernels"])) for row in lowering["table"]
    ]
    table = _table(("operation", "runs on", "times", "kernels"), rows, right=(2, 3))
    if not lowering["fallbacks"]:
        return table
    fallbacks = [(text(reason), text(count)) for reason, count in lowering["fallbacks"].items()]
    return element("div", table, _table(("fallback", "times"), fallbacks, right=(1,)), class_="beside")


def _tasks(plan: PlanDescription) -> list[str]:
    parts = []
    layouts = {value["name"]: value["preferred"] for value in plan["layout"]["values"]}
    for index, task in enumerate(plan["tasks"]):
        rows = [
            (
                text(op["step"]),
                text(" ".join(f"%{name}" for name in op["outputs"])),
                text(f"{op['name']}({', '.join(f'%{name}' for name in op['inputs'])})"),
                text(op["type"]),
                text(op["memory"]),
                text(", ".join(layouts.get(name, "") for name in op["outputs"])),
                element("span", text(op["strategy"]), title=f"{op['kernel']}\n{op['reason']}"),
                text(op["origin"]),
            )
            for op in task["ops"]
        ]
        summary = element(
            "summary",
            element("i", class_=stage_class(plan, task)),
            element("b", text(task["name"])),
            element("span", text(f"{task['kind']}; {operations_text(task)}; hands on {size_text(task['bytes_out'])}")),
        )
        table = _table(
            ("step", "value", "operation", "type", "memory", "layout", "runs on", "network node"), rows, right=(0,)
        )
        parts.append(element("details", summary, table, id=f"task-{index}"))
    return parts


def _layout(plan: PlanDescription) -> str:
    """What moved data before and after the passes, and which layouts suit the values that have a choice."""
    layout = plan["layout"]
    names = sorted({*layout["before"], *layout["after"]})
    counts = [
        [text(cell) for cell in (name, layout["before"].get(name, 0), layout["after"].get(name, 0))] for name in names
    ]
    if not counts:
        counts = [[text("none"), text(0), text(0)]]
    choices = Counter(
        (value["preferred"], value["reason"] or "nothing", ", ".join(value["possible"]))
        for value in layout["values"]
        if len(value["possible"]) > 1
    )
    values = [
        (text(like), text(reader), text(possible), text(count))
        for (like, reader, possible), count in choices.most_common()
    ]
    return element(
        "div",
        _table(("moves data", "before", "after"), counts, right=(1, 2)),
        _table(("would suit", "because of", "of", "values"), values, right=(3,)),
        class_="beside",
    )
