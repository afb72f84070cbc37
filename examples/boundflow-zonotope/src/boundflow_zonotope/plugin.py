"""What this distribution registers with BoundFlow."""

from __future__ import annotations

from boundflow_core.extension import Domain, Method
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


@hookimpl
def boundflow_register_domains() -> list[Domain]:
    from boundflow_zonotope.domain import DOMAIN

    return [DOMAIN]


@hookimpl
def boundflow_register_methods() -> list[Method]:
    from boundflow_zonotope.methods import ZONOTOPE, ZONOTOPE_CROWN

    return [ZONOTOPE, ZONOTOPE_CROWN]
