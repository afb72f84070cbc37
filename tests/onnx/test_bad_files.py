"""Files that cannot be read as networks: a typed error of one clear line that names the file."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from boundflow_core.errors import BoundFlowError, LoadError
from boundflow_onnx import load_onnx

from .building import message, model_of, node, numbers


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.onnx"
    onnx.save(model_of([node("MatMul", ["x", "w"])], (1, 3), {"w": numbers(3, 200)}), path)
    load_onnx(path)
    return path


# -- files ------------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as error:
        load_onnx(tmp_path / "none.onnx")
    message(error, "none.onnx", "No such file")


def test_directory(tmp_path: Path) -> None:
    folder = tmp_path / "net.onnx"
    folder.mkdir()
    with pytest.raises(LoadError) as error:
        load_onnx(folder)
    message(error, "net.onnx", "directory")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(good: Path) -> None:
    good.chmod(0)
    with pytest.raises(LoadError) as error:
        load_onnx(good)
    message(error, "good.onnx", "Permission denied")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"this is no network\n" * 20, "no ONNX network"),
        (bytes(range(256)) * 4, "no ONNX network"),
        (b"\0" * 100, "no ONNX network"),
        (gzip.compress(b"network"), "gzip"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    ],
    ids=["empty", "text", "bytes", "zeros", "gzip", "lfs", "no-graph"],
)
def test_not_onnx(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadError) as error:
        load_onnx(path)
    message(error, "bad.onnx", said)


def test_truncated_anywhere(good: Path) -> None:
    data = good.read_bytes()
    for length in [*range(0, len(data), 97), *range(len(data) - 20, len(data))]:
        good.write_bytes(data[:length])
        with pytest.raises(LoadError) as error:
            load_onnx(good)
        message(error, "good.onnx")


def test_any_byte_changed(good: Path) -> None:
    """Damage either gives a typed error or another legal network; nothing else ever escapes."""
    data = bytearray(good.read_bytes())
    rng = np.random.default_rng(0)
    places = [*range(40), *rng.integers(0, len(data), 100), *range(len(data) - 100, len(data))]
    for place in places:
        changed = data.copy()
        changed[place] ^= int(rng.integers(1, 256))
        good.write_bytes(changed)
        try:
            load_onnx(good)
        except BoundFlowError as error:
            assert "\n" not in str(error)


def test_opset(tmp_path: Path) -> None:
    for version in (7, 22, 99):
        model = model_of([node("Relu", ["x"])], (1, 3), opset=version)
        with pytest.raises(LoadError) as error:
            load_onnx(model)
        message(error, str(version), "8 to 21", "convert_version")
    del model.opset_import[:]
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "operator set")


# -- external data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def external(good: Path) -> Path:
    model = onnx.load(good)
    onnx.save_model(model, good, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load_onnx(good)
    return good


def test_external_data_missing(external: Path) -> None:
    (external.parent / "weights.bin").unlink()
    with pytest.raises(LoadError) as error:
        load_onnx(external)
    message(error, "good.onnx", "weights.bin", "'w'", "missing")


def test_external_data_truncated(external: Path) -> None:
    weights = external.parent / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(LoadError) as error:
        load_onnx(external)
    message(error, "good.onnx", "'w'")


def test_external_data_outside_the_folder(external: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    model = onnx.load(external, load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        entry.value = "../weights.bin" if entry.key == "location" else entry.value
    (inner / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(LoadError) as error:
        load_onnx(inner / "net.onnx")
    message(error, "net.onnx", "weights.bin")


def test_external_data_of_a_model_in_memory(external: Path) -> None:
    with pytest.raises(LoadError) as error:
        load_onnx(onnx.load(external, load_external_data=False))
    message(error, "weights.bin", "path")


# -- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_weights_that_are_not_finite(tmp_path: Path, value: float, dtype: type[np.floating[Any]]) -> None:
    weight = np.ones((3, 2), dtype)
    weight[1, 1] = value
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    path = tmp_path / "net.onnx"
    onnx.save(model_of([node("MatMul", ["x", "w"])], (1, 3), {"w": weight}, dtype=kind), path)
    with pytest.raises(LoadError) as error:
        load_onnx(path)
    message(error, "net.onnx", "'w'", "not finite")


def test_damaged_weight() -> None:
    model = model_of([node("MatMul", ["x", "w"])], (1, 3), {"w": numbers(3, 2)})
    model.graph.initializer[0].raw_data = b"12345"
    with pytest.raises(LoadError) as error:
        load_onnx(model)
    message(error, "w")
