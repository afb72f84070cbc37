from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.errors import InputError, PropertyError
from boundflow_core.property import Case, LinearConstraints, Property


def rows(C, d) -> LinearConstraints:
    return LinearConstraints(np.array(C, dtype=float), np.array(d, dtype=float))


def case(lower, upper, *unsafe: LinearConstraints) -> Case:
    return Case(np.array(lower, dtype=float), np.array(upper, dtype=float), unsafe)


FIRST_POSITIVE = rows([[-1, 0]], [0])
BAND = rows([[0, 1], [0, -1]], [-2, 1])  # 1 <= y1 <= 2


def test_counterexample_needs_a_box_and_all_rows_of_one_of_its_conjunctions():
    prop = Property(1, 2, (case([0], [1], FIRST_POSITIVE, BAND), case([2], [3], BAND)), "p")
    assert prop.is_counterexample([0.5], [1, 9])
    assert prop.is_counterexample([0.5], [-1, 1.5])
    assert not prop.is_counterexample([0.5], [-1, 2.5])
    assert not prop.is_counterexample([2.5], [1, 9])
    assert prop.is_counterexample([[2.5]], [[0, 1]])
    assert not prop.is_counterexample([1.5], [1, 1.5])


def test_borders_count_and_tolerance_widens_box_and_rows():
    prop = Property(1, 2, (case([0], [1], FIRST_POSITIVE),), "p")
    assert prop.is_counterexample([1.0], [0.0, 0.0])
    assert not prop.is_counterexample([1.01], [1, 0]) and prop.is_counterexample([1.01], [1, 0], tolerance=0.02)
    assert not prop.is_counterexample([1], [-0.01, 0]) and prop.is_counterexample([1], [-0.01, 0], tolerance=0.02)


@pytest.mark.parametrize("x, y", [([np.nan], [1, 1]), ([0.5], [np.inf, 1]), ([0.5], [1, np.nan])])
def test_values_that_are_not_finite_are_no_counterexample(x, y):
    assert not Property(1, 2, (case([0], [1], FIRST_POSITIVE),), "p").is_counterexample(x, y, tolerance=1e300)


def test_no_rows_means_everything_and_no_conjunction_means_nothing():
    everything = rows(np.zeros((0, 2)), np.zeros(0))
    assert Property(1, 2, (case([0], [1], everything),), "p").is_counterexample([0], [-5, 5])
    assert not Property(1, 2, (case([0], [1]),), "p").is_counterexample([0], [-5, 5])


def test_equal_boxes_are_merged_in_order():
    a, b, c = rows([[1, 0]], [1]), rows([[1, 0]], [2]), rows([[1, 0]], [3])
    prop = Property(1, 2, (case([0], [1], a), case([5], [6], b), case([-0.0], [1], c)), "p")
    assert [[u.d[0] for u in k.unsafe] for k in prop.cases] == [[1, 3], [2]]
    lower, upper = prop.boxes()
    np.testing.assert_array_equal(lower, [[0], [5]])
    np.testing.assert_array_equal(upper, [[1], [6]])
    assert prop.summary() == "p: 1 inputs, 2 outputs, 2 boxes, 3 unsafe conjunctions"


def test_a_disjunction_shared_by_equal_boxes_counts_once():
    shared = (FIRST_POSITIVE, BAND)
    box = np.array([0.0]), np.array([1.0])
    prop = Property(1, 2, tuple(Case(*box, shared) for _ in range(50)), "p")
    assert len(prop.cases) == 1 and len(prop.cases[0].unsafe) == 2


def test_arrays_are_read_only_copies():
    lower, C = np.zeros(2), np.eye(2)
    built = Case(lower, np.ones(2), (LinearConstraints(C, np.zeros(2)),))
    lower[0], C[0, 0] = 7.0, 7.0
    assert built.lower[0] == 0 and built.unsafe[0].C[0, 0] == 1
    prop = Property(2, 2, (built,), "p")
    for array in (built.lower, built.upper, built.unsafe[0].C, built.unsafe[0].d, *prop.boxes()):
        assert array.dtype == np.float64
        with pytest.raises(ValueError):
            array[...] = 0


def test_a_read_only_view_of_a_writable_array_is_copied_and_an_immutable_one_shared():
    owner = np.zeros(2)
    view = owner[:]
    view.flags.writeable = False
    built = Case(view, np.ones(2), ())
    owner[0] = 0.5
    assert built.lower[0] == 0
    fixed = np.eye(2)
    fixed.flags.writeable = False
    assert LinearConstraints(fixed, np.zeros(2)).C is fixed


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: case([0, 2], [1, 1]), "input 1: lower 2.0 > upper 1.0"),
        (lambda: case([0], [1, 2]), "lower has 1 entries"),
        (lambda: case([[0]], [[1]]), "lower must have 1 dimension"),
        (lambda: case([np.nan], [1]), "lower has a value that is not finite"),
        (lambda: case([0], [np.inf]), "upper has a value that is not finite"),
        (lambda: Case(np.array(["a"]), np.array([1.0]), ()), "lower is not an array of numbers"),
        (lambda: rows([[1, 2]], [1, 2]), "C has 1 rows, but d has 2"),
        (lambda: rows([1, 2], [1]), "C must have 2 dimension"),
        (lambda: rows([[np.inf]], [1]), "C has a value that is not finite"),
        (lambda: Property(2, 2, (case([0], [1]),), "p"), "p: a box has 1 inputs instead of 2"),
        (lambda: Property(1, 3, (case([0], [1], BAND),), "p"), "p: C has 2 columns instead of 3"),
        (lambda: Property(1, 2, (), "p"), "at least one case"),
        (lambda: Property(0, 2, (), "p"), "needs inputs and outputs"),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(PropertyError, match=message.replace("(", r"\(")):
        build()


@pytest.mark.parametrize(
    "x, y, tolerance", [([0, 0], [0, 0], 0.0), ([0], [0], 0.0), ([0], [0, 0], -1.0), ([0], [0, 0], np.nan)]
)
def test_is_counterexample_refuses_wrong_sizes_and_tolerances(x, y, tolerance):
    with pytest.raises(InputError):
        Property(1, 2, (case([0], [1], BAND),), "p").is_counterexample(x, y, tolerance)
