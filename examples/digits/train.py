"""Train the two digit classifiers that `boundflow demo` certifies, and write them as ONNX.

Run `python train.py`; see README.md beside this file for what it writes and why the training looks as it does.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

SEED = 7
TEST_SIZE = 540
BRIGHTEST = 16  # pixels of the data set are integers 0..16
OPSET = 17
DEFAULT_OUTPUT = Path(__file__).resolve().parents[2] / "boundflow-core/src/boundflow_core/demo/data"


@dataclass(frozen=True)
class Recipe:
    """How one network is trained.

    Over the middle of the run eps grows from 0 to `eps` and the weight of the certified loss from 0 to `weight`;
    a weight below 1 keeps clean accuracy up and leaves activations unstable, so that methods differ visibly.
    """

    epochs: int
    eps: float
    weight: float
    batch: int = 64
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Split:
    """Images are float32 [n, 1, 8, 8] in [0, 1], labels int64 [n]."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


RECIPES = {
    "mlp": Recipe(epochs=100, eps=0.03, weight=0.2),
    "cnn": Recipe(epochs=80, eps=0.05, weight=0.2),
}


def build(name: str) -> nn.Sequential:
    """The untrained network; the MLP takes [N, 64], the CNN [N, 1, 8, 8], both give logits [N, 10]."""
    if name == "mlp":
        return nn.Sequential(nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 10))
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=1, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 16, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def input_shape(name: str) -> tuple[int, ...]:
    return (64,) if name == "mlp" else (1, 8, 8)


def load_split() -> Split:
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / BRIGHTEST).unsqueeze(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    train, test = train_test_split(
        np.arange(len(labels)), test_size=TEST_SIZE, random_state=SEED, stratify=digits.target
    )
    return Split(images[train], labels[train], images[test], labels[test])


def interval_forward(layers: nn.Sequential, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Interval bounds through affine layers (centre and radius), ReLU and Flatten."""
    for layer in layers:
        centre, radius = (upper + lower) / 2, (upper - lower) / 2
        if isinstance(layer, nn.Linear):
            centre, radius = layer(centre), F.linear(radius, layer.weight.abs())
        elif isinstance(layer, nn.Conv2d):
            centre = layer(centre)
            radius = F.conv2d(radius, layer.weight.abs(), stride=layer.stride, padding=layer.padding)
        elif isinstance(layer, (nn.ReLU, nn.Flatten)):
            lower, upper = layer(lower), layer(upper)
            continue
        else:
            raise TypeError(f"no interval rule for {layer}")
        lower, upper = centre - radius, centre + radius
    return lower, upper


def certified_margins(net: nn.Sequential, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Lower bounds [n, 10] of `logit_label - logit_j`; the margin rows are folded into the last layer."""
    lower, upper = interval_forward(net[:-1], (images - eps).clamp(0, 1), (images + eps).clamp(0, 1))
    last = net[-1]
    assert isinstance(last, nn.Linear)
    rows = F.one_hot(labels, 10).to(images.dtype).unsqueeze(1) - torch.eye(10)  # [n, 10, 10]
    weight = rows @ last.weight
    centre, radius = (upper + lower) / 2, (upper - lower) / 2
    return (
        torch.einsum("njk,nk->nj", weight, centre) + rows @ last.bias - torch.einsum("njk,nk->nj", weight.abs(), radius)
    )


def ramp(progress: float) -> float:
    """0 in the first tenth of the run, 1 from six tenths on, linear between."""
    return min(1.0, max(0.0, (progress - 0.1) / 0.5))


def train(net: nn.Sequential, images: Tensor, labels: Tensor, recipe: Recipe) -> None:
    """Cross entropy mixed with the cross entropy of the worst logits that interval bounds allow."""
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
    steps = recipe.epochs * -(-len(labels) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    step = 0
    for _ in range(recipe.epochs):
        for chosen in torch.randperm(len(labels)).split(recipe.batch):
            grown = ramp(step / steps)
            x, y = images[chosen], labels[chosen]
            loss = (1 - recipe.weight * grown) * F.cross_entropy(net(x), y)
            if grown > 0:
                margins = certified_margins(net, x, y, recipe.eps * grown)
                loss = loss + recipe.weight * grown * F.cross_entropy(-margins, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1


def to_onnx(net: nn.Sequential, name: str) -> onnx.ModelProto:
    """The network as an ONNX model with a symbolic batch dimension, written node by node from the weights."""
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value = "input"

    def constant(label: str, tensor: Tensor) -> str:
        weights.append(numpy_helper.from_array(tensor.detach().numpy().astype(np.float32), label))
        return label

    for index, layer in enumerate(net):
        result = "logits" if index == len(net) - 1 else f"value{index}"
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            parameters = [constant(f"weight{index}", layer.weight), constant(f"bias{index}", layer.bias)]
        if isinstance(layer, nn.Linear):
            node = helper.make_node("Gemm", [value, *parameters], [result], f"linear{index}", transB=1)
        elif isinstance(layer, nn.Conv2d):
            node = helper.make_node(
                "Conv",
                [value, *parameters],
                [result],
                f"conv{index}",
                kernel_shape=list(layer.kernel_size),
                strides=list(layer.stride),
                pads=[int(p) for p in layer.padding] * 2,
            )
        elif isinstance(layer, nn.ReLU):
            node = helper.make_node("Relu", [value], [result], f"relu{index}")
        elif isinstance(layer, nn.Flatten):
            node = helper.make_node("Flatten", [value], [result], f"flatten{index}", axis=1)
        else:
            raise TypeError(f"no ONNX node for {layer}")
        nodes.append(node)
        value = result
    graph = helper.make_graph(
        nodes,
        f"digits_{name}",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *input_shape(name)])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        weights,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="boundflow-digits", ir_version=8
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def check_against_torch(model: onnx.ModelProto, net: nn.Sequential, inputs: Tensor) -> None:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (ours,) = session.run(["logits"], {"input": inputs.numpy()})
    np.testing.assert_allclose(ours, net(inputs).detach().numpy(), rtol=1e-4, atol=1e-4)


def report(name: str, net: nn.Sequential, images: Tensor, labels: Tensor) -> None:
    with torch.no_grad():
        right = net(images).argmax(1) == labels
        print(f"{name}: clean accuracy {right.float().mean():.3f}", flush=True)
        for eps in (0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12):
            margins = certified_margins(net, images, labels, eps)
            margins[torch.arange(len(labels)), labels] = 1.0  # the label against itself
            certified = right & (margins > 0).all(1)
            print(f"  eps {eps:<5} certified by intervals {certified.float().mean():.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write to")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(1)  # sums in a fixed order: the same weights each time
    torch.use_deterministic_algorithms(True)
    split = load_split()
    for name, recipe in RECIPES.items():
        torch.manual_seed(SEED)
        net = build(name)
        train_images = split.train_images.reshape(-1, *input_shape(name))
        test_images = split.test_images.reshape(-1, *input_shape(name))
        train(net, train_images, split.train_labels, recipe)
        report(name, net, test_images, split.test_labels)
        model = to_onnx(net, name)
        check_against_torch(model, net, test_images)
        onnx.save(model, output / f"digits_{name}.onnx")
    np.savez_compressed(
        output / "digits_test.npz",
        images=(split.test_images[:, 0] * BRIGHTEST).round().to(torch.uint8).numpy(),
        labels=split.test_labels.to(torch.uint8).numpy(),
    )


if __name__ == "__main__":
    main()
