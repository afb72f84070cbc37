"""The newcomer's path: write a plugin, install it, check it with the kit, see it, and use it, as one would type it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from boundflow_core.scaffold import KINDS

if not {"pip", "hatchling"} <= {name for name in ("pip", "hatchling") if importlib.util.find_spec(name)}:
    pytest.skip("pip and hatchling are needed to install a distribution", allow_module_level=True)

Run = Callable[..., "subprocess.CompletedProcess[str]"]
EXECUTORS = [name for name, module in (("reference", "numpy"), ("torch", "torch")) if importlib.util.find_spec(module)]
# The new environment finds executors by what is installed, not by the path of this process.
EXECUTORS += ["tvm"] if any(d.name == "boundflow-tvm" for d in importlib.metadata.distributions()) else []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``run(program, *arguments)`` in an environment of its own that sees what this one has; fails if it fails."""
    folder = tmp_path_factory.mktemp("newcomer")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", command], capture_output=True, text=True, check=True).stdout.strip())
    seen = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    lines = [f"import site; site.addsitedir({path!r})\n" for path in sorted(seen)]
    site.joinpath("outer.pth").write_text("".join(lines))

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [python, "-m", *arguments],
            cwd=folder,
            env={**os.environ, "BOUNDFLOW_STRICT_PLUGINS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return run


def installed(run: Run, kind: str) -> str:
    """A new distribution of this kind, installed; its name."""
    name = f"boundflow-my-{kind}"
    run("boundflow_core", "new-plugin", name, "--kind", kind)
    run("pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "-e", name)
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_the_example_passes_the_kit(run: Run, kind: str) -> None:
    name = installed(run, kind)
    (record,) = [one for one in records(run) if one["name"] == f"my-{kind}"]
    assert record["status"] == "active"
    assert record["brings"]
    assert not record["notes"]
    run("pytest", "-q", "-p", "no:cacheprovider", f"{name}/tests/test_active.py", f"{name}/tests/test_kit.py")
    done = run("pytest", "-q", "-p", "no:cacheprovider", f"{name}/tests/test_to_do.py", code=1)
    assert f"src/boundflow_my_{kind}/" in done.stdout
    assert "TODO" not in done.stdout  # what is said is what to do


def records(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("boundflow_core", "plugins", "--json").stdout)["plugins"]
    return found


def tiny(folder: Path) -> Path:
    """A network of ten neurons."""
    rng = np.random.default_rng(0)
    arrays = {"w1": rng.standard_normal((10, 5)), "b1": rng.standard_normal(10), "w2": rng.standard_normal((3, 10))}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "tiny.onnx")
    return folder / "tiny.onnx"


def test_its_method_bounds_a_network_on_every_executor(run: Run, tmp_path: Path, repository_root: Path) -> None:
    """On a benchmark network where there are some; after the test above the domain is installed."""
    if not any(one["name"] == "my-domain" for one in records(run)):
        installed(run, "domain")
    networks = [(tiny(tmp_path), (5,))]
    public = repository_root.parent / "shared" / "benchmarks" / "acasxu" / "onnx" / "ACASXU_run2a_1_1_batch_2000.onnx"
    networks += [(public, (1, 1, 5))] if public.is_file() else []
    assert len(EXECUTORS) >= 2
    for network, shape in networks:
        np.save(tmp_path / "x.npy", np.zeros(shape))
        region = ("--center", str(tmp_path / "x.npy"), "--eps", "0.01")
        arguments = ("bound", str(network), *region, "--dtype", "float64", "--json", "-")
        found = {
            (method, executor): json.loads(
                run("boundflow_core", *arguments, "--method", method, "--executor", executor).stdout
            )
            for method, executor in (("ibp", "reference"), *(("my-domain", name) for name in EXECUTORS))
        }
        for side in ("lower", "upper"):
            expected = found["ibp", "reference"][side]  # the example's rules give those of intervals
            for one in found.values():
                np.testing.assert_allclose(one[side], expected, rtol=1e-9, atol=1e-9)


def test_an_operator_without_a_rule_is_named(run: Run, tmp_path: Path, repository_root: Path) -> None:
    if not any(one["name"] == "my-domain" for one in records(run)):
        installed(run, "domain")
    net = repository_root / "boundflow-core" / "src" / "boundflow_core" / "demo" / "data" / "digits_cnn.onnx"
    np.save(tmp_path / "x.npy", np.zeros((1, 8, 8)))
    arguments = ("--center", str(tmp_path / "x.npy"), "--eps", "0.1", "--method", "my-domain")
    done = run("boundflow_core", "bound", str(net), *arguments, code=2)
    assert "'conv2d' at node" in done.stderr
    assert "domain 'my-domain'" in done.stderr
