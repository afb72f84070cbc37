"""The wheels hold what they must, and the tests of this environment run on them. Only tox's ``wheels`` builds them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sysconfig
import zipfile
from pathlib import Path

import pytest

FOLDER = os.environ.get("BOUNDFLOW_WHEELS")
BUILT = os.environ.get("BOUNDFLOW_BUILT")  # wheels that are not installed
MODULES = ("boundflow_core", "boundflow_interval", "boundflow_onnx", "boundflow_crown", "boundflow_bab")
ALL = (*MODULES, "boundflow_tvm")

if FOLDER is None:
    pytest.skip("BOUNDFLOW_WHEELS is not set: no wheels were built", allow_module_level=True)


def contents(module: str) -> set[str]:
    (wheel,) = Path((FOLDER if module in MODULES else BUILT) or "").glob(f"{module}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.mark.parametrize("module", ALL)
def test_wheel_holds_every_file_of_the_source(module: str, repository_root: Path) -> None:
    source = repository_root / module.replace("_", "-") / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in (source / module).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    names = contents(module)
    assert f"{module}/py.typed" in names
    assert files <= names
    assert not [name for name in names if not name.startswith(module)]


@pytest.mark.parametrize("module", ALL)
def test_wheel_holds_the_licence(module: str) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in contents(module))


@pytest.mark.parametrize("module", MODULES)
def test_wheel_is_what_is_imported(module: str) -> None:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.submodule_search_locations is not None
    for location in spec.submodule_search_locations:
        assert Path(location).parent == Path(sysconfig.get_path("purelib"))


@pytest.mark.parametrize("module", MODULES)
def test_the_distribution_asks_for_no_torch(module: str) -> None:
    required = importlib.metadata.requires(module.replace("_", "-")) or []
    assert not [line for line in required if line.startswith("torch") and "extra ==" not in line]


def test_demo_runs_from_the_wheels(tmp_path: Path) -> None:
    """Networks, test images and the script are where the installed package looks for them."""
    program = Path(sysconfig.get_path("scripts")) / "boundflow"
    done = subprocess.run([program, "demo"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ibp" in done.stdout
