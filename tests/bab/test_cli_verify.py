"""``boundflow verify`` as people and the competition call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
from networks import least_margin, random_layers
from onnx import TensorProto, helper, numpy_helper

from boundflow_core.cli.main import main
from boundflow_core.plugins import registry


def write_net(path, layers, op="Relu"):
    """``layers`` with relus between as an ONNX file."""
    nodes, constants, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        for name, array in ((f"w{i}", weight), (f"b{i}", bias)):
            constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"h{i}"], name=f"gemm{i}", transB=1))
        value = f"h{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node(op, [value], [f"a{i}"], name=f"act{i}"))
            value = f"a{i}"
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])]
        for name, size in (("x", layers[0][0].shape[1]), (value, len(layers[-1][1])))
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "net", *ends, constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, path)


def write_prop(path, low, high, unsafe, outputs=1):
    lines = [f"(declare-const X_{i} Real)" for i in range(len(low))]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i, (a, b) in enumerate(zip(low, high, strict=True)):
        lines += [f"(assert (>= X_{i} {a}))", f"(assert (<= X_{i} {b}))"]
    path.write_text("\n".join([*lines, f"(assert {unsafe})"]) + "\n")


@pytest.fixture
def tent(tmp_path):
    """|x| over [-1, 1], with one property that holds and one that does not."""
    write_net(tmp_path / "tent.onnx", [(np.array([[1.0], [-1.0]]), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))])
    write_prop(tmp_path / "holds.vnnlib", [-1.0], [1.0], "(<= Y_0 -0.25)")
    write_prop(tmp_path / "fails.vnnlib", [-1.0], [1.0], "(>= Y_0 0.5)")
    return tmp_path


def run(capsys, *arguments):
    code = main(["verify", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_verdict_comes_first(capsys, tent):
    code, out, err = run(capsys, tent / "tent.onnx", tent / "holds.vnnlib")
    assert (code, out.splitlines()[0], err) == (0, "verified", "")
    code, out, _ = run(capsys, tent / "tent.onnx", tent / "fails.vnnlib")
    assert code == 0 and out.splitlines()[0] == "falsified" and "checked by onnxruntime" in out


def test_results_of_the_competition(capsys, tent):
    results = tent / "out.txt"
    run(capsys, tent / "tent.onnx", tent / "holds.vnnlib", "--results-file", results)
    assert results.read_text() == "unsat\n"
    run(capsys, tent / "tent.onnx", tent / "fails.vnnlib", "--results-file", results)
    first, *rest = results.read_text().splitlines()
    assert first == "sat" and rest[0].startswith("((X_0 ") and rest[1].startswith("(Y_0 ") and rest[1].endswith("))")
    x, y = (float(line.strip("()").split()[1]) for line in rest)
    assert abs(x) >= 0.5 and y == abs(np.float32(x))


def test_json_tells_the_story(capsys, tent):
    code, out, _ = run(capsys, tent / "tent.onnx", tent / "fails.vnnlib", "--json", "-")
    found = json.loads(out)
    assert code == 0 and found["verdict"] == "falsified" and found["seconds"]["all"] > 0
    assert found["counterexample"]["source"] == "onnxruntime" and sum(found["lowering"].values()) > 0


def test_float32_bounds_taken_at_their_word_are_named(capsys, tent):
    _, out, _ = run(capsys, tent / "tent.onnx", tent / "holds.vnnlib", "--trust-float32")
    assert out.splitlines()[0] == "verified (float32 bounds trusted, not confirmed)"


def test_a_search_splits_what_it_is_told_to(capsys, tent, monkeypatch):
    asked = []
    heuristic = registry().branching_heuristic("intercept")
    counting = replace(heuristic, score=lambda view: asked.append(view) or heuristic.score(view))
    monkeypatch.setattr(type(registry()), "branching_heuristic", lambda self, name: {"intercept": counting}[name])
    layers = random_layers(np.random.default_rng(3), 2, (4, 4), 1)
    least = least_margin(layers, np.full(2, -1.0), np.ones(2), np.ones((1, 1)), np.zeros(1))
    write_net(tent / "net.onnx", layers)
    write_prop(tent / "tight.vnnlib", [-1.0] * 2, [1.0] * 2, f"(<= Y_0 {least - 0.01})")
    for split, splits_neurons in (("activation", True), ("input", False)):
        asked.clear()
        options = ["--branching", "intercept", "--split", split]
        code, out, _ = run(capsys, tent / "net.onnx", tent / "tight.vnnlib", *options)
        assert code == 0 and out.splitlines()[0] == "verified" and bool(asked) == splits_neurons


def test_a_whole_benchmark(capsys, tent):
    lines = ["path_to_onnx,path_to_vnnlib,timeout_s,expected", "tent.onnx,holds.vnnlib,30,unsat"]
    (tent / "instances.csv").write_text("\n".join([*lines, "tent.onnx,fails.vnnlib,30,unsat", "no.onnx,x.vnnlib,5,"]))
    code, out, _ = run(capsys, "--batch", tent / "instances.csv")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines()[:3]] == ["verified", "falsified", "unknown"]
    assert "CONTRADICTS" in out.splitlines()[1] and "no such file" in out.splitlines()[2]
    assert out.splitlines()[-1] == "verified 1, falsified 1, unknown 1, timeout 0, contradictions 1"
    code, out, _ = run(capsys, "--batch", tent / "instances.csv", "--json", "-")
    assert json.loads(out)["counts"]["contradictions"] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tent.onnx"], "give NET and PROP"),
        (["tent.onnx", "no.vnnlib"], "no such file"),
        (["tent.onnx", "holds.vnnlib", "--timeout", "0"], "not in the range"),
        (["tent.onnx", "holds.vnnlib", "--executor", "abacus"], "abacus"),
        (["tent.onnx", "holds.vnnlib", "--branching", "coin"], "coin"),
        (["tent.onnx", "holds.vnnlib", "--split", "hairs"], "hairs"),
        (["tent.onnx", "other.vnnlib"], "2 inputs"),
        (["tent.onnx", "--batch", "x.csv"], "--batch"),
        (["cosh.onnx", "holds.vnnlib"], "Cosh"),
        (["cut.onnx", "holds.vnnlib"], "cut.onnx"),
        (["nan.onnx", "holds.vnnlib"], "nan.onnx"),
        (["tent.onnx", "cut.vnnlib"], "cut.vnnlib:"),
        (["tent.onnx", "crossed.vnnlib"], "empty input region"),
        (["tent.onnx", "holds.vnnlib", "--results-file", "no/folder/out.txt"], "no/folder"),
        (["--batch", "wrong.csv"], "wrong.csv: instance 1"),
    ],
)
def test_bad_requests_end_with_one_clear_line(capsys, tent, monkeypatch, arguments, says):
    monkeypatch.chdir(tent)
    write_prop(tent / "other.vnnlib", [0.0, 0.0], [1.0, 1.0], "(<= Y_0 0.0)")
    write_net(tent / "cosh.onnx", [(np.ones((2, 1)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))], op="Cosh")
    (tent / "cut.onnx").write_bytes((tent / "tent.onnx").read_bytes()[:60])
    write_net(tent / "nan.onnx", [(np.full((2, 1), np.nan), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))])
    (tent / "cut.vnnlib").write_text((tent / "holds.vnnlib").read_text()[:-9])
    write_prop(tent / "crossed.vnnlib", [1.0], [-1.0], "(<= Y_0 0.0)")
    (tent / "wrong.csv").write_text("tent.onnx,holds.vnnlib,soon\n")
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and len(err.splitlines()) == 1 and says in err


def test_the_competition_gets_unknown_for_what_is_not_supported(capsys, tent):
    write_net(tent / "cosh.onnx", [(np.ones((2, 1)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))], op="Cosh")
    code, out, _ = run(
        capsys, tent / "cosh.onnx", tent / "holds.vnnlib", "--vnncomp", "--results-file", tent / "out.txt"
    )
    assert code == 0 and out.startswith("unknown") and (tent / "out.txt").read_text() == "unknown\n"


def test_the_scripts_of_the_competition(tent, repository_root):
    scripts = repository_root / "boundflow-bab" / "vnncomp"
    tool = tent / "boundflow"
    tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m boundflow_core "$@"\n')
    tool.chmod(0o755)
    files = [str(tent / "tent.onnx"), str(tent / "holds.vnnlib")]
    subprocess.run([scripts / "prepare_instance.sh", "v1", "test", *files], check=True)
    subprocess.run(
        [scripts / "run_instance.sh", "v1", "test", *files, str(tent / "out.txt"), "60"],
        check=True,
        env={**os.environ, "BOUNDFLOW": str(tool)},
    )
    assert (tent / "out.txt").read_text() == "unsat\n"
    write_net(tent / "cosh.onnx", [(np.ones((2, 1)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))], op="Cosh")
    subprocess.run(
        [scripts / "run_instance.sh", "v1", "test", str(tent / "cosh.onnx"), files[1], str(tent / "other.txt"), "60"],
        check=True,
        env={**os.environ, "BOUNDFLOW": str(tool)},
    )
    assert (tent / "other.txt").read_text() == "unknown\n"
    missing = [str(tent / "no.onnx"), files[1]]
    found = subprocess.run([scripts / "prepare_instance.sh", "v1", "test", *missing], check=False, capture_output=True)
    assert found.returncode == 1 and b"no.onnx" in found.stderr
    assert subprocess.run([scripts / "run_instance.sh", "v2"], check=False, capture_output=True).returncode == 1


@pytest.fixture
def hard(tmp_path):
    """A network of 12 inputs and a property that takes longer than anybody waits."""
    numbers = np.random.default_rng(0)
    layers = random_layers(numbers, 12, (40, 40, 40), 1)
    write_net(tmp_path / "hard.onnx", layers)
    y = numbers.uniform(-1, 1, (4000, 12))
    for i, (weight, bias) in enumerate(layers):
        y = y @ weight.T + bias
        y = np.maximum(y, 0) if i < len(layers) - 1 else y
    threshold = y.min() - (y.max() - y.min())  # out of reach for attacks, and for bounds
    write_prop(tmp_path / "hard.vnnlib", [-1.0] * 12, [1.0] * 12, f"(<= Y_0 {threshold})")
    return tmp_path


def start(folder, *options):
    files = [str(folder / "hard.onnx"), str(folder / "hard.vnnlib")]
    command = [sys.executable, "-m", "boundflow_core", "verify", *files, "--executor", "reference", *options]
    # Tests that run in the background of a shell ignore interrupts, and what they start would, too.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


def test_time_is_kept(hard):
    out, err = start(hard, "--timeout", "6", "--json", "-").communicate(timeout=60)
    found = json.loads(out)
    assert found["verdict"] == "timeout" and err == ""
    assert 6 <= found["seconds"]["all"] < 16  # not a matter of speed: it does end


def test_interrupted_it_tells_what_is_known(hard):
    process = start(hard, "--timeout", "50")
    time.sleep(8)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and out.startswith("unknown (interrupted)") and "Traceback" not in err
