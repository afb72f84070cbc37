"""Attacks keep to their share of the time, and remember the best points that they met."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from networks import network

from boundflow_bab.attack import Attack
from boundflow_bab.clock import Clock
from boundflow_bab.problem import Part, Rows
from boundflow_bab.samples import Samples
from boundflow_bab.verify import ATTACK_SHARES, Options, Story, _attacked
from boundflow_bab.witness import Witness
from boundflow_core.property import Case, LinearConstraints, Property

PART = Part(np.zeros((3, 2)), np.ones((3, 2)), Rows(np.eye(2), np.zeros(2), np.array([0, 1])))


@dataclass
class Ticking(Clock):
    """A clock that others move."""

    now: float = 0.0
    limit: float = np.inf

    def __post_init__(self):
        self.seconds = {}

    @property
    def elapsed(self):
        return self.now

    @property
    def left(self):
        return max(self.limit - self.now, 0.0)


def attack_on(clock):
    """Margins are 1 + the sum of the point, and each look at them takes a second."""
    calls = []

    def margins(x, rows, aim):
        clock.now += 1.0
        calls.append(len(x))
        return (1 + x.sum(axis=1)).astype(np.float32), np.ones_like(x, dtype=np.float32)

    graph = network([(np.eye(2), np.zeros(2))])
    prop = Property(2, 2, (Case([0.0, 0.0], [1.0, 1.0], (LinearConstraints(np.eye(2), np.ones(2)),)),), "test")
    return Attack(margins, Witness(graph, prop), clock), calls


def test_an_attack_ends_when_its_seconds_are_over():
    clock = Ticking()
    attack, calls = attack_on(clock)
    assert attack.on_part(PART, starts=10_000, seconds=5.0) is None
    assert 5 <= len(calls) <= 7
    attack, calls = attack_on(clock)
    attack.on_part(PART, starts=1)
    assert len(calls) == attack.schedule.steps + 1  # without a limit all of them


def test_all_attacks_together_take_no_more_than_their_share():
    clock = Ticking(limit=100.0)
    attack, calls = attack_on(clock)
    options = Options()
    _attacked(attack, [PART] * 50, 10, Story(clock, options), ATTACK_SHARES[0], [None] * 50)
    assert len(calls) <= 100 * ATTACK_SHARES[0] + 2 and clock.left > 0


def test_the_best_points_are_remembered():
    clock = Ticking()
    attack, _ = attack_on(clock)
    samples = Samples.of(PART)
    attack.on_part(PART, 4, samples=samples)
    assert samples.margin.shape == (3, 2)
    np.testing.assert_allclose(samples.margin, 1.0)  # the descent ends in the corner
    np.testing.assert_allclose(samples.x, 0.0, atol=1e-12)
    np.testing.assert_allclose(samples.select(np.array([1]), np.array([0, 1])).margin, np.ones((1, 2)))
