"""The command line without any network: help, wrong usage, bad files, and what to install when only core is there."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.cli import bound, bound_table, files
from boundflow_core.cli.main import main, take_debug
from boundflow_core.errors import InputError, LoadError, UnknownNameError
from boundflow_core.extension import Command, Method
from boundflow_core.plugins import Registry, hookimpl, manager, registry


@pytest.fixture
def only_core(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if no other distribution were installed."""
    monkeypatch.setattr(manager, "installed_entry_points", lambda: ())
    manager.reset()
    yield
    manager.reset()


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """The one line on stderr, with nothing on stdout."""
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("boundflow: error: ") and err.count("\n") == 1
    assert "Traceback" not in err
    return err


# -- help and usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_lists_the_commands(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for command in registry().commands.values():
        assert f"  {command.name} " in out and command.doc.split()[0] in out


@pytest.mark.parametrize("name", ["plugins", "inspect", "bound", "plan", "new-plugin", "demo"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: boundflow {name} ")
    command = registry().command(name).load()
    assert command.help is not None and command.help.partition("\n")[0].rstrip(".") != ""
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert bf.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "no command is called 'fly'"),
        (["bnd"], "did you mean 'bound'?"),
        (["verify"], "pip install boundflow-bab"),
        (["--fast"], "--fast"),
        (["plugins", "--jsn"], "--json"),
        (["plugins", "extra"], "extra"),
        (["inspect"], "NET"),
        (["inspect", "x.onnx", "--graph", "--json", "-"], "exclude each other"),
        (["bound", "x.onnx"], "give --vnnlib PROP, or --center X.npy and --eps E"),
        (["bound", "x.onnx", "--center", "x.npy"], "--eps"),
        (["bound", "x.onnx", "--eps", "1"], "--center"),
        (["bound", "x.onnx", "--vnnlib", "p", "--center", "x.npy"], "--center does not go with --vnnlib"),
        (["bound", "x.onnx", "--vnnlib", "p", "--eps", "0"], "--eps does not go with --vnnlib"),
        (["bound", "x.onnx", "--vnnlib", "p", "--norm", "2"], "--norm does not go with --vnnlib"),
        (["bound", "x.onnx", "--center", "x.npy", "--eps", "-1"], "'-1'"),
        (["bound", "x.onnx", "--center", "x.npy", "--eps", "nan"], "'nan'"),
        (["bound", "x.onnx", "--center", "x.npy", "--eps", "1/0"], "'1/0'"),
        (["bound", "x.onnx", "--center", "x.npy", "--eps", "small"], "'small'"),
        (["bound", "x.onnx", "--center", "x.npy", "--eps", "1", "--norm", "3"], "'3'"),
        (["bound", "x.onnx", "--center", "x.npy", "--eps", "1", "--dtype", "int8"], "'int8'"),
        (["demo", "--methods", " , "], "--methods names no method"),
    ],
)
def test_wrong_usage_is_one_line_with_a_hint(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], only_core: None
) -> None:
    err = error_of(capsys, *arguments)
    assert words in err
    assert "--help`)" in err or "--methods" in err


def test_eps_may_be_a_fraction() -> None:
    context, parameter = click.Context(click.Command("x")), click.Option(["--eps"])
    assert bound.radius(context, parameter, "8/255") == 8 / 255
    assert bound.radius(context, parameter, "1e-3") == 1e-3
    assert bound.radius(context, parameter, "0") == 0
    assert bound.radius(context, parameter, None) is None


# -- only core --------------------------------------------------------------------------------------------------------


def test_core_alone_says_which_distribution_to_install(capsys: pytest.CaptureFixture[str], only_core: None) -> None:
    with pytest.raises(UnknownNameError, match="pip install boundflow-onnx"):
        bf.load("x.onnx")
    assert "pip install boundflow-onnx" in error_of(capsys, "inspect", "x.onnx")
    bounding = ("bound", "x.onnx", "--vnnlib", "p.vnnlib")
    assert "pip install boundflow-interval" in error_of(capsys, *bounding)
    assert "pip install boundflow-crown" in error_of(capsys, *bounding, "--method", "crown")
    with pytest.raises(UnknownNameError, match="pip install boundflow-onnx"):
        bf.read_property("p.vnnlib")


def test_an_unknown_executor_is_found_before_the_network_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, only_core: None
) -> None:
    @hookimpl
    def boundflow_register_methods() -> list[Method]:
        return [Method("slow", "", (), print, rank=100), Method("quick", "", (), print, rank=5)]

    monkeypatch.setattr("boundflow_core.builtin.boundflow_register_methods", boundflow_register_methods, raising=False)
    manager.reset()
    assert bound.default_method(registry()) == "quick"
    err = error_of(capsys, "bound", "x.onnx", "--vnnlib", "p", "--executor", "tvm")
    assert "pip install boundflow-tvm" in err


def test_plugins_with_core_alone(capsys: pytest.CaptureFixture[str], only_core: None) -> None:
    assert main(["plugins", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["plugins"]
    assert (record["name"], record["status"]) == ("core", "active")
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    assert "boundflow-core" in out and "active" in out


# -- errors -----------------------------------------------------------------------------------------------------------


def command_that(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make `boundflow demo` raise ``error``."""

    @click.command()
    def command() -> None:
        raise error

    commands = {"demo": Command("demo", "", lambda: command)}
    monkeypatch.setattr(
        "boundflow_core.cli.main.registry",
        lambda: Registry(commands=commands),
    )


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (LoadError("net.onnx: truncated\nat byte 7"), 2, "boundflow: error: net.onnx: truncated at byte 7\n"),
        (FileNotFoundError(2, "No such file or directory", "a.npy"), 2, "a.npy"),
        (MemoryError("Unable to allocate 9 TiB"), 2, "out of memory (Unable to allocate 9 TiB)"),
        (ZeroDivisionError("division by zero"), 1, "a bug in BoundFlow"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_errors_are_one_line_and_debug_shows_more(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(monkeypatch, error)
    assert words in error_of(capsys, "demo", code=code)
    for arguments in (["--debug", "demo"], ["demo", "--debug"]):
        assert main(arguments) == code
        err = capsys.readouterr().err
        assert "Traceback" in err and words.splitlines()[0] in err


def test_debug_is_taken_from_anywhere_but_after_the_dashes() -> None:
    assert take_debug(["a", "--debug", "b"]) == (True, ["a", "b"])
    assert take_debug(["a", "--", "--debug"]) == (False, ["a", "--", "--debug"])


def test_a_command_that_cannot_be_imported_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> click.Command:
        raise ImportError("no module named wings")

    found = Registry(commands={"fly": Command("fly", "Fly.", load)})
    monkeypatch.setattr("boundflow_core.cli.main.registry", lambda: found)
    assert "'fly' cannot be loaded: no module named wings" in error_of(capsys, "fly")
    assert main([]) == 0  # help does not need it
    assert "Fly." in capsys.readouterr().out


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_pipe_that_closes_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "boundflow_core", "plugins"]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False, timeout=120)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


# -- files ------------------------------------------------------------------------------------------------------------


def test_arrays_are_read(tmp_path: Path) -> None:
    for array in (np.zeros((2, 3), np.float32), np.arange(4), np.array(1.5), np.array([True])):
        np.save(tmp_path / "x.npy", array)
        found = files.read_array(str(tmp_path / "x.npy"))
        assert found.dtype == array.dtype and np.array_equal(found, array)


def test_bad_arrays_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    contents = {
        "objects": np.array([{}, None], dtype=object),
        "text": np.array(["a"]),
        "complex": np.array([1j]),
        "nan": np.array([1.0, np.nan]),
        "infinity": np.array([-np.inf]),
    }
    for what, array in contents.items():
        np.save(path, array, allow_pickle=True)
        with pytest.raises(InputError, match=r"x\.npy: "):
            files.read_array(str(path))
            pytest.fail(what)
    np.save(path, np.zeros(1000))
    whole = path.read_bytes()
    huge = whole.replace(b"(1000,)", b"(10**18,)")
    for damaged in (b"", whole[:4], whole[:40], whole[:-8], b"not numpy at all" * 9, huge):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"x\.npy: "):
            files.read_array(str(path))
    np.savez(tmp_path / "y.npz", a=np.zeros(3))
    for name in ("y.npz", "missing.npy", "."):
        with pytest.raises(InputError):
            files.read_array(str(tmp_path / name))


def test_json_has_no_infinity() -> None:
    nested = files.finite_or_text(np.array([[1.5, np.inf], [-np.inf, np.nan]]))
    assert nested == [[1.5, "inf"], ["-inf", "nan"]]
    assert json.loads(json.dumps(nested, allow_nan=False)) == nested
    assert files.finite_or_text(np.array([[0.1]], np.float32)) == [[float(np.float32(0.1))]]


def test_json_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "out.json"
    files.check_output(str(path))
    assert list(tmp_path.iterdir()) == []  # checking leaves nothing
    files.write_json({"a": 1}, str(path))
    assert json.loads(path.read_text()) == {"a": 1}
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("boundflow_core.cli.files.os.fsync", fail)
    with pytest.raises(InputError, match="No space left"):
        files.write_json({"b": 2}, str(path))
    assert [item.name for item in tmp_path.iterdir()] == ["out.json"]
    assert json.loads(path.read_text()) == {"a": 1}


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_pipes_are_written_to_and_never_replaced(tmp_path: Path) -> None:
    """The same holds for devices; a pipe of the test's own stands for them, as replacing /dev/null would do harm."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        files.check_output(str(path))
        files.write_json({"a": 1}, str(path))
        assert path.is_fifo() and [item.name for item in tmp_path.iterdir()] == ["pipe"]
        assert json.loads(os.read(reader, 100)) == {"a": 1}
    finally:
        os.close(reader)


def test_links_stay_links(tmp_path: Path) -> None:
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    link.symlink_to(real)
    files.check_output(str(link))
    files.write_json({"a": 1}, str(link))
    assert link.is_symlink() and json.loads(real.read_text()) == {"a": 1}


@pytest.mark.parametrize("name", ["no/such/folder/out.json", ".", "a-file/out.json"])
def test_outputs_that_cannot_be_written_are_found_first(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], only_core: None
) -> None:
    tmp_path.joinpath("a-file").write_text("")
    path = str(tmp_path / name)
    for arguments in (["inspect", "x.onnx"], ["bound", "x.onnx", "--vnnlib", "p"], ["demo"]):
        assert path in error_of(capsys, *arguments, "--json", path)


# -- what is shown ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, 0.1, -0.1, 1 / 3, -2 / 3, 123456789.123, -1e-30, 1e30, 5e-324])
def test_shown_numbers_are_bounds_still(value: float) -> None:
    low, high = float(bound_table.rounded_down(value)), float(bound_table.rounded_up(value))
    assert low <= value <= high
    assert high - low <= abs(value) * 1e-6 + 1e-320


def test_shown_numbers_are_short() -> None:
    assert bound_table.rounded_down(1 / 3) == "0.3333333"
    assert bound_table.rounded_up(1 / 3) == "0.3333334"
    assert bound_table.rounded_up(2.0) == "2"
    assert bound_table.rounded_down(float("-inf")) == "-inf"
    assert bound_table.size_text(1000) == "1000 B" and bound_table.size_text(1 << 31) == "2.0 GiB"


def test_the_collector_of_cycles_is_set_up_for_the_program_alone() -> None:
    before = gc.get_threshold()
    assert main(["plugins"]) == 0 and gc.get_threshold() == before
    code = "import gc, sys; sys.argv[1:] = ['plugins']; main(); print(gc.get_threshold() == COLLECTED_AFTER)"
    done = subprocess.run(
        [sys.executable, "-c", f"from boundflow_core.cli.main import COLLECTED_AFTER, main; {code}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines()[-1] == "True"
