"""Compiled code on disk: found again, made again when it is not what it should be, and shared by processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner

from boundflow_core.ir.builder import Builder
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
from boundflow_tvm import session
from boundflow_tvm.cache import KernelCache, cache_folder
from boundflow_tvm.cli import command

SCRIPT = """
import sys
import numpy as np
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.types import DType, SymDim
from boundflow_core.planner.pipeline import bind_plan, make_plan
from boundflow_core.plugins import registry
from boundflow_core.scheduler import RunCounts, Schedule
b = Builder(DType.FLOAT64)
x = b.input("x", (SymDim.of("B"), 5))
program = b.finish({"y": b.exp(x) * 2.0 + 1.0})
executor = registry().executor("tvm")
plan = bind_plan(make_plan(program, executor), {"B": 3})
made = executor.open(plan, None)
array = np.arange(15.0).reshape(3, 5)
y = Schedule(plan, made, "").run({"x": array}, RunCounts())["y"]
np.testing.assert_allclose(y, np.exp(array) * 2 + 1, rtol=1e-12)
print(made.counts.compiled, made.counts.loaded, "tvm" in sys.modules, "torch" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache on disk, and none in the process."""
    monkeypatch.setenv("BOUNDFLOW_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(session, "KERNELS", KernelCache())
    return cache_folder()


def run(factor: float = 2.0):
    b = Builder(DType.FLOAT64)
    x = b.input("x", (SymDim.of("B"), 5))
    program = b.finish({"y": b.exp(x) * factor + 1.0})
    executor = registry().executor("tvm")
    plan = bind_plan(make_plan(program, executor), {"B": 3})
    made = executor.open(plan, None)
    array = np.arange(15.0).reshape(3, 5)
    result = Schedule(plan, made, "").run({"x": array}, RunCounts())["y"]
    np.testing.assert_allclose(result, np.exp(array) * factor + 1, rtol=1e-12)
    return made.counts


def fresh(monkeypatch):
    """As another process would find it."""
    monkeypatch.setattr(session, "KERNELS", KernelCache())


def test_code_is_compiled_once_then_known_then_loaded(folder, monkeypatch):
    assert run().compiled == 1
    assert (run().compiled, run().hits) == (0, 1)
    fresh(monkeypatch)
    counts = run()
    assert (counts.compiled, counts.loaded) == (0, 1)
    assert run(3.0).compiled == 1
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("harm", ["empty", "cut", "flipped", "foreign", "old"])
def test_files_that_are_not_what_they_should_be_are_made_again(folder, monkeypatch, harm):
    run()
    (path,) = folder.iterdir()
    content = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "cut": content[: len(content) // 2],
            "flipped": content[:-100] + bytes([content[-100] ^ 1]) + content[-99:],
            "foreign": b"something else entirely",
            "old": content.replace(b"kernels 2", b"kernels 1", 1),
        }[harm]
    )
    fresh(monkeypatch)
    counts = run()
    assert (counts.compiled, counts.loaded, counts.rebuilt) == (1, 0, 1)
    fresh(monkeypatch)
    assert run().loaded == 1


def test_a_folder_that_cannot_be_used_is_done_without(folder, monkeypatch):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    assert run().compiled == 1
    fresh(monkeypatch)
    assert run().compiled == 1


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="nothing is read-only for the superuser")
def test_a_read_only_folder_is_done_without(folder, monkeypatch):
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    assert run().compiled == 1


def _process(folder):
    environment = {**os.environ, "BOUNDFLOW_CACHE_DIR": str(folder.parent)}
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_second_process_compiles_nothing_and_imports_no_compiler(folder):
    run()
    process = _process(folder)
    out, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert out.split() == ["0", "1", "False", "False"]


@pytest.mark.slow
def test_two_processes_that_compile_the_same_are_both_right(folder):
    processes = [_process(folder) for _ in range(2)]
    for process in processes:
        _, errors = process.communicate(timeout=900)
        assert process.returncode == 0, errors
    assert len(list(folder.iterdir())) == 1


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_nothing_that_does_harm(folder, monkeypatch):
    process = _process(folder)
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    run()
    fresh(monkeypatch)
    assert run().loaded == 1


def test_the_command_shows_and_clears(folder):
    run()
    shown = json.loads(CliRunner().invoke(command, ["info", "--json"]).output)
    assert shown["folder"] == str(folder) and shown["files"] == 1 and shown["bytes"] > 1000
    assert "1 file," in CliRunner().invoke(command, ["info"]).output
    assert json.loads(CliRunner().invoke(command, ["clear", "--json"]).output)["removed"] == 1
    assert list(folder.iterdir()) == []
    assert run().compiled == 0  # what runs keeps what it has loaded
