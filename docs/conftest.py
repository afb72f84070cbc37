"""Runs every code block of these pages: `pytest -n 0 docs`. A page is one session, in a folder of its own.

python    executed; names live on from block to block
shell     executed by bash, must succeed
console   each line after "$ " is executed, and what it prints compared; "[...]" stands for anything
toml      parsed
text      what is shown as it is: output, trees, formulas

`<!--- skip: next if(no_torch, reason="...") -->` before a block, invisible in the page, says where it does not run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sybil import Document, Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = {"python", "shell", "console", "toml", "text"}
NETWORKS = {"resnet_2b.onnx": "cifar10_resnet/onnx/resnet_2b.onnx"}


class Page(Document):
    """A page with its snippets, lines `--8<-- "FILE"` of mkdocs, put in."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(re.sub(r'^--8<-- "(.+)"$', lambda found: snippet(found[1]), text, flags=re.MULTILINE), path)


def snippet(name: str) -> str:
    return (ROOT / "examples" / name).read_text().rstrip()


def missing(module: str) -> bool:
    return importlib.util.find_spec(module) is None


def environment() -> dict[str, str]:
    folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": os.pathsep.join([folder, os.environ["PATH"]]), "COLUMNS": "120", "NO_COLOR": "1"}


def bash(command: str, folder: str) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout


def run_shell(example: Example) -> str | None:
    code, output = bash(example.parsed, example.namespace["folder"])
    return None if code == 0 else f"exit code {code}:\n{output}"


def run_console(example: Example) -> str | None:
    for part in re.split(r"^\$ ", str(example.parsed), flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        _, output = bash(command, example.namespace["folder"])
        pattern = r"[\s\S]*?".join(re.escape(piece.strip()) for piece in expected.split("[...]"))
        if not re.fullmatch(r"\s*" + pattern + r"\s*", trimmed(output)):
            return f"$ {command}\nprinted\n{output}"
    return None


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.splitlines())


def parse_toml(example: Example) -> str | None:
    import tomllib

    tomllib.loads(str(example.parsed))
    return None


def write_network(folder: Path) -> None:
    """``net.onnx``, 2 -> 6 -> 3, with an input ``x.npy``, rows ``C.npy`` and a property ``property.vnnlib``."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {"w1": (6, 2), "b1": (6,), "w2": (3, 6), "b2": (3,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in weights.items()}
    arrays["b2"] += np.array([4, 0, 0], np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="last", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx")
    np.save(folder / "x.npy", np.array([0.5, 0.25], np.float32))
    np.save(folder / "C.npy", np.array([[1, -1, 0], [1, 0, -1]], np.float32))
    folder.joinpath("property.vnnlib").write_text(
        "(declare-const X_0 Real)\n(declare-const X_1 Real)\n"
        "(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n(declare-const Y_2 Real)\n"
        "(assert (>= X_0 0.4))\n(assert (<= X_0 0.6))\n(assert (>= X_1 0.2))\n(assert (<= X_1 0.3))\n"
        "(assert (or (and (>= Y_1 Y_0)) (and (>= Y_2 Y_0))))\n"
    )


def setup(namespace: dict[str, Any]) -> None:
    folder = Path(tempfile.mkdtemp(prefix="boundflow-docs-"))
    if not missing("auto_LiRPA"):
        from compatibility import load  # of tests/lirpa

        load()
    if not missing("onnx"):
        write_network(folder)
    shared = ROOT.parent / "shared" / "benchmarks"
    for name, path in NETWORKS.items():
        if (shared / path).is_file():
            shutil.copy(shared / path, folder / name)
    namespace.update(
        folder=str(folder),
        before=os.getcwd(),
        no_torch=missing("torch"),
        no_lirpa=missing("auto_LiRPA"),
        no_tvm=missing("tvm"),
        no_zonotope=missing("boundflow_zonotope"),
        no_benchmarks=not (folder / "resnet_2b.onnx").exists(),
    )
    os.chdir(folder)


def teardown(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["before"])
    shutil.rmtree(namespace["folder"], ignore_errors=True)


def languages(document: Document) -> list[Any]:
    """No block without a language, and none that is not known here."""
    opening = True
    for number, line in enumerate(document.text.splitlines(), 1):
        if line.lstrip().startswith("```"):
            word = line.strip().strip("`").split(" ")[0]
            if opening and word not in LANGUAGES:
                raise pytest.Collector.CollectError(f"{document.path}, line {number}: a block in {word!r}")
            opening = not opening
    return []


pytest_collect_file = Sybil(
    parsers=[
        languages,
        SkipParser(),
        PythonCodeBlockParser(),
        CodeBlockParser("shell", run_shell),
        CodeBlockParser("console", run_console),
        CodeBlockParser("toml", parse_toml),
    ],
    patterns=["*.md"],
    document_types={".md": Page},
    setup=setup,
    teardown=teardown,
).pytest()
