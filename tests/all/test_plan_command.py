"""`boundflow plan`, memory limits on the command line, and progress, on the demo's networks and the benchmarks."""

from __future__ import annotations

import io
import json
import re
import sys
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.cli.main import main
from boundflow_core.cli.progress import chunk_progress
from boundflow_core.planner.description import PlanDescription


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with input [1, 8, 8] and 10 outputs."""
    path = tmp_path_factory.mktemp("networks") / "digits_cnn.onnx"
    with as_file(files("boundflow_core.demo").joinpath("data", path.name)) as shipped:
        path.write_bytes(shipped.read_bytes())
    return str(path)


def plan_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["plan", *arguments, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    result: dict[str, Any] = json.loads(out)
    return result


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("boundflow: error: ") and err.count("\n") == 1
    return err


def check_keys(value: Any, kind: Any) -> None:
    """All dicts in ``value`` have the keys that their documented types have, in that order."""
    if getattr(kind, "__total__", None) is not None:
        hints = get_type_hints(kind)
        assert list(value) == list(hints), kind
        for name, inner in hints.items():
            check_keys(value[name], inner)
    elif getattr(kind, "__origin__", None) is list:
        for item in value:
            check_keys(item, kind.__args__[0])


def test_json_has_the_documented_keys(cnn: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_json(capsys, cnn, "--method", "ibp", "--batch", "3", "--spec-rows", "9", "--dtype", "float64")
    head = {name: plan.pop(name) for name in ("network", "method", "dtype", "executor_reason")}
    assert head.pop("executor_reason").startswith("least for 100 calls by estimate: ")
    assert head == {"network": cnn, "method": "ibp", "dtype": "float64"}
    check_keys(plan, PlanDescription)
    assert plan["sizes"] == {"B": 3, "S": 9} and plan["chunks"] is None


@pytest.mark.parametrize("executor", ["reference", "torch"])
def test_the_plan_is_that_of_the_run(cnn: str, executor: str, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_json(capsys, cnn, "--method", "ibp", "--batch", "2", "--executor", executor)
    run = bf.compile(cnn, method="ibp", executor=executor)
    run(bf.LpBall(np.full((2, 1, 8, 8), 0.5, np.float32), 0.1))
    assert plan["executor"] == executor
    assert plan["storage"]["peak_bytes"] == run.plan.storage.peak_bytes
    assert plan["storage"]["naive_bytes"] == run.plan.storage.naive_bytes
    assert [task["name"] for task in plan["tasks"]] == [task.name for task in run.plan.tasks]
    assert plan["lowering"]["ops"] == dict(run.stats.lowering)


def test_the_table_names_tasks_stages_and_memory(
    cnn: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    plan = plan_json(capsys, cnn, "--method", "ibp", "--spec-rows", "9")
    assert main(["plan", cnn, "--method", "ibp", "--spec-rows", "9"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    for task in plan["tasks"]:
        assert any(line.startswith(f"{task['name']} ") for line in lines)
    for stage in plan["stages"]:
        assert re.search(rf"^{re.escape(stage['name'])} +{len(stage['tasks'])} ", out, re.MULTILINE)
    assert "memory: " in out and "at the peak" in out and "layout: " in out
    assert out.count("fallback, ") == len(plan["lowering"]["fallbacks"])
    assert f"executor {plan['executor']}: {plan['executor_reason']}" in out
    for task in plan["tasks"]:
        for op in task["ops"]:
            assert re.search(rf" {op['name']} +\d+ +{op['strategy']} ", out)


def test_a_lowering_strategy_that_nobody_has(cnn: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["plan", cnn], ["bound", cnn, "--center", "x.npy", "--eps", "0"]):
        assert main([*command, "--lowering", "nonsense"]) == 2
        capsys.readouterr()
    err = error_of(capsys, "plan", cnn, "--executor", "reference", "--lowering", "relax_vm")
    assert "executor 'reference' has no lowering strategy 'relax_vm'" in err


def test_a_memory_limit_gives_the_plan_of_a_chunk(cnn: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole = plan_json(capsys, cnn, "--method", "ibp", "--batch", "8")
    limit = whole["storage"]["peak_bytes"] // 3
    plan = plan_json(capsys, cnn, "--method", "ibp", "--batch", "8", "--memory-limit", str(limit))
    assert plan["storage"]["peak_bytes"] <= limit
    assert plan["chunks"] == {"limit_bytes": limit, "asked": {"B": 8}, "count": -(-8 // plan["sizes"]["B"])}
    assert 1 <= plan["sizes"]["B"] <= 3
    roomy = plan_json(capsys, cnn, "--method", "ibp", "--batch", "8", "--memory-limit", "1GiB")
    assert roomy["sizes"] == {"B": 8} and roomy["chunks"]["count"] == 1


def test_the_page_is_written_beside_the_json(cnn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, data = tmp_path / "plan.html", tmp_path / "plan.json"
    assert main(["plan", cnn, "--method", "ibp", "--html", str(page), "--json", str(data)]) == 0
    plan = json.loads(data.read_text())
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>") and html.endswith("</html>\n")
    assert all(f'id="task-{index}"' in html for index in range(len(plan["tasks"])))
    assert "digits_cnn.onnx" in html and capsys.readouterr().err == ""


@pytest.mark.parametrize("option", ["--json", "--html"])
def test_outputs_that_cannot_be_written_are_found_before_work(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "no" / "out")
    assert target in error_of(capsys, "plan", str(tmp_path / "missing.onnx"), option, target)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--html", "-"), "--html needs the name of a file"),
        (("--html", "x", "--json", "x"), "the same file"),
        (("--batch", "0"), "--batch"),
        (("--spec-rows", "none"), "--spec-rows"),
        (("--memory-limit", "much"), "'much' is no amount of memory"),
        (("--memory-limit", "1KiB"), "more than the memory limit of 1,024"),
        (("--method", "nothing"), "nothing"),
        (("--executor", "nothing"), "nothing"),
    ],
)
def test_wrong_usage(
    cnn: str, arguments: tuple[str, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert said in error_of(capsys, "plan", cnn, *arguments)
    assert list(tmp_path.iterdir()) == []


# -- memory limits and progress of `boundflow bound` ------------------------------------------------------------------


def test_bounds_within_a_memory_limit_are_the_same(
    cnn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((6, 1, 8, 8), np.float32))
    arguments = ["bound", cnn, "--center", str(tmp_path / "x.npy"), "--eps", "0.1", "--method", "ibp", "--json", "-"]
    assert main(arguments) == 0
    whole = json.loads(capsys.readouterr().out)
    limit = whole["storage"]["peak_bytes"] // 2
    assert main([*arguments, "--memory-limit", str(limit)]) == 0
    out, err = capsys.readouterr()
    cut = json.loads(out)
    assert err == "" and 0 < cut["storage"]["peak_bytes"] <= limit
    for side in ("lower", "upper"):
        np.testing.assert_allclose(cut[side], whole[side], rtol=1e-6, atol=1e-6)


def test_progress_counts_every_chunk(cnn: str) -> None:
    region = bf.LpBall(np.full((5, 1, 8, 8), 0.5, np.float32), 0.1)
    spec = bf.LinearSpec(np.eye(10, dtype=np.float32))
    peak = bf.compile(cnn, method="ibp", batch=2, spec_rows=10).plan.storage.peak_bytes
    seen: list[tuple[int, int]] = []
    run = bf.compile(cnn, method="ibp", memory_limit=peak, cache=False)
    run(region, spec, progress=lambda done, in_all: seen.append((done, in_all)))
    assert run.stats.chunks > 1
    assert seen == [(number, run.stats.chunks) for number in range(1, run.stats.chunks + 1)]
    seen.clear()
    bf.compile(cnn, method="ibp")(region, spec, progress=lambda done, in_all: seen.append((done, in_all)))
    assert seen == [(1, 1)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def draw(
    monkeypatch: pytest.MonkeyPatch, out: io.StringIO, err: io.StringIO, chunks: int, *, shown: bool = True
) -> str:
    monkeypatch.setenv("TERM", "xterm")
    with monkeypatch.context() as streams:
        streams.setattr(sys, "stdout", out)
        streams.setattr(sys, "stderr", err)
        with chunk_progress(shown=shown) as progress:
            for number in range(chunks) if progress is not None else ():
                progress(number + 1, chunks)
    assert out.getvalue() == ""
    return err.getvalue()


def test_progress_is_drawn_only_where_a_person_looks_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "3/3" in draw(monkeypatch, Terminal(), Terminal(), 3)
    assert "chunks" not in draw(monkeypatch, Terminal(), Terminal(), 1)
    assert draw(monkeypatch, Terminal(), io.StringIO(), 3) == ""
    assert draw(monkeypatch, io.StringIO(), Terminal(), 3) == ""
    assert draw(monkeypatch, Terminal(), Terminal(), 3, shown=False) == ""


# -- benchmarks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["mnist_fc/onnx/mnist-net_256x4.onnx", "cifar10_resnet/onnx/resnet_2b.onnx", "vit/onnx/pgd_2_3_16.onnx"]
)
def test_benchmarks_are_drawn(name: str, shared_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "plan.html"
    plan = plan_json(
        capsys, str(shared_dir / "benchmarks" / name), "--method", "ibp", "--batch", "4", "--html", str(page)
    )
    html = page.read_text(encoding="utf-8")
    assert all(f'id="node-{index}"' in html for index in range(len(plan["tasks"])))
    assert all(f'id="buffer-{buffer["index"]}"' in html for buffer in plan["buffers"])
    assert len(html) < 2**20
