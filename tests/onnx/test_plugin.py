"""What the plugin brings, and that bringing it imports no onnx."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from boundflow_onnx import plugin

from .building import model_of, node


def test_api_version() -> None:
    assert plugin.BOUNDFLOW_API == (1, 0)


def test_frontend_accepts_onnx_only(tmp_path: Path) -> None:
    (frontend,) = plugin.boundflow_register_frontends()
    assert frontend.suffixes == (".onnx",)
    model = model_of([node("Relu", ["x"])], (1, 3))
    for source in ("net.onnx", Path("folder/net.onnx"), model):
        assert frontend.accepts(source)
    for source in ("net.pt", Path("onnx"), b"net.onnx", None, 3, object(), onnx.GraphProto()):
        assert not frontend.accepts(source)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    for source in (path, str(path), model):
        assert list(frontend.load(source).operators()) == ["relu"]


def test_frontend_names_its_options(tmp_path: Path) -> None:
    (frontend,) = plugin.boundflow_register_frontends()
    model = model_of([node("Relu", ["x"], ["a"]), node("Exp", ["a"])], (1, "n"))
    graph = frontend.load(model, dims={"n": 3}, output="a", converters={})
    assert graph.output_type.shape == (3,)
    assert set(frontend.options) == {"dims", "output", "converters"}


def test_property_reader(tmp_path: Path) -> None:
    (reader,) = plugin.boundflow_register_property_readers()
    path = tmp_path / "p.vnnlib"
    path.write_text(
        "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= X_0 1))(assert (>= X_0 0))(assert (>= Y_0 2))"
    )
    assert path.suffix in reader.suffixes
    assert len(reader.read(path).cases) == 1


@pytest.mark.parametrize("module", ["boundflow_onnx", "boundflow_onnx.plugin"])
def test_import_is_light(module: str) -> None:
    heavy = "sorted(set(sys.modules) & {'onnx', 'torch', 'google.protobuf', 'onnxruntime'})"
    code = f"import sys, {module}; print({heavy})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
