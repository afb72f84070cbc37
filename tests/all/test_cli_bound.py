"""`boundflow bound` and `boundflow inspect` on real files: the demo's networks, and the benchmarks where they are."""

from __future__ import annotations

import csv
import json
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import boundflow_core as bf
from boundflow_core.cli.bound import Outcome, default_method
from boundflow_core.cli.bound_table import summary
from boundflow_core.cli.inspect import support, verdict
from boundflow_core.cli.main import main
from boundflow_core.extension import Domain, Method
from boundflow_core.plugins import Registry, registry

KEYS = ["method", "executor", "executor_reason", "dtype", "lower", "upper", "seconds", "storage", "tasks"]
KEYS += ["lowering", "rounding", "kernels"]
CENTER = np.full((1, 8, 8), 0.5, np.float32)


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A network with input [1, 8, 8] and 10 outputs."""
    path = tmp_path_factory.mktemp("networks") / "digits_cnn.onnx"
    with as_file(files("boundflow_core.demo").joinpath("data", path.name)) as shipped:
        path.write_bytes(shipped.read_bytes())
    return str(path)


@pytest.fixture
def center(tmp_path: Path) -> str:
    np.save(tmp_path / "x.npy", CENTER)
    return str(tmp_path / "x.npy")


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What ``bound ... --json -`` prints: JSON and nothing else."""
    assert main(["bound", *arguments, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    result: dict[str, Any] = json.loads(out)
    assert list(result) == KEYS
    return result


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("boundflow: error: ") and err.count("\n") == 1
    return err


def outputs_of(net: str, inputs: NDArray[Any]) -> NDArray[np.float64]:
    """What onnxruntime makes of inputs [N, *sample], [N, n], one at a time."""
    session = onnxruntime.InferenceSession(net)
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in given.shape]
    kind = np.float64 if given.type == "tensor(double)" else np.float32
    rows = [session.run(None, {given.name: x.astype(kind).reshape(shape)})[0].reshape(-1) for x in inputs]
    return np.stack(rows).astype(np.float64)


def corners_and_inside(lower: NDArray[Any], upper: NDArray[Any], count: int) -> NDArray[np.float64]:
    """Points of one box [*sample]: random corners and random points within, [count, *sample]."""
    random = np.random.default_rng(0)
    share = random.random((count, *lower.shape))
    share[: count // 2] = share[: count // 2] < 0.5
    points: NDArray[np.float64] = lower + share * (upper - lower)
    return points


def vnnlib(path: Path, lower: NDArray[Any], upper: NDArray[Any], outputs: int) -> str:
    """Write a property with one box per row of ``lower`` [B, n], and Y_0 <= 0 as what is unsafe."""
    names = [f"X_{i}" for i in range(lower.shape[1])]
    lines = [f"(declare-const {name} Real)" for name in [*names, *(f"Y_{i}" for i in range(outputs))]]
    boxes = [
        " ".join(f"(>= {n} {float(a):.17g}) (<= {n} {float(b):.17g})" for n, a, b in zip(names, low, up, strict=True))
        for low, up in zip(lower, upper, strict=True)
    ]
    lines.append("(assert (or " + " ".join(f"(and {box} (<= Y_0 0.0))" for box in boxes) + "))")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


# -- bound ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["reference", "torch"])
def test_json_holds_what_the_contract_says(
    executor: str, cnn: str, center: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_json(capsys, cnn, "--center", center, "--eps", "4/255", "--method", "ibp", "--executor", executor)
    assert (result["method"], result["executor"], result["dtype"]) == ("ibp", executor, "float32")
    assert list(result["seconds"]) == ["load", "compile", "first_run", "run"]
    assert all(seconds >= 0 for seconds in result["seconds"].values())
    assert 0 < result["storage"]["peak_bytes"] <= result["storage"]["naive_bytes"]
    assert result["tasks"] == len(bf.compile(cnn, method="ibp").plan.tasks)
    assert list(result["lowering"]) == ["ops", "fallbacks"]
    assert sum(result["lowering"]["ops"].values()) > 0
    lower, upper = np.array(result["lower"]), np.array(result["upper"])
    assert lower.shape == upper.shape == (1, 10)
    found = outputs_of(cnn, corners_and_inside(CENTER - 4 / 255, CENTER + 4 / 255, 200))
    assert (lower <= found).all() and (found <= upper).all()


def test_it_is_what_the_library_computes(cnn: str, center: str, capsys: pytest.CaptureFixture[str]) -> None:
    for dtype in ("float32", "float64"):
        result = run_json(capsys, cnn, "--center", center, "--eps", "0.01", "--dtype", dtype, "--executor", "reference")
        assert result["method"] == default_method(registry())
        expected = bf.bound(cnn, bf.LpBall(CENTER, 0.01), method=result["method"], dtype=dtype, executor="reference")
        assert np.array_equal(np.array(result["lower"]), np.asarray(expected.lower, np.float64))
        assert np.array_equal(np.array(result["upper"]), np.asarray(expected.upper, np.float64))


def test_the_norm_is_passed_on(cnn: str, center: str, capsys: pytest.CaptureFixture[str]) -> None:
    for norm, p in (("1", 1.0), ("2", 2.0), ("inf", float("inf"))):
        arguments = (
            cnn,
            "--center",
            center,
            "--eps",
            "0.05",
            "--norm",
            norm,
            "--executor",
            "reference",
            "--method",
            "ibp",
        )
        expected = bf.bound(cnn, bf.LpBall(CENTER, 0.05, p), method="ibp", executor="reference")
        assert np.array_equal(np.array(run_json(capsys, *arguments)["lower"]), np.asarray(expected.lower, np.float64))


@pytest.mark.parametrize("shape", [(3, 10), (1, 3, 10), (2, 3, 10)])
def test_specification_rows(
    shape: tuple[int, ...], cnn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(1)
    centers, rows = random.random((2, 1, 8, 8)), random.standard_normal(shape)
    np.save(tmp_path / "x.npy", centers)
    np.save(tmp_path / "c.npy", rows)
    result = run_json(
        capsys, cnn, "--center", str(tmp_path / "x.npy"), "--eps", "0.01", "--spec", str(tmp_path / "c.npy")
    )
    lower, upper = np.array(result["lower"]), np.array(result["upper"])
    assert lower.shape == upper.shape == (2, 3)
    for number, center in enumerate(centers):
        found = outputs_of(cnn, corners_and_inside(center - 0.01, center + 0.01, 50))
        found = found @ (rows if rows.ndim == 2 else rows[number % rows.shape[0]]).T
        assert (lower[number] <= found).all() and (found <= upper[number]).all()


def test_the_boxes_of_a_property_are_the_regions(cnn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lower = np.random.default_rng(2).random((3, 64))
    upper = lower + 0.02
    result = run_json(
        capsys,
        cnn,
        "--vnnlib",
        vnnlib(tmp_path / "p.vnnlib", lower, upper, 10),
        "--dtype",
        "float64",
        "--method",
        "ibp",
    )
    expected = bf.bound(cnn, bf.Box(lower.reshape(3, 1, 8, 8), upper.reshape(3, 1, 8, 8)), dtype="float64")
    np.testing.assert_allclose(np.array(result["lower"]), expected.lower, rtol=1e-12)
    np.testing.assert_allclose(np.array(result["upper"]), expected.upper, rtol=1e-12)


def test_a_file_and_a_table(cnn: str, center: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bounds.json"
    assert main(["bound", cnn, "--center", center, "--eps", "0.01", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert list(result) == KEYS
    printed, err = capsys.readouterr()
    assert err == ""
    rows = [line.split() for line in printed.splitlines() if line.split() and line.split()[0].isdigit()]
    assert [int(row[0]) for row in rows] == list(range(10))
    for (_, low, up), lower, upper in zip(rows, result["lower"][0], result["upper"][0], strict=True):
        assert float(low) <= lower <= upper <= float(up)
        assert float(low) == pytest.approx(lower, rel=1e-5) and float(up) == pytest.approx(upper, rel=1e-5)
    assert f"executor {result['executor']}" in printed and "1 region;" in printed
    assert sorted(item.name for item in tmp_path.iterdir()) == ["bounds.json", "x.npy"]


def test_many_rows_are_cut_in_the_table(cnn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.stack([CENTER] * 40))
    assert main(["bound", cnn, "--center", str(tmp_path / "x.npy"), "--eps", "0"]) == 0
    printed = capsys.readouterr().out
    assert "..." in printed and printed.count("\n") < 40 and "40 regions" in printed


def test_what_falls_back_is_shown() -> None:
    empty = np.zeros((1, 1))
    outcome = Outcome("m", "e", "float32", "nearest", empty, empty, {"load": 0.1}, 1, 2, 3, {"e": 4}, {"no kernel": 5})
    assert summary(outcome)[1:] == ["fallback, 5 operations: no kernel"]
    assert "3 tasks; operations: 4 on e" in summary(outcome)[0]


def test_json_of_bounds_that_are_not_finite_is_json() -> None:
    low, up = np.array([[-np.inf, 1.0]]), np.array([[np.inf, 2.0]])
    values = Outcome("m", "e", "float32", "nearest", low, up, {}, 0, 0, 1, {}, {}).to_json()
    assert json.loads(json.dumps(values, allow_nan=False))["lower"] == [["-inf", 1.0]]


def test_bad_input_is_one_line_that_names_the_file(
    cnn: str, center: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def saved(name: str, array: NDArray[Any]) -> str:
        np.save(tmp_path / name, array)
        return str(tmp_path / name)

    ball = ("--center", center, "--eps", "0.1")
    small = vnnlib(tmp_path / "small.vnnlib", np.zeros((1, 5)), np.ones((1, 5)), 10)
    narrow = vnnlib(tmp_path / "narrow.vnnlib", np.zeros((1, 64)), np.ones((1, 64)), 3)
    truncated = tmp_path / "truncated.onnx"
    truncated.write_bytes(Path(cnn).read_bytes()[:-1000])
    malformed = tmp_path / "malformed.vnnlib"
    malformed.write_text("(declare-const X_0 Real)\n(assert (>= X_0 zero))\n")
    out = str(tmp_path / "out.json")
    for arguments, words in [
        ((cnn, "--center", saved("a.npy", np.zeros((8, 8))), "--eps", "1"), ["a.npy", "[8, 8]", "[1, 8, 8]"]),
        ((cnn, "--center", saved("b.npy", np.zeros((0, 1, 8, 8))), "--eps", "1"), ["b.npy", "[0, 1, 8, 8]"]),
        ((cnn, "--center", saved("c.npy", np.full((1, 8, 8), np.nan)), "--eps", "1"), ["c.npy", "not finite"]),
        ((cnn, "--center", "missing.npy", "--eps", "1"), ["missing.npy"]),
        ((cnn, *ball, "--spec", saved("d.npy", np.ones((3, 9)))), ["d.npy", "[3, 9]", "[S, 10]"]),
        ((cnn, *ball, "--spec", saved("e.npy", np.ones(10))), ["e.npy", "[10]"]),
        ((cnn, *ball, "--spec", saved("f.npy", np.ones((2, 3, 10)))), ["f.npy", "2 regions"]),
        ((cnn, "--vnnlib", small), ["small.vnnlib", "5 inputs", "64"]),
        ((cnn, "--vnnlib", narrow), ["narrow.vnnlib", "3 outputs", "10"]),
        ((cnn, "--vnnlib", str(malformed)), ["malformed.vnnlib:2:"]),
        ((cnn, "--vnnlib", "missing.vnnlib"), ["missing.vnnlib"]),
        ((str(truncated), *ball), ["truncated.onnx"]),
        (("missing.onnx", *ball), ["missing.onnx"]),
        ((str(tmp_path), *ball), [tmp_path.name]),
        ((cnn, *ball, "--method", "ipb"), ["'ipb'", "did you mean 'ibp'"]),
        ((cnn, *ball, "--executor", "abacus"), ["'abacus'", "reference, torch"]),
    ]:
        err = error_of(capsys, "bound", *arguments, "--json", out)
        for word in words:
            assert word in err, err
        assert not Path(out).exists()


# -- inspect ----------------------------------------------------------------------------------------------------------


def test_inspect_as_json(cnn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", cnn, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["input"]["shape"], found["output"]["shape"]) == ([1, 8, 8], [10])
    assert found["operators"]["conv2d"] >= 1 and found["operators"]["relu"] >= 1
    assert sum(found["operators"].values()) == len(found["layers"])
    assert found["parameters"] == sum(layer["parameters"] for layer in found["layers"]) > 0
    assert found["methods"]["ibp"] == {"supported": True, "missing": {}, "reason": ""}


def test_inspect_as_text(cnn: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", cnn]) == 0
    out = capsys.readouterr().out
    assert "[1, 8, 8]" in out and "conv2d" in out and "ibp: supported" in out
    assert main(["inspect", cnn, "--graph"]) == 0
    assert capsys.readouterr().out.startswith("graph ")


def test_inspect_names_the_nodes_without_a_rule(cnn: str) -> None:
    graph = bf.load(cnn)
    rules = dict.fromkeys({node.op for node in graph.nodes} - {"relu"}, print)
    plugins = Registry(domains={"d": Domain("d", "", rules)})
    found = support(graph, Method("m", "", ("d",), print), plugins)
    assert not found.supported
    assert found.missing == {"relu": tuple(node.name for node in graph.nodes if node.op == "relu")}
    assert all(name in verdict(found) for name in found.missing["relu"])
    absent = support(graph, Method("m", "", ("d", "gone"), print), plugins)
    assert not absent.supported and "'gone'" in verdict(absent)
    assert support(graph, Method("m", "", (), print), plugins).supported


# -- benchmarks -------------------------------------------------------------------------------------------------------


def test_every_benchmark_family(shared_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first instance of each family: finite bounds on every box that contain what onnxruntime computes."""
    folder = shared_dir / "benchmarks"
    first: dict[str, dict[str, str]] = {}
    with open(folder / "instances.csv", newline="") as file:
        for row in csv.DictReader(file):
            first.setdefault(row["family"], row)
    assert first
    for family, row in first.items():
        net, prop = str(folder / row["path_to_onnx"]), str(folder / row["path_to_vnnlib"])
        result = run_json(capsys, net, "--vnnlib", prop, "--method", "ibp")
        lower, upper = np.array(result["lower"], np.float64), np.array(result["upper"], np.float64)
        assert np.isfinite(lower).all() and np.isfinite(upper).all(), family
        for number, (low, up) in enumerate(zip(*bf.read_property(prop).boxes(), strict=True)):
            found = outputs_of(net, corners_and_inside(low, up, 100))
            # onnxruntime rounds as well, in an order of its own
            slack = 1e-5 * np.abs(found).max()
            assert (lower[number] <= found + slack).all() and (found - slack <= upper[number]).all(), family
