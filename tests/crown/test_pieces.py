"""Runs over chosen rows in pieces: sizes, and that neither pieces nor their filling change a bound."""

from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

import boundflow_crown.pieces as pieces
from boundflow_crown.pieces import in_pieces, padded_count


class _Doubler:
    """Stands in for a runner: gives each row's number doubled, and notes the numbers of rows it was run for."""

    def __init__(self) -> None:
        self.counts: list[int] = []

    def fitting(self, symbol: str, sizes: dict[str, int], limit: int) -> int:
        return 1

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.counts.append(len(inputs["neuron"]))
        return {"lower": 2 * inputs["neuron"][None]}


@pytest.mark.parametrize("count", [1, 3, 4, 5, 31, 32, 33, 100, 257])
def test_every_row_comes_out_once_and_in_order(count: int) -> None:
    runner = _Doubler()
    with mock.patch.object(pieces, "PIECE_ROWS", 32):
        found = in_pieces(runner, {"lower": np.zeros((1, 2))}, {"neuron": np.arange(count)}, axis=1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found["lower"], 2 * np.arange(count)[None])
    assert max(runner.counts) <= 32 and len(runner.counts) == -(-count // 32)


def test_counts_are_rounded_up_a_little_to_few_sizes() -> None:
    rounded = [padded_count(count) for count in range(1, 2049)]
    assert all(count <= up <= max(count + 3, count * 9 / 8) for count, up in enumerate(rounded, 1))
    assert len(set(rounded)) <= 8 * 11
