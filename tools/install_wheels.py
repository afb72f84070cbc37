"""Install all wheels of a folder into the active environment, the core with its extra ``demo``.

Usage: python tools/install_wheels.py FOLDER

The wheels are named one by one, so that none of them can come from an index, and uv's own variables still say where
their dependencies come from.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXTRAS = {"boundflow-core": "[demo]"}


def main(folder: str) -> int:
    """Install the wheels in ``folder`` with uv and return its exit status."""
    wheels = {path.name.split("-")[0].replace("_", "-"): path.resolve() for path in Path(folder).glob("*.whl")}
    if not wheels:
        print(f"no wheel in {folder}", file=sys.stderr)
        return 2
    again = [part for name in wheels for part in ("--reinstall-package", name)]
    requirements = [f"{name}{EXTRAS.get(name, '')} @ {path.as_uri()}" for name, path in sorted(wheels.items())]
    return subprocess.run(["uv", "pip", "install", *again, *requirements], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
