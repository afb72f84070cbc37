"""What this distribution registers with BoundFlow."""

from __future__ import annotations

from boundflow_core.extension import Domain, Method
from boundflow_core.ir.program import Composite
from boundflow_core.plugins import hookimpl

BOUNDFLOW_API = (1, 0)


@hookimpl
def boundflow_register_domains() -> list[Domain]:
    from boundflow_crown.domain import LINEAR

    return [LINEAR]


@hookimpl
def boundflow_register_methods() -> list[Method]:
    from boundflow_crown.methods import ALPHA_CROWN, CROWN, CROWN_IBP

    return [CROWN_IBP, CROWN, ALPHA_CROWN]


@hookimpl
def boundflow_register_primitives() -> list[Composite]:
    from boundflow_crown.composites import COMPOSITES

    return list(COMPOSITES)
