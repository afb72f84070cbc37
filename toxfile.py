"""Inline tox plugin: gives every environment, as uv variables, the package sources that pip is configured with."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tools.pip_configuration import parse, read, uv_variables
from tox.plugin import impl

if TYPE_CHECKING:
    from tox.config.sets import EnvConfigSet
    from tox.session.state import State


@impl
def tox_add_env_config(env_conf: EnvConfigSet, state: State) -> None:
    """Add the variables to ``set_env`` of an environment; what tox.ini or the caller's environment sets stays."""
    variables = uv_variables(parse(read()))
    env_conf["set_env"].update({k: v for k, v in variables.items() if not os.environ.get(k)}, override=False)
