"""Broken plugins, really installed beside good ones: the host works, and says what is wrong with whom.

Only tox's ``broken-thirdparty`` installs them; tests/core/test_broken_distributions.py fabricates more kinds of damage.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.errors import PluginError, UnknownNameError
from boundflow_core.ir.primal_builder import PrimalBuilder

BROKEN = ("zz-api", "zz-crown", "zz-raises")

if {point.dist.name for point in importlib.metadata.entry_points(group="boundflow.plugins") if point.dist} & {
    *BROKEN
} != {*BROKEN}:
    pytest.skip("the broken distributions are not installed: only tox does that", allow_module_level=True)


def boundflow(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    import os

    program = Path(sysconfig.get_path("scripts")) / "boundflow"
    return subprocess.run(
        [program, *arguments], capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **environ}
    )


def test_each_is_shown_with_its_reason() -> None:
    done = boundflow("plugins", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = {one["distribution"]: one for one in json.loads(done.stdout)["plugins"]}
    assert {name: found[name]["status"] for name in BROKEN} == {
        "zz-api": "incompatible",
        "zz-crown": "duplicate",
        "zz-raises": "broken",
    }
    assert "no licence found (zz_raises.py:3)" in found["zz-raises"]["reason"]
    assert "(99, 0)" in found["zz-api"]["reason"] and "upgrade boundflow-core" in found["zz-api"]["reason"]
    for name, other in (("zz-crown", "boundflow-crown"), ("boundflow-crown", "zz-crown")):
        assert found[name]["status"] == "duplicate"
        assert other in found[name]["reason"]
    assert {found[name]["status"] for name in ("boundflow-core", "boundflow-interval")} == {"active"}
    table = boundflow("plugins").stdout
    assert all(name in table for name in BROKEN)


def test_everything_else_works() -> None:
    g = PrimalBuilder("net", "x", (2,))
    graph = g.finish(g.op("relu", g.op("linear", g.input, np.array([[1.0, -1.0]]))))
    region = bf.Box(np.zeros((1, 2)), np.ones((1, 2)))
    np.testing.assert_allclose(bf.bound(graph, region, method="ibp").upper, [[1.0]])
    with pytest.raises(UnknownNameError, match=r"boundflow-crown, which brings it, is duplicate: .* and of zz-crown"):
        bf.bound(graph, region, method="crown")


def test_the_command_line_works(tmp_path: Path) -> None:
    assert boundflow("--help").returncode == 0
    assert "new-plugin" in boundflow("--help").stdout
    done = boundflow("new-plugin", "zz-raises", "--kind", "op", "--folder", str(tmp_path / "new"))
    assert done.returncode == 2
    assert "'zz-raises' of zz-raises is installed" in done.stderr


def test_strict_stops_at_the_first() -> None:
    done = boundflow("plugins", BOUNDFLOW_STRICT_PLUGINS="1")
    assert done.returncode == 2
    assert done.stderr.startswith("boundflow: error: plugin 'crown' of boundflow-crown is duplicate")


def test_disabled_ones_do_no_harm() -> None:
    done = boundflow(
        "plugins", "--json", BOUNDFLOW_DISABLE_PLUGINS="zz-raises,zz-api,crown", BOUNDFLOW_STRICT_PLUGINS="1"
    )
    assert done.returncode == 0
    assert {one["status"] for one in json.loads(done.stdout)["plugins"]} == {"active", "disabled"}


def test_an_error_of_the_registry_is_a_boundflow_error() -> None:
    assert issubclass(PluginError, bf.BoundFlowError)
