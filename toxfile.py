"""Inline tox plugin: tells uv where pip was told to find packages.

uv does not read pip's configuration. Whoever configured pip (a local folder of wheels, another index, a certificate)
meant it for every installer, so each environment gets the same settings as uv variables. Where pip is not configured,
or where a variable is already set, nothing is added. These have to be variables: an option such as ``--find-links`` on
uv's command line would replace what the variable says instead of adding to it.
"""

from __future__ import annotations

import ast
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tox.plugin import impl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tox.config.sets import EnvConfigSet
    from tox.session.state import State

# Later sections win, as in pip itself: every command, `pip install`, PIP_* variables.
SECTIONS = ("global", "install", ":env:")


def parse_pip_config(text: str) -> dict[str, str]:
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
def pip_configuration() -> str:
    """Return the output of ``pip config list`` of the first pip at hand, or nothing where there is none."""
    for pip in ([sys.executable, "-m", "pip"], [shutil.which("python3") or "python3", "-m", "pip"], ["pip"]):
        try:
            listing = subprocess.run([*pip, "config", "list"], capture_output=True, text=True, check=True, timeout=60)
        except (OSError, subprocess.SubprocessError):
            continue
        return listing.stdout
    return ""


@impl
def tox_add_env_config(env_conf: EnvConfigSet, state: State) -> None:
    """Add the variables to ``set_env`` of every environment that does not set them itself."""
    variables = uv_variables(parse_pip_config(pip_configuration()))
    env_conf["set_env"].update({k: v for k, v in variables.items() if not os.environ.get(k)}, override=False)
