"""The page of a plan: well-formed, complete, self-contained; and what its pictures are made of."""

from __future__ import annotations

import random
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.ir.program import BoundProgram
from boundflow_core.planner.describe import describe_plan
from boundflow_core.planner.description import PlanDescription
from boundflow_core.report.graph import shortened
from boundflow_core.report.layers import arrange
from boundflow_core.report.page import plan_page
from boundflow_core.report.svg import arrow_path, element, number, smooth, text
from boundflow_core.report.timeline import blocks, lanes
from boundflow_core.testing.programs import programs, write_random

from ..running import schedule

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Reads a page and complains where an element is not closed in its turn."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def plan_of(program: BoundProgram, sizes: dict[str, int]) -> PlanDescription:
    return describe_plan(schedule(program, sizes).plan)


def check_page(plan: PlanDescription, html: str) -> Page:
    page = Page(html)
    ids = page.all("id")
    assert len(ids) == len(set(ids))
    for index in range(len(plan["tasks"])):
        assert f"task-{index}" in ids and f"node-{index}" in ids
    assert {f"buffer-{buffer['index']}" for buffer in plan["buffers"]} <= set(ids)
    for task in plan["tasks"]:
        assert task["name"] in page.text
        for op in task["ops"]:
            assert f"{op['name']}({', '.join(f'%{name}' for name in op['inputs'])})" in page.text
    assert all(link[0] == "#" and link[1:] in ids for link in page.all("href"))
    assert not page.all("src") and "link" not in page.tags
    assert not re.search(r"https?://|@import", html)
    assert all(url.startswith("#") for url in re.findall(r"url\((.*?)\)", html))
    assert "nan" not in re.findall(r'(?:x|y|d|points|width|height)="[^"]*?(nan|inf)', html)
    return page


@settings(max_examples=40)
@given(programs, st.sampled_from([{"B": 1, "S": 1}, {"B": 2, "S": 3}]))
def test_pages_are_well_formed_complete_and_load_nothing(program: BoundProgram, sizes: dict[str, int]) -> None:
    plan = plan_of(program, sizes)
    check_page(plan, plan_page(plan, "net.onnx", "ibp", "float32"))


def test_names_are_text_and_never_markup() -> None:
    plan = plan_of(write_random(2, 20), {"B": 1, "S": 1})
    name = "a<script>alert(1)</script>\"'&.onnx"
    for task in plan["tasks"]:
        task["ops"][0]["origin"] = name
    page = check_page(plan, plan_page(plan, name, name, "float32"))
    assert page.tags.count("script") == 1
    assert name.rpartition("/")[2] in page.text


def test_the_page_says_in_how_many_chunks_a_call_runs() -> None:
    made = schedule(write_random(2, 20), {"B": 1, "S": 1})
    plan = describe_plan(made.plan, {"limit_bytes": 2048, "asked": {"B": 7, "S": 1}, "count": 7})
    assert "Memory limit 2.0 KiB: a call of B = 7, S = 1 runs in 7 chunks" in plan_page(plan, "n", "ibp", "float32")


# -- pictures ---------------------------------------------------------------------------------------------------------


@given(programs)
def test_blocks_of_a_buffer_follow_each_other(program: BoundProgram) -> None:
    for buffer in plan_of(program, {"B": 2, "S": 3})["buffers"]:
        found = blocks(buffer)
        assert sum(1 + len(block.views) for block in found) == len(buffer["values"])
        for one, other in pairwise(found):
            same = other.value["written_onto"] == one.value["name"]
            assert one.end == other.start if same else one.end < other.start
            assert (one.chain == other.chain) == same


@given(programs)
def test_buffers_in_one_lane_are_not_alive_together(program: BoundProgram) -> None:
    buffers = plan_of(program, {"B": 1, "S": 1})["buffers"]
    rows = lanes(buffers)
    assert sorted(buffer["index"] for row in rows for buffer in row) == [buffer["index"] for buffer in buffers]
    for row in rows:
        assert all(one["last_use"] < other["first_def"] for one, other in pairwise(row))


@given(st.integers(0, 10**6), st.integers(0, 40))
def test_layers_lead_down_and_nodes_keep_apart(seed: int, nodes: int) -> None:
    chance = random.Random(seed)
    edges = [(a, b) for b in range(nodes) for a in range(b) if chance.random() < 2 / nodes]
    layers = arrange(nodes, edges)
    assert set(layers.routes) == set(edges)
    for (a, b), route in layers.routes.items():
        assert layers.layer[a] < layers.layer[b] < layers.count
        assert len(route) == layers.layer[b] - layers.layer[a] + 1
        assert (route[0], route[-1]) == (layers.x[a], layers.x[b])
    for layer in range(layers.count):
        row = sorted(x for x, where in zip(layers.x, layers.layer, strict=True) if where == layer)
        assert all(other - one > 1.0 for one, other in pairwise(row))
        passing = [
            route[layer - layers.layer[a]] for (a, b), route in layers.routes.items()
            if layers.layer[a] < layer < layers.layer[b]
        ]  # fmt: skip
        assert all(abs(x - middle) > 0.5 for x in passing for middle in row)


def test_a_chain_is_drawn_straight() -> None:
    layers = arrange(5, [(0, 1), (1, 2), (2, 3), (3, 4)])
    assert layers.layer == (0, 1, 2, 3, 4) and len(set(layers.x)) == 1


def test_what_is_needed_late_is_drawn_late() -> None:
    assert arrange(4, [(0, 1), (1, 2), (2, 3)]).count == 4
    assert arrange(5, [(0, 1), (1, 2), (2, 4), (3, 4)]).layer[3] == 2


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("3:Conv_2", "3:Conv_2"),
        ("12:/1/1.0/fn/query/Add", "12:…n/query/Add"),
        ("no-number-but-long", "no-number-but-long"),
    ],
)
def test_names_are_shortened_in_front(name: str, short: str) -> None:
    assert shortened(name, 15 if ":" in name else 18) == short


def test_elements_are_escaped() -> None:
    assert element("p", text("a < b & c"), class_="x", data_task='"1"', title=None) == (
        '<p class="x" data-task="&quot;1&quot;">a &lt; b &amp; c</p>'
    )
    assert [number(value) for value in (1.0, 1.25, 2, "x")] == ["1", "1.2", "2", "x"]


def test_paths() -> None:
    assert smooth([(0, 0), (0, 10), (4, 20)]) == "M0 0L0 10C0 15 4 15 4 20"
    assert arrow_path([(0, 0), (0, 10), (10, 10)], 4) == "M0 0L0 6Q0 10 4 10L10 10"
