"""Train small digit classifiers so that their robustness can be proven, with bounds that torch differentiates.

Run `python train.py`; see README.md beside this file.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

import boundflow_core as bf

SEED = 7
CLASSES = 10
BRIGHTEST = 16  # pixels of the data set are integers 0..16
EPS = 0.06
METHODS = ("ibp", "crown-ibp")


@dataclass(frozen=True)
class Split:
    """Images float32 [n, 64] in [0, 1], labels int64 [n]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Over the first `ramp` of the run eps grows from 0 to `eps` and the certified part of the loss from none to `weight`.
    """

    epochs: int = 40
    eps: float = EPS
    weight: float = 0.6
    ramp: float = 0.7
    batch: int = 64
    learning_rate: float = 4e-3


@dataclass(frozen=True)
class Row:
    """What a network is worth after an epoch: shares of the test images that are right, and provably so at `EPS`."""

    epoch: int
    clean: float
    certified: dict[str, float]
    seconds: float


def load_data() -> tuple[Split, Split]:
    """1,257 images to train on and 540 to test."""
    digits = load_digits()
    images = torch.from_numpy(digits.images.astype(np.float32) / BRIGHTEST).flatten(1)
    labels = torch.from_numpy(digits.target.astype(np.int64))
    parts = train_test_split(np.arange(len(labels)), test_size=540, random_state=SEED, stratify=digits.target)
    train, test = (Split(images[part], labels[part]) for part in parts)
    return train, test


def build() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, CLASSES))


def compile_bounds(net: nn.Module, method: str) -> bf.CompiledBounds:
    """Bounds of `net` that follow its weights, and that torch differentiates with respect to them."""
    graph = bf.load(net, example_inputs=(torch.zeros(1, 64),))
    return bf.compile(graph, method=method, executor="torch", differentiable=True, **lower_side(method))


def lower_side(method: str) -> dict[str, str]:
    """Only lower bounds of margins are wanted; intervals bound both sides at once anyway."""
    return {} if method == "ibp" else {"side": "lower"}


def margins(run: bf.CompiledBounds, images: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Lower bounds [n, 10] of `logit_label - logit_j` when every pixel moves by up to eps and stays in [0, 1]."""
    region = bf.Box((images - eps).clamp(0, 1), (images + eps).clamp(0, 1))
    rows = F.one_hot(labels, CLASSES).to(images.dtype).unsqueeze(1) - torch.eye(CLASSES)
    lower: Tensor = run(region, bf.LinearSpec(rows)).lower
    return lower


def certified(run: bf.CompiledBounds, data: Split, eps: float) -> float:
    """Share of the images whose class is right in the whole box."""
    with torch.no_grad():
        others = F.one_hot(data.labels, CLASSES) == 0
        found = margins(run, data.images, data.labels, eps)
    return float(((found > 0) | ~others).all(1).float().mean())


def train(net: nn.Module, run: bf.CompiledBounds, data: Split, recipe: Recipe) -> Iterator[int]:
    """Trains `net` on cross entropy mixed with that of the worst logits that `run` allows; yields after each epoch."""
    batches = -(-len(data.labels) // recipe.batch)
    optimizer = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.epochs * batches)
    for epoch in range(recipe.epochs):
        for number, chosen in enumerate(torch.randperm(len(data.labels)).split(recipe.batch)):
            grown = min(1.0, (epoch + number / batches) / (recipe.ramp * recipe.epochs))
            images, labels = data.images[chosen], data.labels[chosen]
            share = recipe.weight * grown
            worst = -margins(run, images, labels, recipe.eps * grown)
            loss = (1 - share) * F.cross_entropy(net(images), labels) + share * F.cross_entropy(worst, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rates.step()
        yield epoch + 1


def history(loss: str, recipe: Recipe, every: int = 8) -> list[Row]:
    """Trains a network with the bounds of the method `loss`, and judges it by all methods as it goes."""
    torch.manual_seed(SEED)
    data, test = load_data()
    net = build()
    runs = {method: compile_bounds(net, method) for method in METHODS}
    rows: list[Row] = []
    started = time.perf_counter()

    def judge(epoch: int) -> None:
        clean = float((net(test.images).argmax(1) == test.labels).float().mean())
        shares = {method: certified(run, test, EPS) for method, run in runs.items()}
        rows.append(Row(epoch, clean, shares, time.perf_counter() - started))

    judge(0)
    for epoch in train(net, runs[loss], data, recipe):
        if epoch % every == 0 or epoch == recipe.epochs:
            judge(epoch)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=Recipe.epochs)
    recipe = Recipe(epochs=parser.parse_args().epochs)
    torch.set_num_threads(1)  # sums in a fixed order: the same weights each time
    print(f"Share of 540 test images, in percent; certified at eps {EPS}, proven by each method\n")
    print(
        f"{'loss':10} {'epoch':>5} {'clean':>6} "
        + " ".join(f"{'by ' + method:>13}" for method in METHODS)
        + "  seconds"
    )
    for loss in METHODS:
        for row in history(loss, recipe):
            shares = " ".join(f"{100 * row.certified[method]:13.1f}" for method in METHODS)
            print(f"{loss:10} {row.epoch:5} {100 * row.clean:6.1f} {shares} {row.seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
