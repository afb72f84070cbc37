"""Every benchmark network and a property of it through ``boundflow bound``: finite bounds that contain its outputs."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import boundflow_core as bf
from boundflow_core.cli.main import main
from boundflow_core.ir.types import concrete_shape

_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"


def _instances() -> dict[str, str]:
    """One property for each network."""
    table = _FOLDER / "instances.csv"
    if not table.exists():
        return {}
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {row["path_to_onnx"]: row["path_to_vnnlib"] for row in reversed(rows)}


def test_benchmarks_are_here(shared_dir: Path) -> None:
    """Says that the tests below have nothing to do where there are no benchmarks."""
    assert len(_instances()) >= 39


@pytest.mark.parametrize(("network", "rules"), sorted(_instances().items()))
def test_bounds_contain_outputs(network: str, rules: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, prop = str(_FOLDER / network), str(_FOLDER / rules)
    assert main(["bound", path, "--vnnlib", prop, "--method", "ibp", "--json", "-"]) == 0
    answer = json.loads(capsys.readouterr().out)
    lower, upper = np.array(answer["lower"], float), np.array(answer["upper"], float)
    assert np.isfinite(lower).all() and np.isfinite(upper).all()
    corners = bf.read_property(prop).boxes()
    outputs = _outputs(path, np.random.default_rng(0), *corners)
    slack = 1e-5 * (1 + np.maximum(np.abs(lower), np.abs(upper)))
    assert (outputs >= (lower - slack)[:, None]).all() and (outputs <= (upper + slack)[:, None]).all()


def _outputs(path: str, rng: np.random.Generator, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """Outputs [B, 1000, n] of onnxruntime at points of each box: inside of it and at its corners."""
    shape = concrete_shape(bf.load(path).input_type.shape, {})
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    literal = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in entry.shape]
    assert np.prod(literal) == np.prod(shape)
    where = rng.random((len(lower), 1000, lower.shape[1]))
    where[:, 500:] = where[:, 500:] > 0.5
    low, high = lower.astype(np.float32)[:, None], upper.astype(np.float32)[:, None]
    points = np.clip((low + (high - low) * where).astype(np.float32), low, high)
    results = [
        [session.run(None, {entry.name: point.reshape(literal)})[0].ravel() for point in group] for group in points
    ]
    return np.asarray(results, float)
