"""Real distributions on the path, broken in the ways distributions are: the host goes on, and says what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

GOOD = """
from boundflow_core.extension import Method
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


def emit(context):
    return context.lower, context.upper


@hookimpl
def boundflow_register_methods():
    return [Method({name!r}, "made for a test", (), emit)]
"""


def install(folder: Path, distribution: str, entry_points: str, version: str = "1.2.3", **modules: str) -> None:
    """Write a distribution as an installer leaves it: modules and a dist-info folder."""
    info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    info.joinpath("entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        folder.joinpath(f"{module}.py").write_text(text)


def plugin(folder: Path, distribution: str, name: str, module: str, text: str) -> None:
    install(folder, distribution, f"[boundflow.plugins]\n{name} = {module}\n", **{module: text})


def run(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("BOUNDFLOW_")}
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "boundflow_core", *arguments],
        env={**inherited, "PYTHONPATH": path, **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def records(folder: Path, **environ: str) -> dict[str, list[dict[str, Any]]]:
    """What `boundflow plugins --json` says, by distribution; the command must succeed and be quiet on stderr."""
    done = run(folder, "plugins", "--json", **environ)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, list[dict[str, Any]]] = {}
    for record in json.loads(done.stdout)["plugins"]:
        found.setdefault(record["distribution"], []).append(record)
    return found


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """One good distribution among broken ones."""
    plugin(tmp_path, "zz-good", "zz-good", "zz_good", GOOD.format(name="fine"))
    plugin(tmp_path, "zz-raises", "zz-raises", "zz_raises", "raise RuntimeError('no licence found')\n")
    plugin(tmp_path, "zz-syntax", "zz-syntax", "zz_syntax", "def broken(:\n")
    plugin(tmp_path, "zz-exits", "zz-exits", "zz_exits", "import sys\nsys.exit('leaving')\n")
    plugin(tmp_path, "zz-needs", "zz-needs", "zz_needs", "import a_package_that_is_not_there\n")
    plugin(tmp_path, "zz-old", "zz-old", "zz_old", GOOD.format(name="x").replace("(1, 0)", "(0, 3)"))
    plugin(tmp_path, "zz-silent", "zz-silent", "zz_silent", GOOD.format(name="x").replace("BOUNDFLOW_API", "API"))
    plugin(tmp_path, "zz-twin", "zz-taken", "zz_twin", GOOD.format(name="twin"))
    plugin(tmp_path, "zz-other-twin", "zz-taken", "zz_other_twin", GOOD.format(name="other"))
    plugin(tmp_path, "zz-author", "zz-author", "zz_author", GOOD.format(name="copied"))
    plugin(tmp_path, "zz-copycat", "zz-zcopycat", "zz_copycat", GOOD.format(name="copied"))
    plugin(tmp_path, "zz-hook", "zz-hook", "zz_hook", GOOD.format(name="x").replace("return [", "return 1 / 0 and ["))
    plugin(tmp_path, "zz-type", "zz-type", "zz_type", GOOD.format(name="x").replace("return [", "return ['ibp'] or ["))
    plugin(tmp_path, "zz-hookless", "zz-hookless", "zz_hookless", GOOD.format(name="x").replace("_methods", "_wings"))
    install(tmp_path, "zz-gone", "[boundflow.plugins]\nzz-gone = zz_a_module_that_was_deleted\n")
    return tmp_path


EXPECTED = {
    "zz-good": ("active", ""),
    "zz-raises": ("broken", "RuntimeError: no licence found (zz_raises.py:1)"),
    "zz-syntax": ("broken", "SyntaxError"),
    "zz-exits": ("broken", "SystemExit: leaving"),
    "zz-needs": ("broken", "a_package_that_is_not_there"),
    "zz-old": ("incompatible", "upgrade the plugin"),
    "zz-silent": ("incompatible", "states no BOUNDFLOW_API"),
    "zz-twin": ("duplicate", "zz-other-twin"),
    "zz-other-twin": ("duplicate", "zz-twin"),
    "zz-author": ("duplicate", "plugin 'zz-zcopycat' of zz-copycat"),
    "zz-copycat": ("duplicate", "plugin 'zz-author' of zz-author"),
    "zz-hook": ("broken", "ZeroDivisionError"),
    "zz-type": ("broken", "'ibp'"),
    "zz-hookless": ("broken", "there is no hook boundflow_register_wings"),
    "zz-gone": ("broken", "zz_a_module_that_was_deleted"),
}


def test_each_is_a_record_that_says_why(broken: Path) -> None:
    found = records(broken)
    for distribution, (status, words) in EXPECTED.items():
        (record,) = found[distribution]
        assert (record["status"], record["version"]) == (status, "1.2.3"), record
        assert words in record["reason"], record
    assert found["zz-good"][0]["brings"] == {"methods": ["fine"]}
    assert found["boundflow-core"][0]["status"] == "active"


def test_everything_else_goes_on(broken: Path) -> None:
    done = run(broken, "--help")
    assert (done.returncode, done.stderr) == (0, "") and "bound" in done.stdout
    done = run(broken, "plugins")
    assert done.returncode == 0 and all(distribution in done.stdout for distribution in EXPECTED)
    done = run(broken, "bound", "net.onnx", "--method", "copied", "--vnnlib", "p")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "no method is called 'copied'" in done.stderr
    assert "method 'copied' is brought by plugin 'zz-author' of zz-author and by plugin 'zz-zcopycat'" in done.stderr


FAILING = """
import click

from boundflow_core.extension import Command, Executor, Frontend
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


def fails(*_):
    raise ZeroDivisionError("nobody expects this")


@hookimpl
def boundflow_register_executors():
    return [Executor("zz-executor", "", 99, fails, fails, fails)]


@hookimpl
def boundflow_register_frontends():
    return [Frontend("zz-frontend", "", fails, fails, suffixes=(".zz",))]


@hookimpl
def boundflow_register_commands():
    return [
        Command("zz-unloadable", "", fails),
        Command("zz-none", "", lambda: None),
        Command("zz-fails", "", lambda: click.Command("zz-fails", callback=fails)),
    ]
"""


def test_code_of_a_plugin_that_fails_later_is_told_from_a_bug_of_the_host(tmp_path: Path) -> None:
    plugin(tmp_path, "zz-dist", "zz-failing", "zz_failing", FAILING)
    tmp_path.joinpath("net.zz").touch()
    whose = (
        "boundflow: error: plugin 'zz-failing' of zz-dist failed at zz_failing.py:11; this looks like a bug of that pl"
    )
    for command in (["zz-unloadable"], ["zz-fails"], ["inspect", str(tmp_path / "net.zz")], ["inspect", "net"]):
        done = run(tmp_path, *command)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(whose) and done.stderr.count("\n") == 1
        assert done.stderr.endswith("ZeroDivisionError: nobody expects this\n")
    done = run(tmp_path, "zz-none")
    assert done.returncode == 2
    assert "command 'zz-none' of plugin 'zz-failing' (zz-dist) must give a Command, not NoneType" in done.stderr


def test_an_executor_that_cannot_tell_whether_it_works_is_shown_and_not_used(tmp_path: Path) -> None:
    plugin(tmp_path, "zz-dist", "zz-failing", "zz_failing", FAILING)
    reason = "its check raised ZeroDivisionError: nobody expects this"
    assert records(tmp_path)["zz-dist"][0]["unavailable"] == {"zz-executor": reason}
    assert "zz-executor" in run(tmp_path, "plugins").stdout


def test_what_a_plugin_prints_is_kept_out_of_answers(tmp_path: Path) -> None:
    text = GOOD.format(name="fine").replace("    return [", "    print('in a hook')\n    return [")
    plugin(tmp_path, "zz-loud", "zz-loud", "zz_loud", "print('at import')\n" + text)
    done = run(tmp_path, "plugins", "--json")
    assert "zz-loud" in {one["distribution"] for one in json.loads(done.stdout)["plugins"]}
    assert done.stderr == "at import\nin a hook\n"


def test_strict_stops_at_the_first(broken: Path) -> None:
    done = run(broken, "plugins", BOUNDFLOW_STRICT_PLUGINS="1")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("boundflow: error: plugin ") and done.stderr.count("\n") == 1


def test_disabled_ones_are_not_imported(broken: Path) -> None:
    names = ",".join(
        record["name"]
        for distribution, records_ in records(broken).items()
        for record in records_
        if distribution.startswith("zz-")
    )
    done = run(broken, "plugins", "--json", BOUNDFLOW_DISABLE_PLUGINS=names, BOUNDFLOW_STRICT_PLUGINS="1")
    assert done.returncode == 0
    states = {one["distribution"]: one["status"] for one in json.loads(done.stdout)["plugins"]}
    assert {states[distribution] for distribution in EXPECTED} == {"disabled"}


def test_a_name_that_disables_nothing_is_noted(tmp_path: Path) -> None:
    done = run(tmp_path, "plugins", "--json", BOUNDFLOW_DISABLE_PLUGINS="zz-typo,core")
    assert done.returncode == 0 and "zz-typo" in done.stderr and "core cannot be disabled" in done.stderr


def test_damaged_metadata_of_anybody_is_survived(tmp_path: Path) -> None:
    """Distributions that need not have to do with BoundFlow at all."""
    plugin(tmp_path, "zz-good", "zz-good", "zz_good", GOOD.format(name="fine"))
    install(tmp_path, "zz-no-section", "no section, no equals sign\n")
    install(tmp_path, "zz-no-value", "[boundflow.plugins]\na line without an equals sign\n")
    tmp_path.joinpath("zz_empty-1.dist-info").mkdir()
    nameless = tmp_path / "zz_nameless-1.dist-info"
    nameless.mkdir()
    nameless.joinpath("entry_points.txt").write_text("[boundflow.plugins]\nzz-nameless = zz_nameless\n")
    tmp_path.joinpath("zz_nameless.py").write_text(GOOD.format(name="nameless"))
    found = records(tmp_path)
    assert found["zz-good"][0]["status"] == "active"
    assert found["boundflow-core"][0]["status"] == "active"
