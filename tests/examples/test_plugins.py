"""Every example in ``examples/plugins`` is short, is found as a plugin, and does what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import boundflow_core as bf
from boundflow_core.errors import LoadError, UnsupportedOpError
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.plugins import registry
from boundflow_core.testing import ConformanceError, check_lowering, mutated

Plug = Callable[[str], ModuleType]
LINES = 60


def mlp() -> PrimalGraph:
    rng = np.random.default_rng(0)
    g = PrimalBuilder("mlp", "x", (3,))
    hidden = g.op("relu", g.op("linear", g.input, rng.standard_normal((4, 3)), rng.standard_normal(4)))
    return g.finish(g.op("linear", hidden, rng.standard_normal((2, 4))))


REGION = bf.Box(np.array([[-1.0, 0.0, 0.5], [0.0, 0.0, 0.0]]), np.array([[1.0, 0.5, 0.5], [0.25, 1.0, 2.0]]))


def same(one: bf.Bounds, other: bf.Bounds, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(one.lower, other.lower, rtol=rtol, atol=1e-12)
    np.testing.assert_allclose(one.upper, other.upper, rtol=rtol, atol=1e-12)


def examples() -> list[Path]:
    return sorted((Path(__file__).resolve().parents[2] / "examples" / "plugins").glob("*.py"))


@pytest.mark.parametrize("path", examples(), ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES


def test_a_lowering_in_numpy(plug: Plug) -> None:
    plain = bf.compile(mlp(), method="ibp", executor="reference", dtype="float64")
    expected = plain(REGION)
    assert any("interval_matmul" in reason for reason in plain.plan.lowering.fallbacks)
    plug("numpy_lowering")
    run = bf.compile(mlp(), method="ibp", executor="reference", dtype="float64")
    same(run(REGION), expected)
    assert run.plan.lowering.counts["numpy-pair"] == 2
    assert not run.plan.lowering.fallbacks


def test_bounds_of_a_lowering_are_not_compared_with_its_own(plug: Plug) -> None:
    """Methods of several programs have no interpreter, and the registered lowering would serve both sides."""
    pytest.importorskip("boundflow_crown")
    example = plug("numpy_lowering")
    wrong = mutated(example.kernel, "return centre - radius", "return centre - radius - 1")
    gaps = {"relu:outputs": "on purpose"}
    with wrong, pytest.raises(ConformanceError, match="law 'values'"):
        check_lowering("numpy-pair", "crown", ops=["relu"], expected_failures=gaps, shrink=False)


def test_a_lowering_that_is_handed_in_is_the_one_that_is_checked(plug: Plug) -> None:
    plug("numpy_lowering")
    registered = registry().lowering("numpy-pair")
    check_lowering(registered, "ibp", ops=["linear"], examples=3)
    changed = replace(registered, kernel=lambda op: lambda lower, upper, *weights: (lower, upper))
    with pytest.raises(ConformanceError):
        check_lowering(changed, "ibp", ops=["linear"], examples=3, shrink=False)


def squareplus(x: np.ndarray) -> np.ndarray:
    return 0.5 * (x + np.sqrt(x * x + 4.0))


@pytest.mark.parametrize("method", ["ibp", "crown-ibp", "crown"])
def test_rules_of_a_custom_operator(plug: Plug, method: str) -> None:
    pytest.importorskip("boundflow_crown")
    example = plug("squareplus")
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((4, 3)), rng.standard_normal((2, 4))]
    g = PrimalBuilder("net", "x", (3,))
    graph = g.finish(g.op("linear", g.op(example.SQUAREPLUS, g.op("linear", g.input, weights[0])), weights[1]))
    for executor in ("reference", "auto"):
        bounds = bf.bound(graph, REGION, method=method, dtype="float64", executor=executor)
        points = rng.uniform(REGION.lower[:, None], REGION.upper[:, None], (2, 500, 3))
        outputs = squareplus(points @ weights[0].T) @ weights[1].T
        assert (outputs >= bounds.lower[:, None] - 1e-12).all()
        assert (outputs <= bounds.upper[:, None] + 1e-12).all()


def test_a_custom_operator_of_onnx(plug: Plug, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("boundflow_onnx")
    example = plug("squareplus")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Squareplus", ["x"], ["y"], domain="example")],
        "net",
        [helper.make_tensor_value_info("x", floats, [1, 3])],
        [helper.make_tensor_value_info("y", floats, [1, 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example", 1)]
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    bounds = bf.bound(bf.load(str(path), converters=example.ONNX), REGION, method="ibp", dtype="float64")
    np.testing.assert_allclose(bounds.upper, squareplus(np.asarray(REGION.upper)), rtol=1e-12)
    with pytest.raises(UnsupportedOpError, match="example::Squareplus"):
        bf.load(str(path))


def test_a_custom_operator_of_torch(plug: Plug) -> None:
    torch = pytest.importorskip("torch")
    example = plug("squareplus")

    def value(x):  # type: ignore[no-untyped-def]
        return 0.5 * (x + torch.sqrt(x * x + 4.0))

    value.__annotations__.update(x=torch.Tensor, **{"return": torch.Tensor})
    op = torch.library.custom_op("example::squareplus", value, mutates_args=())

    op.register_fake(torch.empty_like)

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.ops.example.squareplus(x)

    graph = bf.load(Net(), example_inputs=(torch.zeros(1, 3),), converters=example.TORCH)
    bounds = bf.bound(graph, REGION, method="ibp", dtype="float64")
    np.testing.assert_allclose(np.asarray(bounds.upper), squareplus(np.asarray(REGION.upper)), rtol=1e-12)


TOY = "# a comment\ninput 2\nlinear 1 -1 0.5 ; 2 0 1\nrelu\nlinear 1 1 0\n"


def test_a_frontend(plug: Plug, tmp_path: Path) -> None:
    plug("toy_frontend")
    path = tmp_path / "net.toy"
    path.write_text(TOY)
    bounds = bf.bound(path, bf.Box(np.zeros((1, 2)), np.ones((1, 2))), method="ibp", dtype="float64")
    np.testing.assert_allclose([bounds.lower, bounds.upper], [[[1.0]], [[4.5]]])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TOY.replace("2 0 1", "2 0 one"), "net.toy, line 3"),
        (TOY.replace("relu", "wavelet"), "net.toy, line 4.*wavelet"),
        (TOY.replace("input 2", "relu"), "net.toy, line 2"),
        ("", "net.toy, line 0"),
    ],
)
def test_a_frontend_names_the_line(plug: Plug, tmp_path: Path, text: str, words: str) -> None:
    plug("toy_frontend")
    path = tmp_path / "net.toy"
    path.write_text(text)
    with pytest.raises(LoadError, match=words):
        bf.load(path)


def test_a_pass(plug: Plug) -> None:
    from boundflow_core.ir.builder import Builder
    from boundflow_core.ir.evaluate import evaluate
    from boundflow_core.planner.pipeline import make_plan
    from boundflow_core.plugins import registry

    plug("exact_division")
    b = Builder()
    x = b.input("x", (3,))
    program = b.finish({"by4": x / 4.0, "by3": x / 3.0, "by0": x / b.constant(np.array([0.0, 1.0, 2.0]))})
    planned = make_plan(program, registry().executor("reference"), registry().passes.values()).program
    assert sorted(op.name for op in planned.ops) == ["div", "div", "mul"]
    point = {"x": np.array([1.0, -3.0, 1e-300])}
    for name, value in evaluate(program, point).items():
        np.testing.assert_array_equal(evaluate(planned, point)[name], value)


def test_a_cache_observer(plug: Plug, tmp_path: Path) -> None:
    counters = plug("cache_counters")
    run = bf.compile(mlp(), method="ibp", executor="reference")
    for _ in range(2):
        run(REGION)
    counters.write(tmp_path / "counters.json")
    written = json.loads((tmp_path / "counters.json").read_text())
    assert written["events"] == {"hit region": 1, "miss region": 1, "store region": 1}
    assert written["bytes"]["hit"] == written["bytes"]["store"] > 0


def test_a_branching_heuristic(plug: Plug) -> None:
    from boundflow_core.extension import BranchingView
    from boundflow_core.plugins import registry

    plug("triangle_branching")
    lower, upper = np.array([[-1.0, -1.0, -4.0, -1.0]]), np.array([[1.0, 2.0, 0.5, 3.0]])
    rows = np.array([[[-1.0, -1.0, -1.0, 1.0], [-0.5, -0.5, -2.0, 1.0]]])
    score = registry().branching["triangle"].score(BranchingView(lower, upper, rows, np.zeros(4)))
    np.testing.assert_allclose(score, [[1.0, 2.0, 4.0, 0.0]])


def test_a_search_with_the_branching_heuristic(plug: Plug) -> None:
    """A threshold so near to the least output that bounds alone do not suffice."""
    bab = pytest.importorskip("boundflow_bab")
    from boundflow_core.property import Case, LinearConstraints, Property

    plug("triangle_branching")
    rng = np.random.default_rng(4)
    sizes = (2, 8, 8, 1)
    weights = [rng.standard_normal(shape) for shape in zip(sizes[1:], sizes, strict=False)]
    g = PrimalBuilder("net", "x", (2,))
    x = g.input
    for weight in weights[:-1]:
        x = g.op("relu", g.op("linear", x, weight, np.full(len(weight), 0.1)))
    graph = g.finish(g.op("linear", x, weights[-1]))
    lower, upper = -np.ones(2), np.ones(2)
    axis = np.linspace(-1, 1, 301)
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    least = float(bf.evaluate_graph(graph, grid).min())
    for shift, verdict in ((-0.05, bab.Verdict.VERIFIED), (0.05, bab.Verdict.FALSIFIED)):
        unsafe = LinearConstraints(np.ones((1, 1)), np.array([-(least + shift)]))  # y <= least + shift
        prop = Property(2, 1, (Case(lower, upper, (unsafe,)),), "test")
        options = bab.Options(timeout=60, executor="reference", branching="triangle", split="activation", starts=(0, 0))
        report = bab.verify(graph, prop, options)
        assert report.verdict is verdict
        assert report.subproblems > 1
