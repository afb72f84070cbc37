"""VNN-LIB 2.0, read by the package ``vnnlib``: the same properties as in 1.0, and errors with their lines."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from boundflow_core.errors import PropertyError
from boundflow_onnx import _vnnlib_query
from boundflow_onnx.vnnlib import read_vnnlib

HEAD = """; a comment
(vnnlib-version <2.0>)
(declare-network N
  (declare-input X float32 [1, 2])
  (declare-output Y float32 [2])
)
"""
BOX = """(assert (and (>= X[0,0] -1.0) (<= X[0,0] 1.0)))
(assert (and (> X[0,1] 0.5) (<= X[0,1] 0.75) (>= X[0,1] 0.5)))
"""
OLD = """(declare-const X_0 Real) (declare-const X_1 Real) (declare-const Y_0 Real) (declare-const Y_1 Real)
(assert (>= X_0 -1.0)) (assert (<= X_0 1.0)) (assert (>= X_1 0.5)) (assert (<= X_1 0.75))
"""


def written(tmp_path, text, name="p.vnnlib"):
    path = tmp_path / name
    path.write_text(text)
    return path


def same(one, other):
    assert (one.n_in, one.n_out, len(one.cases)) == (other.n_in, other.n_out, len(other.cases))
    for a, b in zip(one.cases, other.cases, strict=True):
        np.testing.assert_array_equal(a.lower, b.lower)
        np.testing.assert_array_equal(a.upper, b.upper)
        assert len(a.unsafe) == len(b.unsafe)
        for p, q in zip(a.unsafe, b.unsafe, strict=True):
            np.testing.assert_array_equal(p.C, q.C)
            np.testing.assert_array_equal(p.d, q.d)


FORMULAS = [
    ("(<= Y[0] 0.25)", "(<= Y_0 0.25)"),
    ("(< (+ (* 2.0 Y[0]) (- Y[1])) 0.5)", "(<= (+ (* 2.0 Y_0) (- Y_1)) 0.5)"),
    ("(>= (- Y[0] Y[1] 0.1) -0.015)", "(>= (- Y_0 Y_1 0.1) -0.015)"),
    ("(or (<= Y[0] Y[1]) (and (> Y[0] 1.0) (== Y[1] 3.0)))", "(or (<= Y_0 Y_1) (and (>= Y_0 1.0) (= Y_1 3.0)))"),
    (
        "(or (and (<= X[0,0] 0.0) (<= Y[0] 0.0)) (or (<= Y[1] 0.0) (<= Y[1] Y[0])))",
        "(or (and (<= X_0 0.0) (<= Y_0 0.0)) (or (<= Y_1 0.0) (<= Y_1 Y_0)))",
    ),
    ("(and (!= Y[0] 0.0) (<= Y[1] 0.0))", "(<= Y_1 0.0)"),
]


@pytest.mark.parametrize(("new", "old"), FORMULAS)
def test_it_says_what_the_file_of_version_1_says(tmp_path, new, old):
    pytest.importorskip("vnnlib")
    found = read_vnnlib(written(tmp_path, f"{HEAD}{BOX}(assert {new})\n"))
    same(found, read_vnnlib(written(tmp_path, f"{OLD}(assert {old})\n", "old.vnnlib")))


def test_gzipped(tmp_path):
    pytest.importorskip("vnnlib")
    text = f"{HEAD}{BOX}(assert (<= Y[0] 0.25))\n"
    (tmp_path / "p.vnnlib.gz").write_bytes(gzip.compress(text.encode()))
    same(read_vnnlib(tmp_path / "p.vnnlib.gz"), read_vnnlib(written(tmp_path, text)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{HEAD}{BOX}(assert (<= Y[7] 0.25))\n", r"p\.vnnlib:9: "),
        (f"{HEAD}{BOX}(assert (<= Y[0] Z[0]))\n", r"p\.vnnlib:9: "),
        (f"{HEAD}{BOX}(assert (<= (* Y[0] Y[1]) 0.25))\n", "p.vnnlib:9: the product of two variables is not linear"),
        (f"{HEAD}{BOX}(assert (<= Y[0] X[0,0]))\n", "p.vnnlib:9: a constraint on inputs and outputs together"),
        (f"{HEAD}(assert (<= Y[0] 1.0))\n", "X, element 0, has no lower bound"),
        (f"{HEAD}{BOX}(assert (<= X[0,0] -2.0))\n", "empty input region"),
        (f"{HEAD}{BOX}(assert (<= Y[0] 0.25)\n", r"p\.vnnlib: .*syntax error"),
        ("(vnnlib-version <2.0>)\n", r"p\.vnnlib: "),
        (
            HEAD.replace("(declare-output", "(declare-input Z float32 [1])\n(declare-output")
            + BOX
            + "(assert (and (<= Z[0] 1.0) (>= Z[0] 0.0)))",
            "2 inputs of the network, where one is supported",
        ),
    ],
)
def test_errors_name_the_file_and_the_line(tmp_path, text, says):
    pytest.importorskip("vnnlib")
    with pytest.raises(PropertyError, match=says) as caught:
        read_vnnlib(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_without_the_package_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(_vnnlib_query, "find_spec", lambda name: None)
    with pytest.raises(PropertyError, match=r"boundflow-onnx\[vnnlib2\]"):
        read_vnnlib(written(tmp_path, f"{HEAD}{BOX}(assert (<= Y[0] 0.25))\n"))
