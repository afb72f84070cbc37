"""Compiled bounds with a method and a domain made for the test: y = 2 x, bounded by doubling the box."""

from __future__ import annotations

import numpy as np
import pytest

from boundflow_core.compiled import CompiledBounds, CompileOptions, choose_executor
from boundflow_core.errors import InputError, LoadError, OptionError, PluginError, UnknownNameError, UnsupportedOpError
from boundflow_core.executors import reference
from boundflow_core.extension import Domain, Executor, Method
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.types import DType
from boundflow_core.plugins import Registry
from boundflow_core.regions import Box, LpBall
from boundflow_core.specs import LinearSpec
from boundflow_core.workshop import Recipe


def emit(context):
    b, (node,) = context.b, context.graph.nodes
    lower, upper = (
        context.rules["toy"][node.op](b, x) * context.options["factor"] for x in (context.lower, context.upper)
    )
    if context.spec is None:
        return lower, upper
    rows = [b.reduce_sum(context.spec.C * b.reshape(x, (x.shape[0], 1, 2)), (2,)) for x in (lower, upper)]
    return b.minimum(*rows) + context.spec.offset, b.maximum(*rows) + context.spec.offset


REFERENCE = Executor("reference", "", 0, lambda: None, reference.open_session, lambda: reference.TRAITS)
MISSING = Executor("missing", "", 9, lambda: "nothing is installed", reference.open_session, lambda: reference.TRAITS)
REGISTRY = Registry(
    domains={"toy": Domain("toy", "", {"mul": lambda b, x: b.mul(x, 2.0)})},
    methods={"double": Method("double", "", ("toy",), emit, {"factor": 1.0})},
    executors={"reference": REFERENCE, "missing": MISSING},
)


def compiled(op="mul", *, dtype=DType.FLOAT64, spec_rows=None, batch=None, **options):
    g = PrimalBuilder("net", "x", (2,))
    graph = g.finish(g.op("mul", g.input, np.float64(2)) if op == "mul" else g.op(op, g.input))
    chosen = CompileOptions(dtype=dtype, spec_rows=spec_rows, batch=batch, method=options)
    return CompiledBounds(graph, REGISTRY.method("double"), REGISTRY, REFERENCE, chosen)


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
def test_bounds_over_one_region_or_many(dtype):
    run = compiled(dtype=dtype)
    one = run(Box([1, 2], [3, 4]))
    assert one.lower.tolist() == [[2, 4]] and one.upper.tolist() == [[6, 8]] and one.lower.dtype == dtype.numpy
    many = run(LpBall(np.zeros((3, 2)), np.array([1.0, 2.0, 3.0])))
    assert many.upper.tolist() == [[2, 2], [4, 4], [6, 6]]
    assert run.stats.calls == 2 and run.plan.sizes == {"B": 3} and run.executor == "reference"
    assert run.stats.lowering == {"reference": len(run.plan.program.ops)}


def test_specifications_shared_or_per_region():
    run, box = compiled(), Box(np.array([[1.0, 0], [2, 0]]), np.array([[1.0, 0], [2, 0]]))
    assert run(box, LinearSpec([[1, 1], [0, 1]], [10, 20])).lower.tolist() == [[12, 20], [14, 20]]
    assert run(box, LinearSpec(np.ones((2, 1, 2)) * [[[1.0]], [[-1]]])).upper.tolist() == [[2], [-4]]


def test_undefined_bounds_are_infinite():
    bounds = compiled(factor=float("inf"))(Box([0, 1], [0, 1]))
    assert bounds.lower.tolist() == [[-np.inf, np.inf]] and bounds.upper.tolist() == [[np.inf, np.inf]]


def test_options():
    assert compiled(factor=3.0)(Box([1, 1], [1, 1])).lower.tolist() == [[6, 6]]
    with pytest.raises(OptionError, match="'double' has no option 'fctor'; its options: factor"):
        compiled(fctor=3.0)


def test_sizes_that_were_compiled_for():
    box, spec = Box([0, 0], [1, 1]), LinearSpec(np.ones((2, 2)))
    assert compiled(batch=1, spec_rows=2)(box, spec).lower.shape == (1, 2)
    with pytest.raises(InputError, match="batches of 2 regions, but 1"):
        compiled(batch=2)(box)
    for given, told in ((None, "none"), (LinearSpec(np.ones((3, 2))), "3")):
        with pytest.raises(InputError, match=f"2 specification rows, but {told}"):
            compiled(spec_rows=2)(box, given)
    with pytest.raises(InputError, match="has shape"):
        compiled()(Box([0], [1]))


def test_operators_without_a_rule():
    with pytest.raises(UnsupportedOpError, match=r"'tanh'.*domain 'toy'"):
        compiled("tanh")


def test_choice_of_executor():
    assert choose_executor(REGISTRY, "auto", differentiable=False) is REFERENCE
    with pytest.raises(OptionError, match="cannot run here: nothing is installed"):
        choose_executor(REGISTRY, "missing", differentiable=False)
    with pytest.raises(OptionError, match="no gradients"):
        choose_executor(REGISTRY, "reference", differentiable=True)
    with pytest.raises(OptionError, match="gradients can run here"):
        choose_executor(REGISTRY, "auto", differentiable=True)
    with pytest.raises(UnknownNameError, match="nonsense"):
        choose_executor(REGISTRY, "nonsense", differentiable=False)


def test_what_calls_will_be_like_is_waited_for_if_nothing_tells():
    run = compiled()
    assert run.stats.plans == 0
    assert run.plan.sizes == {"B": 1} and run.stats.plans == 1  # asked for
    told = [compiled(batch=2), compiled(spec_rows=1)]
    assert [one.stats.plans for one in told] == [1, 1]
    run = compiled()
    run(Box([1, 2], [3, 4]), LinearSpec([[1, 1]]))
    assert run.stats.plans == 1 and "C" in {value.name for value in run.plan.program.inputs}


def test_a_rule_that_fails_does_so_when_bounds_are_compiled():
    with pytest.raises(LoadError):
        compiled(factor=object())


def bounded_by(method, spec=None):
    """Bounds of a method made for a test on the sum of two inputs: [B] outputs of shape (1,)."""
    g = PrimalBuilder("net", "x", (2,))
    graph = g.finish(g.op("linear", g.input, np.array([[1.0, 1.0]])))
    registry = Registry(domains={"toy": Domain("toy", "", {"linear": lambda *_: None})}, methods={method.name: method})
    return CompiledBounds(graph, method, registry, REFERENCE, CompileOptions(dtype=DType.FLOAT64))(BOX, spec)


BOX = Box(np.zeros((3, 2)), np.ones((3, 2)))


@pytest.mark.parametrize(
    ("emitted", "given"),
    [
        (lambda c: (c.lower, c.upper), "not float64[B, 2] and float64[B, 2]"),
        (lambda c: (c.b.reduce_sum(c.lower, (1,)), c.upper), "not float64[B] and float64[B, 2]"),
        (lambda c: (1.0, 2.0), "not float and float"),
        (lambda c: None, "not NoneType"),
        (lambda c: c.lower, "not Value"),
        (lambda c: (c.lower,) * 3, "B, 2] and float64[B, 2] and float64[B, 2]"),
    ],
)
def test_what_a_method_emits_is_checked(emitted, given):
    with pytest.raises(PluginError) as caught:
        bounded_by(Method("bad", "", ("toy",), emit=emitted))
    text = str(caught.value)
    assert text.startswith(f"method 'bad' (in {__name__}) must emit (lower, upper), two values float64[B, 1], not ")
    assert given in text


def test_what_a_method_emits_with_rows_is_checked():
    def emitted(c):
        total = c.b.reduce_sum(c.lower, (1,), keepdims=True)
        return total, total

    assert bounded_by(Method("good", "", ("toy",), emit=emitted)).lower.shape == (3, 1)
    with pytest.raises(PluginError, match=r"two values float64\[B, S\], not float64\[B, 1\]"):
        bounded_by(Method("bad", "", ("toy",), emit=emitted), LinearSpec([[1.0]]))


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({}, "'lower' of shape [3, 1], not None"),
        ({"lower": np.zeros((3, 1)), "upper": 1.0}, "'upper' of shape [3, 1], not 1.0"),
        ({"lower": np.zeros((3, 2)), "upper": np.zeros((3, 2))}, "'lower' of shape [3, 1], not shape [3, 2]"),
    ],
)
def test_what_a_recipe_gives_is_checked(results, words):
    def recipe(workshop):
        def write(b):
            total = b.reduce_sum(workshop.context(b).lower, (1,), keepdims=True)
            return {"lower": total, "upper": total}

        return Recipe(workshop.runner("bad", write), lambda inputs, progress: results)

    with pytest.raises(PluginError) as caught:
        bounded_by(Method("bad", "", ("toy",), recipe=recipe))
    assert words in str(caught.value)


def test_a_recipe_is_a_recipe():
    with pytest.raises(PluginError, match=r"method 'bad' \(in .*\) must give a Recipe, not NoneType"):
        bounded_by(Method("bad", "", ("toy",), recipe=lambda workshop: None))


def test_a_method_that_names_no_domain_needs_no_rule():
    def emitted(c):
        total = c.b.reduce_sum(c.lower, (1,), keepdims=True)
        return total, total + 1.0

    assert bounded_by(Method("free", "", (), emit=emitted)).upper.tolist() == [[1.0]] * 3
