"""The demo: what it certifies is true, its table and picture appear, and bad output paths are found out at once."""

from __future__ import annotations

import io
import json
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

import boundflow_core as bf
from boundflow_core.demo import digits, picture
from boundflow_core.demo.run import registered_methods, run_demo, table
from boundflow_core.errors import BoundFlowError, InputError

ATTACKED = (0.0, 0.02, 0.05, 0.08)


def forward(network: digits.Network, x: Tensor) -> Tensor:
    """Logits by torch from the ONNX nodes: nothing of the project takes part."""
    model = onnx.load_from_string(files("boundflow_core.demo").joinpath("data", network.file).read_bytes())
    weights = {w.name: torch.from_numpy(numpy_helper.to_array(w).copy()) for w in model.graph.initializer}
    for node in model.graph.node:
        given = [weights[name] for name in node.input[1:]]
        options = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Gemm":
            x = F.linear(x, *given)
        elif node.op_type == "Conv":
            x = F.conv2d(x, *given, stride=options["strides"], padding=options["pads"][:2])
        else:
            x = {"Relu": torch.relu, "Flatten": lambda value: value.flatten(1)}[node.op_type](x)
    return x


def survives_attack(
    network: digits.Network, images: NDArray[np.float32], labels: NDArray[np.int64], eps: float
) -> NDArray[np.bool_]:
    """Which images [n] keep their label at the image itself, at random corners, and along projected gradient ascent."""
    torch.manual_seed(0)
    centre, label = torch.from_numpy(images), torch.from_numpy(labels)
    lower, upper = (centre - eps).clamp(0, 1), (centre + eps).clamp(0, 1)
    kept = forward(network, centre).argmax(1) == label
    for _ in range(5):
        x = torch.where(torch.rand_like(centre) < 0.5, lower, upper)
        kept &= forward(network, x).argmax(1) == label
        for _ in range(10):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(F.cross_entropy(forward(network, x), label, reduction="sum"), x)
            x = (x + eps / 4 * slope.sign()).clamp(lower, upper).detach()
            kept &= forward(network, x).argmax(1) == label
    result: NDArray[np.bool_] = kept.numpy()
    return result


@pytest.fixture(scope="module")
def shipped() -> digits.TestSet:
    return digits.load_test_set()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[digits.DemoResult, str, Path]:
    """One run with all methods: the result, what was printed, and the picture."""
    path = tmp_path_factory.mktemp("demo") / "digits.png"
    console = Console(file=io.StringIO(), width=80)
    result = run_demo(None, path, console)
    assert isinstance(console.file, io.StringIO)
    return result, console.file.getvalue(), path


def test_test_set_is_whole(shipped: digits.TestSet) -> None:
    assert shipped.images.shape == (540, 8, 8) and shipped.images.dtype == np.float32
    assert shipped.images.min() == 0 and shipped.images.max() == 1
    assert set(shipped.labels.tolist()) == set(range(10))


def test_margin_rows_subtract_each_other_class() -> None:
    labels = np.array([3, 0], dtype=np.int64)
    logits = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    margins = np.einsum("njk,nk->nj", digits.margin_rows(labels), logits)
    for row, label, values in zip(margins, labels, logits, strict=True):
        np.testing.assert_allclose(row, values[label] - np.delete(values, label), rtol=1e-6)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [(-1.0, 1.0), (0.0, 1.0), (np.nan, 1.0), (1.0, np.nan), (np.inf, np.inf), (1.0, np.inf), (1.0, -1.0)],
)
def test_doubtful_bounds_certify_nothing(lower: float, upper: float) -> None:
    good = np.ones((2, 9), dtype=np.float32)
    low, high = good.copy(), 2 * good
    low[0, 4], high[0, 4] = lower, upper
    assert digits.positive(bf.Bounds(low, high)).tolist() == [False, True]


def test_every_curve_is_plausible(ran: tuple[digits.DemoResult, str, Path]) -> None:
    result, _, _ = ran
    assert {curve.network for curve in result.curves} == {network.name for network in digits.NETWORKS}
    assert not result.skipped
    for curve in result.curves:
        shares = [point.certified_accuracy for point in curve.points]
        assert [point.eps for point in curve.points] == list(digits.EPS[1:])
        assert curve.clean_accuracy >= 0.9
        assert all(share <= curve.clean_accuracy for share in shares)
        if curve.method == "ibp":  # the others choose their lines for each eps anew
            assert all(after <= before for before, after in pairwise(shares))
        assert shares[0] > 0.9, "at eps 0.01 all but a few images are certified"
        assert shares[-1] < 0.6, "at eps 0.12 most are not: attacks succeed"


@pytest.mark.parametrize("network", [network.name for network in digits.NETWORKS])
def test_tighter_methods_certify_more(network: str, ran: tuple[digits.DemoResult, str, Path]) -> None:
    curves = {curve.method: curve for curve in ran[0].curves if curve.network == network}
    shares = {name: np.array([point.certified_accuracy for point in curve.points]) for name, curve in curves.items()}
    assert list(curves) == ["ibp", "crown-ibp", "crown", "alpha-crown"]
    for loose, tight in (("ibp", "crown-ibp"), ("ibp", "crown"), ("crown", "alpha-crown")):
        assert (shares[tight] >= shares[loose]).all()
        assert shares[tight].sum() > shares[loose].sum() + 0.05


@pytest.mark.parametrize("network", digits.NETWORKS, ids=lambda network: network.name)
def test_clean_accuracy_is_the_networks_own(
    network: digits.Network, ran: tuple[digits.DemoResult, str, Path], shipped: digits.TestSet
) -> None:
    images = torch.from_numpy(shipped.images.reshape(-1, *network.input_shape))
    right = (forward(network, images).argmax(1).numpy() == shipped.labels).mean()
    for curve in ran[0].curves:
        if curve.network == network.name:
            assert curve.clean_accuracy == pytest.approx(right, abs=1e-9)


@pytest.mark.parametrize("eps", ATTACKED)
@pytest.mark.parametrize("network", digits.NETWORKS, ids=lambda network: network.name)
def test_no_attack_breaks_a_certified_image(network: digits.Network, eps: float, shipped: digits.TestSet) -> None:
    images, labels = shipped.images.reshape(-1, *network.input_shape), shipped.labels
    kept = survives_attack(network, images, labels, eps)
    graph = digits.load_network(network)
    for method in registered_methods():
        certified = digits.certified(digits.compile_margins(graph, method), images, labels, eps)
        assert certified.any()
        assert not (certified & ~kept).any(), f"{method} certifies images that an attack breaks"


def test_attack_is_strong_enough_to_tell(shipped: digits.TestSet) -> None:
    network = digits.NETWORKS[0]
    images = shipped.images.reshape(-1, *network.input_shape)
    assert survives_attack(network, images, shipped.labels, 0.15).mean() < 0.5


def test_table_and_picture_appear(ran: tuple[digits.DemoResult, str, Path]) -> None:
    result, printed, path = ran
    assert "…" not in printed, "the table is cut off in 80 columns"
    for curve in result.curves:
        assert curve.network in printed and curve.method in printed
        assert f"{100 * curve.clean_accuracy:.1f}" in printed
    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 20_000
    assert result.picture == str(path)
    assert list(path.parent.iterdir()) == [path], "nothing is left beside the picture"


def test_result_goes_into_json(ran: tuple[digits.DemoResult, str, Path]) -> None:
    result, _, _ = ran
    read = json.loads(json.dumps(result.to_json()))
    assert read["images"] == 540
    assert len(read["curves"]) == len(result.curves)
    assert read["curves"][0]["points"][0]["eps"] == 0.01


def made_up() -> digits.DemoResult:
    points = {"a": (0.9, 0.2), "b": (0.95, 0.6)}
    return digits.DemoResult(
        540,
        tuple(
            digits.Curve(network, method, 0.98, 0.0, tuple(map(digits.Point, (0.05, 0.1), shares, (0.1, 0.1))))
            for network in ("MLP", "CNN")
            for method, shares in points.items()
        ),
    )


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF")])
def test_picture_format_follows_the_suffix(tmp_path: Path, suffix: str, start: bytes, shipped: digits.TestSet) -> None:
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    picture.save(made_up(), shipped.images, first)
    picture.save(made_up(), shipped.images, second)
    assert first.read_bytes().startswith(start)
    assert first.read_bytes() == second.read_bytes()


def test_svg_names_networks_and_methods(tmp_path: Path, shipped: digits.TestSet) -> None:
    path = tmp_path / "digits.svg"
    picture.save(made_up(), shipped.images, path)
    text = path.read_text(encoding="utf-8")
    for words in (">MLP<", ">CNN<", ">a<", ">b<", "clean accuracy 98.0%"):
        assert words in text


def test_table_of_nothing_is_a_table() -> None:
    assert table(digits.DemoResult(540, ())).row_count == 0


@pytest.mark.parametrize("name", ["picture.jpeg2", "picture", "no/such/folder/picture.png"])
def test_bad_output_is_found_before_any_work(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boundflow_core.demo.run.certify", lambda *_, **__: pytest.fail("work was done"))
    with pytest.raises(InputError, match=Path(name).name):
        run_demo(["ibp"], tmp_path / name, Console(file=io.StringIO()))
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_table_still_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture, "have_matplotlib", lambda: False)
    console = Console(file=io.StringIO(), width=80)
    result = run_demo(["ibp"], tmp_path / "digits.png", console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "ibp" in printed and "pip install 'boundflow-core[demo]'" in printed
    assert result.picture is None and list(tmp_path.iterdir()) == []


def test_a_discovered_method_that_fails_is_reported_and_an_asked_one_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: digits.Network, graph: object, method: str, *_: object, **__: object) -> digits.Curve:
        if method == "broken":
            raise BoundFlowError("no rule for Relu")
        return digits.Curve(network.name, method, 0.98, 0.0, (digits.Point(0.02, 0.5, 0.0),))

    monkeypatch.setattr("boundflow_core.demo.run.certify", fail)
    monkeypatch.setattr("boundflow_core.demo.run.registered_methods", lambda: ("broken", "sound"))
    console = Console(file=io.StringIO(), width=80)
    result = run_demo(None, None, console)
    assert isinstance(console.file, io.StringIO)
    assert "no rule for Relu" in console.file.getvalue()
    assert [curve.method for curve in result.curves] == ["sound", "sound"]
    assert [miss.method for miss in result.skipped] == ["broken", "broken"]
    with pytest.raises(BoundFlowError, match="no rule for Relu"):
        run_demo(["broken"], None, console)
    monkeypatch.setattr("boundflow_core.demo.run.registered_methods", lambda: ("broken",))
    with pytest.raises(BoundFlowError, match="broken: no rule for Relu"):
        run_demo(None, None, console)
    monkeypatch.setattr("boundflow_core.demo.run.registered_methods", lambda: ())
    with pytest.raises(BoundFlowError, match="pip install"):
        run_demo(None, None, console)


def test_an_unknown_method_is_an_error() -> None:
    with pytest.raises(BoundFlowError, match="no-such-method"):
        run_demo(["no-such-method"], None, Console(file=io.StringIO()))
