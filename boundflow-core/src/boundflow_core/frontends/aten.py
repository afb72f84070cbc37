"""The table of ATen operators that the torch frontend translates."""

from __future__ import annotations

from collections.abc import Mapping

from boundflow_core.frontends.aten_arithmetic import ARITHMETIC
from boundflow_core.frontends.aten_call import Call, Converter, Refused
from boundflow_core.frontends.aten_layers import LAYERS
from boundflow_core.frontends.aten_layout import LAYOUT

__all__ = ["CONVERTERS", "Call", "Converter", "Refused", "converter_for"]


def converter_for(name: str, converters: Mapping[str, Converter]) -> Converter | None:
    """The converter of an operator, given as "namespace.op.overload": that overload's own, or that of all of them.

    ``converters`` go before :data:`CONVERTERS`.
    """
    packet = name.rpartition(".")[0]
    for table in (converters, CONVERTERS):
        found = table.get(name) or table.get(packet)
        if found is not None:
            return found
    return None


# By operator ("aten.add") or one overload of it ("aten.max.dim"). Operators that are missing here are first taken apart
# by torch's own decompositions, where it has one. Operators on constants alone need no converter.
CONVERTERS: Mapping[str, Converter] = {**LAYERS, **ARITHMETIC, **LAYOUT}
