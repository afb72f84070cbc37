"""What ``boundflow new-plugin`` writes, and what it refuses. That it works is in tests/all/test_new_plugin.py."""

from __future__ import annotations

import ast
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from boundflow_core.cli.main import main
from boundflow_core.extension import Domain
from boundflow_core.plugins import BOUNDFLOW_API, Registry
from boundflow_core.scaffold import KINDS, contents


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_distribution_is_written(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "boundflow-an-octagon", "--kind", kind]) == 0
    folder = here / "boundflow-an-octagon"
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == set(contents("boundflow-an-octagon", kind, "0.1.0"))
    assert {"pyproject.toml", "README.md", "tests/test_kit.py", "tests/test_to_do.py"} <= found
    assert "src/boundflow_an_octagon/plugin.py" in found
    text = capsys.readouterr().out
    assert all(path in text for path in found)
    assert list(here.iterdir()) == [folder]  # nothing is left beside it


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_code_without_a_blank_left(kind: str) -> None:
    found = contents("boundflow-an-octagon", kind, "0.1.0")
    for path, text in found.items():
        assert "$" not in text, path
        if path.endswith(".py"):
            ast.parse(text)
    assert str(BOUNDFLOW_API) in found["src/boundflow_an_octagon/plugin.py"]
    assert 'an-octagon = "boundflow_an_octagon.plugin"' in found["pyproject.toml"]
    assert any("TODO" in text for path, text in found.items() if path.startswith("src/"))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_tidy(kind: str, here: Path) -> None:
    ruff = shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    assert main(["new-plugin", "my-octagon", "--kind", kind]) == 0
    rules = ["--isolated", "--line-length", "120"]
    for command in (["check", "--select", "B,C4,E,F,I,PIE,RUF,SIM,UP,W"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *command, *rules, "."], cwd=here / "my-octagon", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Octagon", "such as 'octagon'"),
        ("8gon", "such as 'gon'"),
        ("an octagon", "such as 'an-octagon'"),
        ("an--octagon", "such as 'an-octagon'"),
        ("../octagon", "such as 'octagon'"),
        ("", "such as 'boundflow-octagon'"),
        ("boundflow", "is taken"),
        ("boundflow-core", "is taken"),
        ("json", "would hide one of Python's own"),
        ("lambda", "would hide one of Python's own"),
        ("core", "'core' of boundflow-core is installed"),
        ("test", "is taken"),
        ("tests", "is taken"),
        ("numpy", "a module 'numpy' is installed"),
        ("importlib-metadata", "a module 'importlib_metadata' is installed"),
        ("zz-made-up", "a distribution 'zz-made-up' is installed"),
        ("a" * 300, "100 characters at most, not 300"),
    ],
)
def test_a_name_that_cannot_work_is_refused(
    name: str,
    words: str,
    here: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    info = (
        tmp_path_factory.mktemp("site") / "zz_made_up-1.dist-info"
    )  # the modules of a distribution may have other names
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: zz-made-up\nVersion: 1\n")
    monkeypatch.syspath_prepend(info.parent)
    assert main(["new-plugin", name, "--kind", "domain"]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert not list(here.iterdir())


def test_a_name_that_is_among_those_installed_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "torch", "--kind", "frontend"]) == 2
    assert "'torch' is among the frontends that are installed" in capsys.readouterr().err


def test_a_mere_folder_of_the_name_is_no_module(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here.joinpath("octagon").mkdir()
    monkeypatch.syspath_prepend(here)
    assert main(["new-plugin", "octagon", "--kind", "domain", "--folder", "other"]) == 0


def test_an_operator_that_exists_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = Registry(domains={"d": Domain("d", "", {"swish": print})})
    monkeypatch.setattr("boundflow_core.cli.new_plugin.registry", lambda: registry)
    for name in ("relu", "boundflow-relu", "swish"):
        assert main(["new-plugin", name, "--kind", "op"]) == 2
        assert f"there is an operator '{name.removeprefix('boundflow-')}' already" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["octagon", "sp ace", "{here}/whole", "{here}/wh ole"])
def test_what_to_do_next_can_be_typed(folder: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = folder.format(here=here)
    assert main(["new-plugin", "octagon", "--kind", "domain", "--folder", folder]) == 0
    steps = capsys.readouterr().out.partition("next:\n")[2].splitlines()
    install, *tests = [shlex.split(step, comments=True) for step in steps]
    assert install[:3] == ["pip", "install", "-e"]
    path, bracket, extra = install[3].partition("[")
    assert (bracket, extra) == ("[", "testing]") and path.startswith(("./", "/"))
    assert (here / path).samefile(here / folder)
    assert [step[0] for step in tests] == ["pytest"] * 3 and all((here / step[1]).exists() for step in tests)
    assert all(len(step) == 2 for step in tests)


def test_nothing_is_written_over(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = here / "octagon"
    folder.mkdir()
    folder.joinpath("work.txt").write_text("of a week")
    assert main(["new-plugin", "octagon", "--kind", "domain"]) == 2
    assert "octagon: exists already; name another folder with --folder" in capsys.readouterr().err
    assert folder.joinpath("work.txt").read_text() == "of a week"
    assert main(["new-plugin", "octagon", "--kind", "domain", "--folder", "nowhere/octagon"]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["new-plugin", "octagon", "--kind", "domain", "--folder", "other"]) == 0
    assert sorted(path.name for path in here.iterdir()) == ["octagon", "other"]


def test_the_kind_must_be_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-plugin", "octagon", "--kind", "wing"]) == 2
    assert "'domain', 'op', 'frontend', 'lowering', 'branching'" in capsys.readouterr().err
    assert main(["new-plugin", "octagon"]) == 2
    assert "--kind" in capsys.readouterr().err
