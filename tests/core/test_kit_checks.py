"""The conformance kit's other checks: relaxations, frontends, branching heuristics and lowerings. What is right passes,
planted mistakes are caught by the right law, and what is shown of them fails again when it is pasted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from toy import DOMAIN, METHOD

from boundflow_core.errors import LoadError
from boundflow_core.extension import Branching, BranchingView, Frontend, LoweringStrategy, MethodContext, RuleContext
from boundflow_core.ir.builder import Builder
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.primal_builder import PrimalBuilder
from boundflow_core.ir.program import Composite, Value
from boundflow_core.plugins import registry
from boundflow_core.testing import (
    ConformanceError,
    Sample,
    check_branching,
    check_frontend,
    check_lowering,
    check_relaxation,
    mutated,
)


def law_of(check: Callable[[], None], **names: Any) -> str:
    """The law that the check fails by; pasted, its code fails by the same law."""
    with pytest.raises(ConformanceError) as failure:
        check()
    message = str(failure.value)
    if "import " in message:
        with pytest.raises(ConformanceError) as again:
            exec(message[message.index("\n\n") :], dict(names))
        assert again.value.law == failure.value.law
    return failure.value.law


# -- relaxations ------------------------------------------------------------------------------------------------------


def relu_lines(b: Builder, lower: Value, upper: Value, shift: float = 0.0, slope: float = 0.0) -> list[Value | None]:
    """The chord above, and zero or the function below; right for finite ends."""
    low, high = b.minimum(lower, 0.0), b.maximum(upper, 0.0)
    steep = high * 0.5 / b.maximum(high * 0.5 - low * 0.5, 1e-30)
    under = b.where(lower >= 0.0, steep, b.where(upper > 0.0, steep * 0.0 + slope, steep * 0.0))
    return [under, None, steep, -(steep * low) + shift]


def test_lines_that_hold_pass() -> None:
    check_relaxation("relu", relu_lines, examples=40)


@pytest.mark.parametrize(
    ("law", "changed"),
    [
        ("sound", {"shift": -1e-6}),
        ("sound", {"slope": 1.1}),
        ("points", {"shift": 1e-3}),
    ],
)
def test_wrong_lines_are_caught(law: str, changed: dict[str, float]) -> None:
    def lines(b: Builder, lower: Value, upper: Value) -> list[Value | None]:
        return relu_lines(b, lower, upper, **changed)

    assert law_of(lambda: check_relaxation("relu", lines, examples=60, dtypes=("float64",)), lines=lines) == law


def test_loose_and_mixed_up_lines_are_caught() -> None:
    def wide(b: Builder, lower: Value, upper: Value) -> list[Value | None]:
        zero = (lower + upper) * 0.0
        return [zero, None, zero, b.maximum(upper, 0.0)]

    def mixed(b: Builder, lower: Value, upper: Value) -> list[Value | None]:
        top = b.reduce_max(b.maximum(upper, 0.0), (0,), keepdims=True)
        zero = (lower + upper) * 0.0
        return [zero, None, zero, top + zero]

    loose = {"exact_at_points": False}
    check_relaxation("relu", wide, examples=40, **loose)
    assert law_of(lambda: check_relaxation("relu", wide, hull=1.0, examples=40, **loose), lines=wide) == "hull"
    assert law_of(lambda: check_relaxation("relu", mixed, examples=40, **loose), lines=mixed) == "elementwise"
    check_relaxation("relu", mixed, examples=40, expected_failures={"elementwise": "on purpose"}, **loose)


# -- frontends --------------------------------------------------------------------------------------------------------


def _load(source: str, bias: float = 0.0) -> PrimalGraph:
    """Reads "scale 2 relu" and the like: words on a vector of three."""
    g = PrimalBuilder("words", "x", (3,))
    x: Any = g.input
    words = iter(source.split())
    for word in words:
        if word == "scale":
            x = g.mul(x, g.scalar(float(next(words))))
        elif word == "relu":
            x = g.op("relu", x)
        else:
            raise LoadError(f"no such word: {word!r}")
    return g.finish(g.add(x, g.scalar(bias)))


WORDS = Frontend("words", "words", lambda source: isinstance(source, str), _load, options=("bias",))
SAMPLE = Sample("double", "scale 2 relu", lambda x: np.maximum(2 * x, 0) + 0.5, {"bias": 0.5})


def test_a_right_frontend_passes() -> None:
    check_frontend(WORDS, [SAMPLE], broken=["scale 2 mystery"], examples=5)


def test_wrong_frontends_are_caught() -> None:
    deaf = replace(WORDS, accepts=lambda source: False)
    assert law_of(lambda: check_frontend(deaf, [SAMPLE]), sample=SAMPLE, frontend=deaf) == "accepts"
    wrong = replace(WORDS, load=lambda source, bias=0.0: _load(source, bias + 0.01))
    assert law_of(lambda: check_frontend(wrong, [SAMPLE]), sample=SAMPLE, frontend=wrong) == "outputs"
    turns = iter(range(10**6))
    moody = replace(WORDS, load=lambda source, bias=0.0: _load(source, bias + 1e-9 * next(turns)))
    assert law_of(lambda: check_frontend(moody, [SAMPLE], shrink=False), sample=SAMPLE, frontend=moody) == (
        "deterministic"
    )
    assert law_of(lambda: check_frontend(WORDS, [], broken=["scale 2"])) == "broken"
    assert law_of(lambda: check_frontend(WORDS, [], broken=["scale two"])) == "broken"  # a ValueError


def _two(second: float = 1.0, most: float = 1e30) -> Frontend:
    """Reads every text as (1e6 x, relu(x)), or wrongly: a factor at the second output, a clip of the first one."""

    def load(source: str) -> PrimalGraph:
        g = PrimalBuilder("two", "x", (1,))
        large = g.mul(g.op("clip", g.input, min=-most, max=most), g.scalar(1e6))
        return g.finish(g.op("concat", large, g.mul(g.op("relu", g.input), g.scalar(second)), axis=0))

    return Frontend("two", "two", lambda source: True, load)


TWO = Sample("two", "", lambda x: np.concatenate([x * np.float32(1e6), np.maximum(x, 0)], axis=1))


def test_small_outputs_count_beside_large_ones() -> None:
    check_frontend(_two(), [TWO])
    wrong = _two(second=1.01)
    assert law_of(lambda: check_frontend(wrong, [TWO]), sample=TWO, frontend=wrong) == "outputs"


@pytest.mark.parametrize("most", [20.0, 255.0])
def test_points_far_out_are_tried(most: float) -> None:
    wrong = _two(most=most)
    assert law_of(lambda: check_frontend(wrong, [TWO]), sample=TWO, frontend=wrong) == "outputs"


def test_what_rounding_explains_is_let_pass() -> None:
    """Far out float32 has no digits left of a sine, and none of this one's exponential at all."""

    def load(source: str) -> PrimalGraph:
        g = PrimalBuilder("ill", "x", (2,))
        return g.finish(g.op("concat", g.op("sin", g.mul(g.input, g.scalar(np.pi))), g.op("softplus", g.input), axis=0))

    def function(x: Any) -> Any:
        with np.errstate(over="ignore"):
            return np.concatenate([np.sin(np.float32(np.pi) * x), np.log1p(np.exp(x))], axis=1)

    check_frontend(Frontend("ill", "ill", lambda source: True, load), [Sample("ill", "", function)])


def test_gaps_of_samples_expire() -> None:
    with pytest.raises(ValueError, match="nothing to check"):
        check_frontend(WORDS, [])
    gaps = {"typo:outputs": "off on purpose"}
    for samples in ([SAMPLE], st.just(SAMPLE)):
        with pytest.raises(ValueError, match=r"\['typo'\] are not among the samples.*, which are double"):
            check_frontend(WORDS, samples, expected_failures=gaps, examples=3)
        with pytest.raises(ConformanceError, match="'double:outputs' is declared"):
            check_frontend(WORDS, samples, expected_failures={"double:outputs": "long mended"}, examples=3)
    wrong = replace(WORDS, load=lambda source, bias=0.0: _load(source, bias + 0.01))
    for samples in ([SAMPLE], st.just(SAMPLE)):
        check_frontend(wrong, samples, expected_failures={"double:outputs": "off on purpose"}, examples=3)


# -- branching --------------------------------------------------------------------------------------------------------


def widest(view: BranchingView) -> Any:
    return np.minimum(-view.lower, view.upper)


def _writes(view: BranchingView) -> Any:
    view.lower[:] = 0.0
    return view.upper


WRONG_SCORES: dict[str, Callable[[BranchingView], Any]] = {
    "shape": lambda view: view.upper.sum(axis=1),
    "finite": lambda view: np.where(view.upper > 0, np.nan, 0.0),
    "batch": lambda view: view.upper - view.upper.mean(axis=0),
    "deterministic": lambda view: view.upper + np.random.default_rng().random(),
    "inputs": _writes,
}


def test_a_right_heuristic_passes() -> None:
    check_branching(Branching("widest", "", widest))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("law", WRONG_SCORES)
def test_wrong_heuristics_are_caught(law: str) -> None:
    heuristic = Branching("wrong", "", WRONG_SCORES[law])
    shrink = law != "deterministic"
    assert law_of(lambda: check_branching(heuristic, shrink=shrink), heuristic=heuristic) == law
    if law == "batch":
        check_branching(heuristic, expected_failures={law: "on purpose"})


# -- lowerings --------------------------------------------------------------------------------------------------------


def _moved(context: RuleContext, x: tuple[Value, Value]) -> tuple[Value, ...]:
    return tuple(context.node.spec.emit(context.b, context.attrs, 1, end) for end in x)


PAIRS = replace(DOMAIN, rules={**DOMAIN.rules, "reshape": _moved})


def _strategy(supported: str) -> LoweringStrategy:
    def supports(op: Any, known: Any) -> str | None:
        return None if op.name == supported else "not for me"

    return LoweringStrategy("mine", "", "reference", lambda: None, supports, lambda op, known: 1e-9)


def test_a_lowering_that_is_never_used_is_an_error() -> None:
    check_lowering(_strategy("matmul"), METHOD, [PAIRS], ops=["linear"], options={}, examples=4)
    with pytest.raises(ConformanceError, match="no plan"):
        check_lowering(_strategy("erf"), METHOD, [PAIRS], ops=["linear"], examples=4)
    with pytest.raises(ConformanceError, match="no plan"):
        check_lowering(_strategy("matmul"), METHOD, [PAIRS], ops=[])


def test_a_lowering_that_computes_wrongly_is_caught() -> None:
    from boundflow_core.executors.reference import NumpyBackend

    wrong = mutated(NumpyBackend.convert, "as_numpy(array)", "as_numpy(array) * 1.001")
    with wrong, pytest.raises(ConformanceError, match="differ from those of the reference interpreter"):
        check_lowering(_strategy("matmul"), METHOD, [PAIRS], ops=["linear"], examples=10, shrink=False)


def test_a_lowering_that_differs_in_batches_is_caught() -> None:
    from boundflow_core.executors.reference import NumpyBackend

    alone = "as_numpy(array) * (1.001 if np.shape(array)[:1] == (1,) else 1.0)"
    wrong = mutated(NumpyBackend.convert, "as_numpy(array)", alone)
    with wrong, pytest.raises(ConformanceError, match="law 'batch'"):
        gaps = {"linear:values": "regions alone"}
        check_lowering(_strategy("matmul"), METHOD, [PAIRS], ops=["linear"], expected_failures=gaps, shrink=False)


def _decompose_ends(b: Builder, inputs: Any, attrs: Any) -> tuple[Value, ...]:
    centre, radius = inputs
    return centre - radius, centre + radius


ENDS = Composite("ends", "ends of an interval from centre and radius", _decompose_ends)


def _through_ends(context: RuleContext, x: tuple[Value, Value], *weights: Value) -> Any:
    lower, upper = DOMAIN.rules["linear"](context, x, *weights)
    return context.b.emit(ENDS, (lower + upper) * 0.5, (upper - lower) * 0.5)


def _rows_through_ends(context: MethodContext) -> Any:
    lower, upper = METHOD.emit(context)  # type: ignore[misc]
    if context.spec is None:
        return lower, upper
    return context.b.emit(ENDS, (lower + upper) * 0.5, (upper - lower) * 0.5)


BY_ENDS = replace(PAIRS, rules={**PAIRS.rules, "linear": _through_ends})
ROWS_BY_ENDS = replace(METHOD, emit=_rows_through_ends)


def _ends(change: Callable[..., Any]) -> LoweringStrategy:
    """A kernel of ``ends`` that gives ``change(centre, radius, lower, upper)``."""

    def kernel(op: Any) -> Any:
        return lambda centre, radius: change(centre, radius, centre - radius, centre + radius)

    return replace(_strategy("ends"), kernel=kernel)


def _right(centre: Any, radius: Any, lower: Any, upper: Any) -> Any:
    return lower, upper


def _writing(centre: Any, radius: Any, lower: Any, upper: Any) -> Any:
    centre[...] = 0.0
    return lower, upper


WRONG_KERNELS: dict[str, tuple[str, Callable[..., Any]]] = {
    "swapped ends": ("outputs", lambda centre, radius, lower, upper: (upper, lower)),
    "float32 inside": ("outputs", lambda centre, radius, lower, upper: (lower.astype("f4"), upper.astype("f4"))),
    "one result for two": ("outputs", lambda centre, radius, lower, upper: lower),
    "a shape that broadcasts": ("outputs", lambda centre, radius, lower, upper: (lower[None], upper[None])),
    "written operands": ("operands", _writing),
}


def test_right_kernels_pass() -> None:
    check_lowering(_ends(_right), METHOD, [BY_ENDS])
    check_lowering(_ends(_right), ROWS_BY_ENDS, [PAIRS], ops=["relu"], examples=5)


@pytest.mark.parametrize("wrong", WRONG_KERNELS)
def test_kernels_are_compared_call_by_call(wrong: str) -> None:
    law, change = WRONG_KERNELS[wrong]
    names = {"lowering": _ends(change), "method": METHOD, "domains": [BY_ENDS]}
    check = lambda: check_lowering(_ends(change), METHOD, [BY_ENDS], ops=["linear"], shrink=False)  # noqa: E731
    assert law_of(check, **names) == law


def test_kernels_on_tensors_are_compared() -> None:
    pytest.importorskip("torch")
    check_lowering(replace(_ends(_right), executor="torch"), METHOD, [BY_ENDS], ops=["linear"], examples=5)
    for law, change in (WRONG_KERNELS["swapped ends"], WRONG_KERNELS["written operands"]):
        lowering = replace(_ends(change), executor="torch")
        with pytest.raises(ConformanceError) as failure:
            check_lowering(lowering, METHOD, [BY_ENDS], ops=["linear"], shrink=False)
        assert failure.value.law == law


def test_kernels_that_only_specification_rows_need_are_reached() -> None:
    law, change = WRONG_KERNELS["swapped ends"]
    names = {"lowering": _ends(change), "method": ROWS_BY_ENDS, "domains": [PAIRS]}
    check = lambda: check_lowering(_ends(change), ROWS_BY_ENDS, [PAIRS], ops=["relu"], shrink=False)  # noqa: E731
    assert law_of(check, **names) == law


def test_known_gaps_of_a_lowering() -> None:
    gaps = {"linear:operands": "on purpose", "linear:values": "what it writes to is used again"}
    with pytest.raises(ConformanceError, match="'linear:values' is declared"):
        check_lowering(_ends(_writing), METHOD, [BY_ENDS], ops=["linear"], examples=5, expected_failures=gaps)
    del gaps["linear:values"]
    check_lowering(_ends(_writing), METHOD, [BY_ENDS], ops=["linear"], examples=5, expected_failures=gaps)


def test_what_is_asked_of_a_lowering_must_exist() -> None:
    with pytest.raises(
        ValueError, match=r"\['linaer'\] are not among the operators that are checked, which are linear"
    ):
        check_lowering(_ends(_right), METHOD, [BY_ENDS], ops=["linear"], expected_failures={"linaer:values": "typo"})
    with pytest.raises(ValueError, match=r"\['linaer'\]; the kit has .*linear"):
        check_lowering(_ends(_right), METHOD, [BY_ENDS], ops=["linaer"])


def test_rules_for_operators_of_plugins_are_left_to_them() -> None:
    more = replace(BY_ENDS, rules={**BY_ENDS.rules, "somebodys-op": _moved})
    check_lowering(_ends(_right), METHOD, [more], examples=2)


def test_the_registry_is_left_alone() -> None:
    assert "mine" not in registry().lowerings
