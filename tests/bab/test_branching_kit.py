"""The branching heuristics under the conformance kit."""

from __future__ import annotations

import pytest

from boundflow_bab.branching import BABSR, INTERCEPT
from boundflow_core.testing import check_branching


@pytest.mark.parametrize("heuristic", [BABSR.name, INTERCEPT.name])
def test_kit(heuristic: str) -> None:
    check_branching(heuristic)
