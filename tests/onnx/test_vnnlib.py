from __future__ import annotations

import csv
import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boundflow_core.errors import PropertyError
from boundflow_core.property import Property
from boundflow_onnx import _vnnlib_dnf, _vnnlib_tokens
from boundflow_onnx.vnnlib import read_vnnlib

BENCHMARKS = Path(__file__).resolve().parents[3] / "shared" / "benchmarks"


def declare(inputs: int = 1, outputs: int = 1) -> str:
    names = [f"X_{i}" for i in range(inputs)] + [f"Y_{i}" for i in range(outputs)]
    return "".join(f"(declare-const {name} Real)\n" for name in names)


def box(inputs: int = 1, low: float = -1, high: float = 1) -> str:
    return "".join(f"(assert (>= X_{i} {low}))(assert (<= X_{i} {high}))\n" for i in range(inputs))


@pytest.fixture
def read(tmp_path):
    def read(text: str | bytes) -> Property:
        path = tmp_path / "p.vnnlib"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_vnnlib(path)

    return read


def plain(prop: Property):
    """Cases as nested lists: (lower, upper, [(C, d), ...])."""
    return [(k.lower.tolist(), k.upper.tolist(), [(u.C.tolist(), u.d.tolist()) for u in k.unsafe]) for k in prop.cases]


# --- what is read -----------------------------------------------------------------------------------------------------


def test_a_box_and_a_conjunction(read):
    prop = read(declare(2, 2) + box(2) + "(assert (<= Y_0 Y_1))(assert (>= Y_0 3.5))")
    assert (prop.n_in, prop.n_out) == (2, 2)
    assert plain(prop) == [([-1, -1], [1, 1], [([[1, -1], [-1, 0]], [0, 3.5])])]


@pytest.mark.parametrize(
    "literal, value",
    [
        ("1", 1.0),
        ("-1.5", -1.5),
        ("(- 1.5)", -1.5),
        ("1e-05", 1e-05),
        ("-2.5E+2", -250.0),
        (".5", 0.5),
        ("+3", 3.0),
        ("3.", 3.0),
        ("0.1", 0.1),
        ("(+ 1 2 (* 2 3))", 9.0),
        ("(- 10 2 3)", 5.0),
        ("(/ 1 4)", 0.25),
        ("(- (- (- 4)))", -4.0),
    ],
)
def test_literals_and_constant_terms(read, literal, value):
    prop = read(declare() + f"(assert (<= X_0 {literal}))(assert (>= X_0 -1000))(assert (<= {literal} Y_0))")
    assert prop.cases[0].upper[0] == value
    assert plain(prop)[0][2] == [([[-1]], [value])]


@pytest.mark.parametrize(
    "constraint, lower, upper",
    [
        ("(<= X_0 0.5)", -8, 0.5),
        ("(< X_0 0.5)", -8, 0.5),
        ("(>= X_0 0.5)", 0.5, 8),
        ("(> X_0 0.5)", 0.5, 8),
        ("(= X_0 0.5)", 0.5, 0.5),
        ("(<= 0.5 X_0)", 0.5, 8),
        ("(>= 0.5 X_0)", -8, 0.5),
        ("(= 0.5 X_0)", 0.5, 0.5),
        ("(<= 1 X_0 2)", 1, 2),
        ("(<= (* 2 X_0) 3)", -8, 1.5),
        ("(<= (* X_0 -2) 3)", -1.5, 8),
        ("(<= (- X_0) 3)", -3, 8),
        ("(<= (- X_0 1) 3)", -8, 4),
        ("(<= (+ X_0 X_0 1) 3)", -8, 1),
        ("(<= X_0 (- 3 X_0))", -8, 1.5),
        ("(<= (/ X_0 2) 3)", -8, 6),
        ("(<= (* 2 (- (+ X_0 1) 3) 0.5) 3)", -8, 5),
        ("(<= X_0 X_0)", -8, 8),
        ("(<= 0 1)", -8, 8),
        ("true", -8, 8),
        ("(and (<= X_0 3) (and (>= X_0 1)))", 1, 3),
        ("(or (and (<= X_0 3) (or (and (>= X_0 1)))))", 1, 3),
        ("(<= |X_0| 3)", -8, 3),
        ("( <=\tX_0 ; a comment ) (\r\n 3 )", -8, 3),
    ],
)
def test_input_constraints(read, constraint, lower, upper):
    prop = read(declare() + box(1, -8, 8) + f"(assert {constraint})")
    assert plain(prop) == [([lower], [upper], [([], [])])]


@pytest.mark.parametrize(
    "constraint, C, d",
    [
        ("(<= Y_0 2)", [[1, 0]], [-2]),
        ("(> Y_1 2)", [[0, -1]], [2]),
        ("(= Y_0 2)", [[1, 0], [-1, 0]], [-2, 2]),
        ("(<= Y_1 Y_0)", [[-1, 1]], [0]),
        ("(>= Y_1 Y_0)", [[1, -1]], [0]),
        ("(<= (+ (* 2 Y_0) (* -3 Y_1) 1) (- Y_1 5))", [[2, -4]], [6]),
        ("(<= Y_0 Y_0)", [], []),
        ("(<= 1 0)", [[0, 0]], [1]),
        ("false", [[0, 0]], [1]),
    ],
)
def test_output_constraints(read, constraint, C, d):
    assert plain(read(declare(1, 2) + box() + f"(assert {constraint})"))[0][2] == [(C, d)]


def test_declarations_in_any_order_and_form_and_commands_passed_over(read):
    prop = read(
        '(set-logic QF_LRA) (set-info :source |a ( b|) (set-info :note "x "" ( ; y") ; (assert\n'
        "(declare-const Y_0 Real)(declare-fun X_1 () Real)\n(declare-const |X_0| Real)"
        + box(2)
        + "(assert (<= Y_0 0))(check-sat)(get-model)(get-value (X_0 (and X_1)))(exit)"
    )
    assert (prop.n_in, prop.n_out) == (2, 1)


def test_disjuncts_on_outputs_keep_one_box(read):
    prop = read(
        declare(1, 3) + box() + "(assert (or (and (>= Y_1 Y_0)) (>= Y_2 Y_0) (or (and (<= Y_0 1) (<= Y_1 1)))))"
    )
    assert [len(u.d) for k in prop.cases for u in k.unsafe] == [1, 1, 2] and len(prop.cases) == 1


def test_disjuncts_with_boxes_are_cases_in_file_order_and_equal_boxes_merge(read):
    prop = read(
        declare()
        + "(assert (or (and (>= X_0 2) (<= X_0 3) (<= Y_0 1)) (and (>= X_0 0) (<= X_0 1) (<= Y_0 2))"
        + " (and (<= X_0 3) (>= X_0 2) (<= Y_0 3))))"
    )
    assert plain(prop) == [([2], [3], [([[1]], [-1]), ([[1]], [-3])]), ([0], [1], [([[1]], [-2])])]


def test_an_or_on_inputs_and_an_or_on_outputs_share_the_disjunction(read):
    boxes = " ".join(f"(and (>= X_0 {i}) (<= X_0 {i}.5))" for i in range(2000))
    outs = " ".join(f"(and (<= Y_0 {i}))" for i in range(2000))
    prop = read(declare() + f"(assert (or {outs}))(assert (or {boxes}))")  # 4 million, were it multiplied out
    assert len(prop.cases) == 2000 and len(prop.cases[0].unsafe) == 2000
    assert all(k.unsafe is prop.cases[0].unsafe for k in prop.cases)


def test_equal_matrices_are_shared(read):
    prop = read(declare(1, 2) + box() + "(assert (or " + " ".join(f"(<= Y_0 {i})" for i in range(10)) + "))")
    assert len({id(u.C) for u in prop.cases[0].unsafe}) == 1


def test_an_empty_disjunct_is_dropped(read):
    text = declare() + box() + "(assert (or (and (>= X_0 0.5) (<= X_0 0.2) (<= Y_0 0)) (and (>= X_0 2)) (<= Y_0 1)))"
    assert plain(read(text)) == [([-1], [1], [([[1]], [-1])])]


def test_bounds_of_a_disjunct_never_widen_those_outside_it(read):
    text = declare() + box() + "(assert (or (and (>= X_0 -5) (<= X_0 0)) (and (>= X_0 0.5) (<= X_0 5))))"
    assert [(k.lower[0], k.upper[0]) for k in read(text).cases] == [(-1, 0), (0.5, 1)]


def test_gzip_and_bom(tmp_path):
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(gzip.compress((declare() + box() + "(assert (<= Y_0 0))").encode()))
    assert read_vnnlib(str(path)).n_in == 1
    path.write_bytes(b"\xef\xbb\xbf" + (declare() + box()).encode())
    assert read_vnnlib(path).n_in == 1


def test_depth_costs_no_recursion(read):
    n = 20_000
    deep = "(and (or " * n + "(<= " + "(+ 1 " * n + "Y_0" + ")" * n + " 0)" + "))" * n
    assert plain(read(declare() + box() + f"(assert {deep})"))[0][2] == [([[1]], [n])]


# --- what is refused --------------------------------------------------------------------------------------------------

HEAD = "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n"  # what is tested starts on line 3


@pytest.mark.parametrize(
    "text, line, column, message",
    [
        (HEAD + "(assert (<= X_0 1)", 3, 1, "never closed"),
        (HEAD + "(assert (<= X_0 1)\n(assert (>= X_0 0))", 4, 1, r"a '\)' is missing before it"),
        (HEAD + "(assert (<= X_0 1)\n(declare-const X_1 Real)", 4, 1, r"a '\)' is missing before it"),
        (HEAD + "  (", 3, 3, "never closed"),
        (HEAD + "(assert (<= X_0 1)))", 3, 20, "closes nothing"),
        (HEAD + "(assert (and (<= X_0 1) (<= X_0", 3, 1, "never closed"),
        (HEAD + "(set-info |abc", 3, 11, "never closed"),
        (HEAD + '(set-info "abc', 3, 11, "never closed"),
        (HEAD + "(assert ())", 3, 9, "empty parentheses"),
        (HEAD + "((assert (<= X_0 1)))", 3, 2, "expected an operator"),
        (HEAD + "((declare-const X_1 Real))", 3, 2, "expected an operator"),
        (HEAD + "(assert ((<= X_0 1)))", 3, 10, "expected an operator"),
        (HEAD + "(assert ((and (<= X_0 1))))", 3, 10, "expected an operator"),
        (HEAD + "(assert (not (<= X_0 1)))", 3, 9, "unknown operator 'not'"),
        (HEAD + "(assert (<= (sin X_0) 1))", 3, 13, "unknown operator 'sin' in a term"),
        (HEAD + "(assert (<= (<= X_0 1) 1))", 3, 13, "'<=' is out of place"),
        (HEAD + "(assert (+ X_0 1))", 3, 9, r"unknown operator '\+'"),
        (HEAD + "(frobnicate X_0)", 3, 1, "unknown command 'frobnicate'"),
        (HEAD + "(<= X_0 1)", 3, 1, "unknown command '<='"),
        (HEAD + "(and (<= X_0 1))", 3, 1, "unknown command 'and'"),
        (HEAD + "(push 1)", 3, 1, "unknown command 'push'"),
        (HEAD + "X_0", 3, 1, "expected a command"),
        (HEAD + '"X_0"', 3, 1, "a string is out of place"),
        (HEAD + "(assert X_0)", 3, 9, "expected a constraint"),
        (HEAD + "(assert)", 3, 1, "assert without an operand"),
        (HEAD + "(assert (and))", 3, 9, "and without an operand"),
        (HEAD + "(assert (or))", 3, 9, "or without an operand"),
        (HEAD + "(assert (<= X_0))", 3, 9, "<= needs two operands"),
        (HEAD + "(assert (<= (* X_0) 1))", 3, 13, r"\* needs 2 operand"),
        (HEAD + "(assert (<= X_0 1) (<= X_0 2))", 3, 20, "assert takes one formula"),
        (HEAD + "(assert (<= X_0 nan))", 3, 17, "bad number 'nan'"),
        (HEAD + "(assert (<= X_0 -inf))", 3, 17, "bad number '-inf'"),
        (HEAD + "(assert (<= X_0 1_000))", 3, 17, "bad number '1_000'"),
        (HEAD + "(assert (<= X_0 1.2.3))", 3, 17, "bad number '1.2.3'"),
        (HEAD + "(assert (<= X_0 1e999))", 3, 17, "bad number '1e999'"),
        (HEAD + "(assert (<= Y_0 1e999))", 3, 17, "bad number '1e999'"),
        (HEAD + "(assert (or (<= Y_0 1e999)))", 3, 21, "bad number '1e999'"),
        (HEAD + "(assert (<= 1e999 X_0))", 3, 13, "bad number '1e999'"),
        (HEAD + "(assert (<= (* 1e300 1e300) X_0))", 3, 9, "too large"),
        (HEAD + "(assert (<= (* 1e-300 X_0) 1e300))", 3, 9, "too large"),
        (HEAD + "(assert (<= (/ X_0 0) 1))", 3, 13, "division by zero"),
        (HEAD + "(assert (<= (/ 1 X_0) 1))", 3, 13, "division by a variable"),
        (HEAD + "(assert (<= (* X_0 X_0) 1))", 3, 13, "product of two variables"),
        (HEAD + "(assert (<= X_7 1))", 3, 13, "'X_7' is not declared"),
        (HEAD + "(assert (or (<= Y_0 Y_7)))", 3, 21, "'Y_7' is not declared"),
        (HEAD + "(assert (<= 1 foo))", 3, 15, "'foo' is not declared"),
        (HEAD + "(declare-const X_0 Real)", 3, 16, "X_0 is declared twice"),
        (HEAD + "(declare-const X_1 Int)", 3, 1, "'X_1' must be of sort Real, not 'Int'"),
        (HEAD + "(declare-const Z_1 Real)", 3, 1, "unsupported variable 'Z_1'"),
        (HEAD + "(declare-const X_01 Real)", 3, 1, "unsupported variable 'X_01'"),
        (HEAD + "(declare-fun X_1 (Real) Real)", 3, 1, "malformed declaration"),
        (HEAD + "(declare-const X_1)", 3, 1, "malformed declaration"),
        (HEAD + "(declare-const)", 3, 1, "malformed declaration"),
        (HEAD + "(declare-const X_2 Real)", 3, 16, "X_2 is declared, but X_1 is not"),
        (HEAD + "(declare-const Y_900000000 Real)", 3, 16, "Y_900000000 is declared, but Y_1 is not"),
        (HEAD + "(assert (<= X_0 Y_0))", 3, 9, "inputs and outputs together"),
        (HEAD + "(assert (<= (+ X_0 Y_0) 1))", 3, 9, "inputs and outputs together"),
        ("(declare-const X_1 Real)\n" + HEAD + "(assert (or\n (<= X_0 X_1)))", 5, 2, "must form a box"),
        (HEAD + "(assert (<= X_0 1))", 1, 16, "X_0 has no lower bound"),
        (HEAD + "(assert (or (and (<= X_0 1) (>= X_0 0)) (>= X_0 2)))", 1, 16, "X_0 has no upper bound"),
        (HEAD + "(assert (>= X_0 1))(assert (<= X_0 0))", 1, 16, "empty input region"),
        (HEAD + "é\n", 3, 1, "expected a command"),
        ("; é\n" + HEAD + "; é (\n ü", 5, 2, "expected a command"),
        (HEAD.encode() + b"; ok\n; \xff", 4, 3, "not a UTF-8 text file"),
        (b"\x7fELF\x02\x00\x00\xfe", 1, 8, "not a UTF-8 text file"),
        (b"PK\x03\x04\x00\x00", 1, 1, "expected a command"),
        ((HEAD + "(assert (<= X_0 nan))").replace("\n", "\r\n"), 3, 17, "bad number"),
    ],
)
def test_errors_name_line_and_column(read, tmp_path, text, line, column, message):
    with pytest.raises(PropertyError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith(f"{tmp_path / 'p.vnnlib'}:{line}:{column}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_positions_and_meaning_do_not_depend_on_chunks(read, monkeypatch, chunk):
    text = declare(2, 2) + "; comment (\n" + box(2) + '(set-info "a""(")(assert (or (<= Y_0 |Y_1|) (>= Y_0 1e-3)))'
    expected = plain(read(text))
    monkeypatch.setattr(_vnnlib_tokens, "_CHUNK", chunk)
    assert plain(read(text)) == expected
    with pytest.raises(PropertyError, match=r"p\.vnnlib:8:13: 'X_7' is not declared"):
        read(text.split("(set-info")[0] + "(assert (<= X_7 1))")
    with pytest.raises(PropertyError, match=r"p\.vnnlib:2:3: not a UTF-8"):
        read("(check-sat)\n;é".encode() + b"\xff")


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "no input X_0 is declared"),
        ("; nothing\n", "no input X_0 is declared"),
        ("(declare-const Y_0 Real)", "no input X_0 is declared"),
        ("(declare-const X_0 Real)" + box(), "no output Y_0 is declared"),
        (HEAD + "(assert (or (and (>= X_0 1) (<= X_0 0)) (and (>= X_0 3) (<= X_0 2))))", "empty input region"),
        (HEAD + box() + "(assert (or (and (>= X_0 2)) (and (<= X_0 -2))))", "empty input region"),
    ],
)
def test_errors_without_a_place(read, tmp_path, text, message):
    with pytest.raises(PropertyError, match=message) as caught:
        read(text)
    assert str(caught.value).startswith(f"{tmp_path / 'p.vnnlib'}: ")


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(PropertyError, match=r"gone\.vnnlib: cannot be read: No such file"):
        read_vnnlib(tmp_path / "gone.vnnlib")
    with pytest.raises(PropertyError, match="cannot be read"):
        read_vnnlib(tmp_path)
    path = tmp_path / "p.vnnlib.gz"
    path.write_bytes(gzip.compress((declare() + box()).encode())[:-12])
    with pytest.raises(PropertyError, match="damaged gzip file"):
        read_vnnlib(path)


def test_every_cut_through_the_last_assert_is_an_error(read):
    text = declare() + box() + "(assert (or (and (<= Y_0 1.5)) (>= Y_0 |Y_0|)))"
    for end in range(text.rindex("(assert") + 1, len(text)):
        with pytest.raises(PropertyError, match=r"\.vnnlib:4:"):
            read(text[:end])


@pytest.mark.parametrize(
    "formula",
    [
        "(and " + "(or (<= Y_0 1) (>= Y_0 2))" * 21 + ")",
        "(or (<= Y_0 0) (and " + "(or (<= Y_0 1) (>= Y_0 2))" * 21 + "))",
    ],
)
def test_exponential_growth_is_refused(read, formula):
    with pytest.raises(PropertyError, match="more than 1000000 disjuncts"):
        read(declare() + box() + f"(assert {formula})")


def test_too_many_numbers_are_refused(read, monkeypatch):
    monkeypatch.setattr(_vnnlib_dnf, "MAX_NUMBERS", 1000)
    tight = " ".join(f"(and (>= X_0 0.{i}) (<= Y_0 0))" for i in range(1, 20))
    with pytest.raises(PropertyError, match="GiB"):
        read(declare(100) + box(100) + f"(assert (or {tight}))")


# --- against direct evaluation ----------------------------------------------------------------------------------------

NAMES = ["X_0", "X_1", "Y_0", "Y_1"]
QUARTERS = st.integers(-8, 8).map(lambda k: k / 4)  # exact in float64, and so are the sums and products below
GAPS = st.sampled_from([" ", "  ", "\n", "\t", " ; (and\n"])
COMPARE = {
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a <= b,  # read as non-strict
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a >= b,
    "=": lambda a, b: a == b,
}


def bound_term(names):
    """(tree) of a term with at most one name: scaled by a power of two, so that dividing by it is exact."""
    return st.tuples(st.sampled_from(names), st.sampled_from([1.0, -1.0, 2.0, -0.5]), QUARTERS).map(
        lambda t: t[0] if t[1] == 1.0 and t[2] > 0 else ("+", ("*", t[1], t[0]), t[2])
    )


OUTPUT_TERM = st.recursive(
    st.one_of(QUARTERS, st.sampled_from(NAMES[2:])),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from("+-"), inner, inner),
        st.tuples(st.just("-"), inner),
        st.tuples(st.just("*"), QUARTERS, inner),
    ),
    max_leaves=4,
)
OPERATOR = st.sampled_from(list(COMPARE))
ATOM = st.one_of(
    st.tuples(OPERATOR, bound_term(NAMES[:2]), QUARTERS),
    st.tuples(OPERATOR, QUARTERS, bound_term(NAMES[:2])),
    st.tuples(OPERATOR, st.sampled_from(NAMES), QUARTERS),
    st.tuples(OPERATOR, OUTPUT_TERM, OUTPUT_TERM),
    st.tuples(st.sampled_from(["<=", ">="]), st.just("Y_0"), st.just("Y_1")),
)
FORMULA = st.recursive(
    ATOM, lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)), max_leaves=8
)


def written(tree, gap) -> str:
    if isinstance(tree, str):
        return tree
    if isinstance(tree, float):
        return repr(tree)
    head, *rest = tree
    rest = rest[0] if isinstance(rest[0], list) else rest
    return f"({head}{gap()}" + gap().join(written(part, gap) for part in rest) + ")"


def value(tree, point):
    if isinstance(tree, str):
        return point[tree]
    if isinstance(tree, float):
        return tree
    head, *parts = tree
    if head in ("and", "or"):
        return (all if head == "and" else any)(value(part, point) for part in parts[0])
    numbers = [value(part, point) for part in parts]
    if head in COMPARE:
        return COMPARE[head](*numbers)
    if head == "*":
        return numbers[0] * numbers[1]
    return sum(numbers) if head == "+" else -numbers[0] if len(numbers) == 1 else numbers[0] - numbers[1]


@given(st.lists(FORMULA, min_size=1, max_size=3), st.data())
def test_reading_agrees_with_evaluating_the_formula(tmp_path_factory, formulas, data):
    path = tmp_path_factory.getbasetemp() / "random.vnnlib"
    asserts = [f"(assert {written(f, lambda: data.draw(GAPS))})\n" for f in formulas]
    asserts.insert(data.draw(st.integers(0, len(asserts))), box(2))
    path.write_text(declare(2, 2) + "".join(asserts))
    try:
        prop = read_vnnlib(path)
    except PropertyError as error:
        assert "empty input region" in str(error)  # then no point satisfies the formulas, which is checked below
        prop = None
    grid = st.integers(-18, 18).map(lambda k: k / 8)
    points = data.draw(st.lists(st.tuples(grid, grid, grid, grid), min_size=20, max_size=20))
    for point in points:
        named = dict(zip(NAMES, point, strict=True))
        expected = max(abs(point[0]), abs(point[1])) <= 1 and all(value(f, named) for f in formulas)
        assert (prop is not None and prop.is_counterexample(point[:2], point[2:])) == expected


# --- growth -----------------------------------------------------------------------------------------------------------


def restated_boxes(n: int) -> str:
    """n disjuncts that each restate a box of 20 inputs."""
    disjuncts = (
        "(and " + " ".join(f"(>= X_{i} -{d}.{i})(<= X_{i} {d}.{i})" for i in range(20)) + "(>= Y_0 Y_1))\n"
        for d in range(n)
    )
    return declare(20, 2) + "(assert (or " + "".join(disjuncts) + "))"


def output_disjuncts(n: int) -> str:
    """One box of n inputs, and n disjuncts on the outputs."""
    return declare(n, 2) + box(n) + "(assert (or " + "".join(f"(and (>= Y_0 {d}.5))\n" for d in range(n)) + "))"


def long_comment(n: int) -> str:
    return declare() + box() + ";" + "x" * (500 * n) + "\n(assert (<= Y_0 0))"


@pytest.mark.parametrize("generated", [restated_boxes, output_disjuncts, long_comment])
def test_memory_grows_with_the_size_of_the_file(tmp_path, generated, monkeypatch):
    monkeypatch.setattr(_vnnlib_tokens, "_CHUNK", 1 << 14)  # so that a constant does not hide the growth
    peaks, sizes = [], []
    for n in (400, 1600):
        path = tmp_path / f"{n}.vnnlib"
        path.write_text(generated(n))
        sizes.append(path.stat().st_size)
        tracemalloc.start()
        read_vnnlib(path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] * sizes[1] / sizes[0]
    assert peaks[1] < 30 * sizes[1]


def test_work_grows_with_the_size_of_the_file(tmp_path, monkeypatch):
    """Counted: constraints merged while disjuncts are multiplied out, and characters scanned."""
    counts = {"bounds": 0}
    add_upper = _vnnlib_dnf.Conj.add_upper

    def counted(self, i, bound):
        counts["bounds"] += 1
        add_upper(self, i, bound)

    monkeypatch.setattr(_vnnlib_dnf.Conj, "add_upper", counted)
    for generated, expected in ((restated_boxes, 20 * 500), (output_disjuncts, 500)):
        counts["bounds"] = 0
        path = tmp_path / "p.vnnlib"
        path.write_text(generated(500))
        read_vnnlib(path)
        assert counts["bounds"] == expected


# --- the public benchmarks --------------------------------------------------------------------------------------------

INPUTS = {
    "acasxu": {5},
    "cgan": {5},
    "cifar10_resnet": {3072},
    "collins_rul_cnn": {400},
    "cora": {784},
    "eran_sigmoid": {784},
    "ml4acopf": {22},
    "mnist_fc": {784},
    "oval21": {3072},
    "reach_prob_density": {3, 5},
    "rl_benchmarks": {4, 8},
    "safenlp": {30},
    "sri_resnet_a": {3072},
    "test": {1},
    "tllverifybench": {2},
    "vit": {3072},
}


@pytest.mark.skipif(
    not (BENCHMARKS / "instances.csv").is_file(), reason="no benchmarks: shared/benchmarks is not beside the repository"
)
def test_every_benchmark_file_reads():
    with open(BENCHMARKS / "instances.csv", newline="") as file:
        paths = sorted({row["path_to_vnnlib"] for row in csv.DictReader(file)})
    assert paths
    for name in paths:
        prop = read_vnnlib(BENCHMARKS / name)
        text = (BENCHMARKS / name).read_text()
        assert prop.n_in == text.count("(declare-const X_") and prop.n_out == text.count("(declare-const Y_")
        assert prop.n_in in INPUTS[name.split("/")[0]], name
        assert all(k.unsafe and all(len(u.d) for u in k.unsafe) for k in prop.cases), name
        lower, upper = prop.boxes()
        assert np.all(lower <= upper)
