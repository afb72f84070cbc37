"""What pip was told about where packages come from, said in uv's variables.

uv does not read pip's configuration. Whoever configured pip (a local folder of wheels, another index, a certificate)
meant it for every installer. The settings have to be variables: an option such as ``--find-links`` on uv's command line
would replace what the variable says instead of adding to it.
"""

from __future__ import annotations

import ast
import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Later sections win, as in pip itself: every command, `pip install`, PIP_* variables.
SECTIONS = ("global", "install", ":env:")


def parse(text: str) -> dict[str, str]:
    """Return option -> value from the lines of ``pip config list`` (``section.option='value'``)."""
    found: dict[str, dict[str, str]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        section, dot, option = name.rpartition(".")
        if equals and dot:
            found.setdefault(section, {})[option] = str(ast.literal_eval(value))
    return {option: value for section in SECTIONS for option, value in found.get(section, {}).items()}


def uv_variables(pip: Mapping[str, str]) -> dict[str, str]:
    """Return the uv variables that say what the pip options say; empty where pip was told nothing."""
    said = {
        "UV_FIND_LINKS": ",".join(pip.get("find-links", "").split()),
        "UV_DEFAULT_INDEX": pip.get("index-url", ""),
        "UV_INDEX": " ".join(pip.get("extra-index-url", "").split()),
        "UV_NO_INDEX": "1" if pip.get("no-index", "").lower() in {"1", "true", "yes", "on"} else "",
        "SSL_CERT_FILE": pip.get("cert", "") if Path(pip.get("cert", "")).is_file() else "",
    }
    if said["UV_INDEX"]:  # pip takes the best version of all indexes, uv by default the first index that has the name
        said["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in said.items() if value}


@functools.cache
def read() -> str:
    """Return the output of ``pip config list`` of the first pip at hand, or nothing where there is none."""
    for pip in ([sys.executable, "-m", "pip"], [shutil.which("python3") or "python3", "-m", "pip"], ["pip"]):
        try:
            listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        return listing.stdout
    return ""
