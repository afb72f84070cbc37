"""Public networks on compiled kernels, against the reference executor, where the folder `shared` is beside the
repository. ONNX files in, NumPy arrays in and out: no torch is needed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

import boundflow_core as bf

pytest.importorskip("onnx")

# Radius of the regions, and the methods: crown of the larger ones would take the reference minutes.
NETWORKS = {
    "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx": (0.02, ("ibp", "crown")),
    "mnist_fc/onnx/mnist-net_256x4.onnx": (0.01, ("ibp", "crown")),
    "oval21/onnx/cifar_base_kw.onnx": (0.01, ("ibp", "crown")),
    "cifar10_resnet/onnx/resnet_2b.onnx": (0.002, ("ibp", "crown")),
    "eran_sigmoid/onnx/ffnnSIGMOID__Point_6x200.onnx": (0.002, ("ibp", "crown")),
    "vit/onnx/pgd_2_3_16.onnx": (0.0001, ("ibp", "crown-ibp")),
}


@pytest.mark.slow
@pytest.mark.parametrize("path", NETWORKS)
def test_bounds_equal_the_reference(shared_dir, path):
    """Of one region, of which the second call is one program, and of three."""
    file, (eps, methods) = shared_dir / "benchmarks" / path, NETWORKS[path]
    if not file.is_file():
        pytest.skip(f"no {path} here")
    graph, rng = bf.load(file), np.random.default_rng(0)
    centre = rng.uniform(0.3, 0.7, size=(3, *graph.input_type.shape)).astype(np.float32)
    rows = rng.standard_normal((2, int(np.prod(graph.output_type.shape)))).astype(np.float32)
    for method in methods:
        options = {"method": method, "dtype": "float32", "cache": False}
        run, reference = (bf.compile(graph, executor=name, **options) for name in ("tvm", "reference"))
        for regions in (centre[:1], centre[:1], centre):
            spec = bf.LinearSpec(rows)
            got, want = run(bf.LpBall(regions, eps), spec), reference(bf.LpBall(regions, eps), spec)
            for one, other in ((got.lower, want.lower), (got.upper, want.upper)):
                scale = max(1.0, float(np.abs(other).max()))
                np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * scale)


SCRIPT = """
import sys
sys.modules["torch"] = None  # as where it is not installed
from boundflow_core.cli.main import main
code = main(sys.argv[1:])
print("compiler" if "tvm" in sys.modules else "no compiler", file=sys.stderr)
sys.exit(code)
"""


def test_a_network_of_onnx_is_bounded_without_torch_and_when_warm_without_the_compiler(tmp_path):
    """The demo's network, by processes that have never heard of torch; the second one compiles nothing."""
    path = tmp_path / "net.onnx"
    path.write_bytes(files("boundflow_core.demo").joinpath("data", "digits_cnn.onnx").read_bytes())
    np.save(tmp_path / "x.npy", np.full((1, 8, 8), 0.5, np.float32))
    arguments = ["bound", "net.onnx", "--center", "x.npy", "--eps", "0.02", "--method", "ibp", "--json", "-"]
    environment = {**os.environ, "BOUNDFLOW_CACHE_DIR": str(tmp_path / "cache")}
    found = {}
    for mode, executor in (("cold", "tvm"), ("warm", "tvm"), ("plain", "reference")):
        command = [sys.executable, "-c", SCRIPT, *arguments, "--executor", executor]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False, env=environment
        )
        assert done.returncode == 0, done.stderr
        found[mode] = json.loads(done.stdout)
        assert done.stderr.splitlines()[-1] == ("compiler" if mode == "cold" else "no compiler")
    assert found["cold"]["executor"] == "tvm" and found["cold"]["kernels"]["compiled"] > 0
    assert found["warm"]["kernels"] == {**found["cold"]["kernels"], "compiled": 0, "loaded": 1}
    for side in ("lower", "upper"):
        assert found["warm"][side] == found["cold"][side]
        np.testing.assert_allclose(found["cold"][side], found["plain"][side], rtol=1e-5, atol=1e-5)
