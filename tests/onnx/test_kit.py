"""The frontend under the conformance kit, with onnxruntime as the measure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from boundflow_core.testing import Sample, check_frontend

from .building import Array, Network, node, numbers, several
from .test_operators import runtime

NETWORKS: list[Network] = [
    *several("linear-relu", (1, 4), [node("MatMul", ["x", "w"], ["h"]), node("Relu", ["h"])], {"w": numbers(4, 3)}),
    *several("conv-tanh", (1, 2, 4, 3), [node("Conv", ["x", "w"], ["h"], pads=[1, 0, 1, 1]), node("Tanh", ["h"])],
             {"w": numbers(3, 2, 2, 2)}),
    *several("residual", (1, 3), [node("Sigmoid", ["x"], ["h"]), node("Add", ["x", "h"])]),
]  # fmt: skip


def sample_of(network: Network, folder: Path) -> Sample:
    path = folder / f"{network.name}.onnx"
    onnx.save(network.model(), path)

    def function(points: Array) -> Array:
        return np.concatenate([runtime(network.model(), x[None].astype(np.float32)) for x in points])

    return Sample(network.name, path, function)


def test_kit(tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(NETWORKS[0].model().SerializeToString()[:60])
    unknown = tmp_path / "unknown.onnx"
    onnx.save(several("unknown", (1, 3), [node("Mystery", ["x"])])[0].model(), unknown)
    samples = [sample_of(network, tmp_path) for network in NETWORKS]
    check_frontend("onnx", samples, broken=[cut, unknown, tmp_path / "none.onnx"], examples=10)


def test_what_the_frontend_misreads_is_seen(tmp_path: Path) -> None:
    sample = sample_of(NETWORKS[0], tmp_path)
    other = Sample(sample.name, sample.source, lambda points: sample.function(points) + 0.01)
    with pytest.raises(AssertionError, match="law 'outputs'"):
        check_frontend("onnx", [other], examples=3)
    check_frontend("onnx", [other], expected_failures={"linear-relu:outputs": "off on purpose"}, examples=3)
