"""Rounding errors of programs against wider arithmetic: every primitive, with and without errors of its operands."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundflow_core.errors import IRError
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.constants import frozen
from boundflow_core.ir.evaluate import evaluate
from boundflow_core.ir.primitives import PRIMITIVES
from boundflow_core.ir.types import Attrs, DType, SymDim
from boundflow_core.planner.layout import layout_ops
from boundflow_core.planner.pipeline import make_plan
from boundflow_core.plugins import registry
from boundflow_core.rounding import RULES, outward_program
from boundflow_core.rounding.support import Near
from boundflow_core.testing.primitives import CASES

WIDE = np.longdouble
INTEGERS = ("gather_rows", "scatter_rows", "scatter_add_rows")


def test_every_primitive_has_a_rule():
    assert set(RULES) == set(PRIMITIVES)


def with_errors(case, floats):
    """The program of a call and of its error; operands in ``floats`` have errors ``e<number>``."""
    b = Builder(DType.FLOAT64)
    near = []
    for i, array in enumerate(case.arrays):
        kind = {"f": DType.FLOAT64, "i": DType.INT64, "b": DType.BOOL}[array.dtype.kind]
        value = b.input(f"x{i}", array.shape, kind)
        near.append(Near(value, b.input(f"e{i}", array.shape) if i in floats else None))
    attrs = Attrs(case.attrs)
    (y,) = b.write(PRIMITIVES[case.name], [x.value for x in near], attrs)
    error = RULES[case.name](b, attrs, near, y)
    zero = b.broadcast(b.constant(0.0), y.shape)
    return b.finish({"y": y, "error": zero if error is None else b.broadcast(error, y.shape)})


def exact_erf(x):
    """2 / sqrt(pi) sum_n (-1)^n x^(2n+1) / (n! (2n+1)), to sixty digits."""
    with localcontext() as context:
        context.prec = 60
        top, bottom = x.as_integer_ratio()
        x, total, power = Decimal(top) / Decimal(bottom), Decimal(0), Decimal(1)
        for n in range(200):
            total += power * x / (2 * n + 1)
            power *= -x * x / (n + 1)
        return WIDE(str(2 * total / Decimal("3.14159265358979323846264338327950288419716939937510").sqrt()))


def exact(case, arrays):
    """The call in wider arithmetic."""
    with np.errstate(all="ignore"):
        wide = [x.astype(WIDE) if x.dtype.kind == "f" else x for x in arrays]
        if case.name == "erf":
            return np.vectorize(exact_erf, otypes=[WIDE])(wide[0])
        return PRIMITIVES[case.name].reference(wide, Attrs(case.attrs))


@pytest.mark.parametrize("name", sorted(set(CASES) - {"compare", "cast", "row_numbers"}))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_exact_result_is_within_the_error(name, data):
    case = data.draw(CASES[name])
    numbers = np.random.default_rng(data.draw(st.integers(0, 2**20)))
    # Numbers with all their digits, so that every operation rounds.
    arrays = [x * (1 + numbers.random(x.shape) / 3) if x.dtype.kind == "f" else x for x in case.arrays]
    positions = [i for i, x in enumerate(arrays) if x.dtype.kind == "f"]
    floats = [i for i in positions if data.draw(st.booleans())]
    scale = data.draw(st.sampled_from([1e-15, 1e-9, 1e-3, 0.5]))
    program = with_errors(case, floats)
    for _ in range(3):
        moved = [
            x * (1 + scale * numbers.uniform(-1, 1, x.shape).astype(WIDE)) if i in floats else x
            for i, x in enumerate(arrays)
        ]
        errors = {f"e{i}": np.nextafter(np.abs(moved[i] - arrays[i]).astype(np.float64), np.inf) for i in floats}
        found = evaluate(program, {f"x{i}": x for i, x in enumerate(arrays)} | errors)
        assert found["error"].shape == found["y"].shape
        y = exact(case, moved)
        with np.errstate(all="ignore"):
            off = np.abs(y - found["y"].astype(WIDE))
        fine = (off <= found["error"]) | ~np.isfinite(y) | np.isnan(found["error"])
        assert fine.all(), (case, off - found["error"])
    if not floats and name not in ("div", "log", "log1p", "sqrt", "pow"):
        finite = found["y"][np.isfinite(found["y"])]
        assert np.all(found["error"][np.isfinite(found["y"])] <= 1e-12 * (1 + np.abs(finite).max(initial=0)))


@pytest.mark.parametrize("relation", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_what_a_doubtful_comparison_chooses_between_is_covered(relation):
    b = Builder(DType.FLOAT64)
    x, one, other = b.input("x", (5,)), b.input("one", (5,)), b.input("other", (5,))
    # (x / 3) * 3 need not be x, so that each comparison with x is in doubt.
    again = b.mul(b.div(x, 3.0), 3.0)
    program = b.finish({"lower": b.where(b.compare(again, x, relation), one, other)})
    inputs = {"x": np.array([0.1, 0.7, 1.9, 5.3, 9.7]), "one": np.arange(5.0), "other": -np.arange(5.0)}
    found = evaluate(outward_program(program), inputs)["lower"]
    assert np.all(found <= -np.arange(5.0) + 1e-300)
    assert np.all(found >= -3 * np.arange(5.0) - 1e-9)


def test_a_certain_comparison_costs_nothing():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (2,))
    again = b.mul(b.div(x, 3.0), 3.0)
    program = b.finish({"lower": b.where(b.compare(again, 1.0, "gt"), again, 100.0)})
    found = evaluate(outward_program(program), {"x": np.array([0.1, 2.0])})["lower"]
    np.testing.assert_allclose(found, [100.0, 2.0], rtol=1e-14)


def test_sums_are_covered_in_any_order():
    """Sums of terms of very different sizes, against exact fractions."""
    numbers = np.random.default_rng(1)
    x = numbers.normal(size=(20, 400)) * 10.0 ** numbers.integers(-12, 12, (20, 400))
    w = numbers.normal(size=(400, 3))
    b = Builder(DType.FLOAT64)
    y = b.matmul(b.input("x", x.shape), b.constant(frozen(w)))
    found = evaluate(outward_program(b.finish({"lower": y, "upper": y})), {"x": x})
    plain = x @ w
    true = [[sum(Fraction(a) * Fraction(c) for a, c in zip(row, column, strict=True)) for column in w.T] for row in x]
    off = 0
    for i, row in enumerate(true):
        for j, value in enumerate(row):
            assert Fraction(found["lower"][i, j]) <= value <= Fraction(found["upper"][i, j])
            off += Fraction(plain[i, j]) != value
    assert off > 30  # rounding did happen


def test_bounds_keep_their_sides_and_other_results_their_values():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (3,))
    third = b.div(x, 3.0)
    program = b.finish({"lower": third, "upper:inner": third, "slope": third})
    found = evaluate(outward_program(program), {"x": np.array([1.0, -2.0, 0.0])})
    assert np.all(found["lower"][:2] < found["slope"][:2]) and np.all(found["upper:inner"][:2] > found["slope"][:2])
    np.testing.assert_array_equal(found["slope"], np.array([1.0, -2.0, 0.0]) / 3)


def test_undefined_bounds_become_infinite():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (2,))
    inside = b.sub(b.add(x, 1.0), b.add(x, 1.0))  # inf - inf
    wide = b.mul(x, x)  # overflows
    program = b.finish({"lower": b.add(inside, wide), "upper": b.add(inside, wide)})
    found = evaluate(outward_program(program), {"x": np.array([np.inf, 1e300])})
    np.testing.assert_array_equal(found["lower"], [-np.inf, -np.inf])
    np.testing.assert_array_equal(found["upper"], [np.inf, np.inf])


def test_single_precision_is_refused():
    b = Builder(DType.FLOAT32)
    x = b.input("x", (2,))
    with pytest.raises(IRError, match="float64"):
        outward_program(b.finish({"lower": b.add(x, x)}))


def test_rows_chosen_by_rounded_numbers_are_refused():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (3,))
    doubtful = b.compare(b.mul(b.div(x, 3.0), 3.0), x, "lt")
    with pytest.raises(IRError, match="doubt"):
        outward_program(b.finish({"y": b.cast(doubtful, DType.INT64)}))


def test_a_plan_analyses_the_program_that_passes_have_arranged():
    b = Builder(DType.FLOAT64)
    x = b.input("x", (SymDim.of("B"), 6))
    image = b.permute(b.reshape(b.div(x, 3.0), (SymDim.of("B"), 2, 3)), (0, 2, 1))
    y = b.reshape(b.permute(b.mul(image, image), (0, 2, 1)), (SymDim.of("B"), 6))
    program = b.finish({"lower": y, "upper": y})
    executor = registry().executor("reference")
    seen = []

    def analysis(arranged):
        seen.append(arranged)
        return outward_program(arranged)

    passes = tuple(registry().passes.values())
    plan = make_plan(program, executor, passes, analysis=analysis)
    assert not layout_ops(seen[0]) and not layout_ops(plan.program)  # the permutations cancel, and have no errors
    point = {"x": np.random.default_rng(0).normal(size=(4, 6))}
    plain, found = evaluate(program, point), evaluate(plan.program, point)
    exact = (point["x"].astype(WIDE) / 3) ** 2
    assert (found["lower"] < exact).all() and (exact < found["upper"]).all()
    np.testing.assert_allclose(found["lower"], plain["lower"], rtol=1e-14)
    nominal = make_plan(program, executor, passes)
    assert len(plan.program.ops) > len(nominal.program.ops) and nominal.lowering.fallbacks == plan.lowering.fallbacks
