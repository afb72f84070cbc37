"""Starting is light: neither importing the package nor help nor the list of plugins imports a heavy package."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "onnx", "onnxruntime", "tvm", "matplotlib", "sklearn")

# What was imported is printed on stderr when the process ends, as stdout belongs to the command.
RUNNER = """
import atexit, json, resource, sys

def report():
    used = resource.getrusage(resource.RUSAGE_SELF)
    top = sorted({name.partition(".")[0] for name in sys.modules})
    cpu = used.ru_utime + used.ru_stime
    print(json.dumps({"modules": top, "all": sorted(sys.modules), "cpu": cpu}), file=sys.stderr)

atexit.register(report)
"""

CASES = {
    "import": "import boundflow_core",
    "every public name": "import boundflow_core as bf; [getattr(bf, name) for name in bf.__all__]",
    "help": "from boundflow_core.cli.main import main; main(['--help'])",
    "help of a command": "from boundflow_core.cli.main import main; main(['bound', '--help'])",
    "plugins": "from boundflow_core.cli.main import main; main(['plugins'])",
    "an unknown file": "from boundflow_core.cli.main import main; main(['inspect', 'net.unheard-of'])",
}


@pytest.mark.skipif(os.name == "nt", reason="the module resource is of POSIX")
@pytest.mark.parametrize("case", CASES)
def test_nothing_heavy_is_imported(case: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUNNER + CASES[case]], capture_output=True, text=True, check=True, timeout=120
    )
    report = json.loads(done.stderr.splitlines()[-1])
    print(f"{case}: {report['cpu']:.2f} s of CPU time, {len(report['all'])} modules")
    assert "boundflow_core" in report["modules"]
    assert [name for name in HEAVY if name in report["modules"]] == []
    if case in ("import", "help"):
        assert "rich" not in report["modules"]
    if case == "import":
        assert "numpy" not in report["modules"]
