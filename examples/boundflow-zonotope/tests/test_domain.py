"""The domain and its methods under the conformance kit, on every executor that can run here."""

from __future__ import annotations

import pytest

from boundflow_core.plugins import registry
from boundflow_core.testing import Expectations, check_domain

# Smaller bounds make another slope of the relu, whose affine form need not lie within the first.
EXPECT = Expectations(monotone=False)


def test_domain() -> None:
    check_domain("zonotope", "zonotope", expect=EXPECT)


@pytest.mark.skipif("crown" not in registry().methods, reason="boundflow-crown is not installed")
def test_backward_pass_over_zonotopes() -> None:
    check_domain("zonotope", "zonotope-crown", expect=EXPECT, executors=(), examples=15)
