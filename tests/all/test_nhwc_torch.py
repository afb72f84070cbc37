"""A torch module whose weights may change, in NHWC around every convolution, against its twin in NCHW."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import boundflow_core as bf
from boundflow_core.planner.layout import layout_ops


class Net(nn.Module):
    def __init__(self, nhwc: bool) -> None:
        super().__init__()
        self.nhwc = nhwc
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 8))
        self.flat = nn.Linear(8 * 8 * 8, 6)
        self.last = nn.Linear(6, 4)

    def conv(self, conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) if self.nhwc else conv(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv(self.first, x))
        scale = self.scale if self.nhwc else self.scale[:, None, None]
        x = torch.relu(x + self.conv(self.second, x) * scale)
        return self.last(torch.sigmoid(self.flat(x.flatten(1))))


def twins() -> tuple[Net, Net]:
    torch.manual_seed(0)
    nchw, nhwc = Net(nhwc=False), Net(nhwc=True)
    nhwc.load_state_dict(nchw.state_dict())
    with torch.no_grad():
        nhwc.flat.weight.copy_(nchw.flat.weight.reshape(6, 8, 8, 8).permute(0, 2, 3, 1).reshape(6, -1))
    return nchw.eval(), nhwc.eval()


@pytest.mark.parametrize("rows", [None, 5])
def test_a_module_in_nhwc_plans_to_two_layout_operations_more(rows: int | None) -> None:
    nchw, nhwc = twins()
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 8)))
    turned_x = x.permute(0, 2, 3, 1).contiguous()
    spec = bf.LinearSpec(np.random.default_rng(1).normal(size=(rows, 4))) if rows else None
    plain, turned = (
        bf.compile(bf.load(net, example_inputs=(example[:1].float(),)), method="ibp", executor="torch", dtype="float64")
        for net, example in ((nchw, x), (nhwc, turned_x))
    )
    for _ in range(2):
        expected, found = plain(bf.LpBall(x, 0.1), spec), turned(bf.LpBall(turned_x, 0.1), spec)
        torch.testing.assert_close(found.lower, expected.lower, rtol=1e-6, atol=0)
        torch.testing.assert_close(found.upper, expected.upper, rtol=1e-6, atol=0)
        with torch.no_grad():  # what was arranged must follow
            nchw.flat.weight *= -2
            nhwc.flat.weight *= -2
    assert len(layout_ops(turned.plan.program)) <= len(layout_ops(plain.plan.program)) + 2
