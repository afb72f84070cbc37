"""The torch frontend against torch itself: every operator, live weights, and input that is refused."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from boundflow_core.errors import BoundFlowError, LoadError, UnsupportedOpError
from boundflow_core.forward import evaluate_graph
from boundflow_core.frontends.torch_export import load_module
from boundflow_core.ir.primal import PrimalGraph
from boundflow_core.ir.types import DType

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def points(*shape: int, low: float = -2.0, high: float = 2.0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return low + (high - low) * torch.rand(shape, generator=generator, dtype=dtype)


def settle(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Weights and running statistics that are not those of a fresh layer, so that an operand left out shows."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.is_floating_point():
            values = torch.rand(tensor.shape, generator=generator, dtype=torch.float64)
            tensor.data = (values + 0.5 if "var" in name else values - 0.3).to(dtype)
    return module


def check(module: nn.Module | Callable[..., Any], x: torch.Tensor, dtype: torch.dtype) -> PrimalGraph:
    """Loads the module from one sample and compares all samples of ``x``, which torch gets one by one."""
    module = settle(module if isinstance(module, nn.Module) else Apply(module), dtype)
    graph = load_module(module, (x.to(dtype),))
    assert graph.input_type.shape == tuple(x.shape[1:])
    compare(graph, module, x, dtype)
    return graph


def compare(graph: PrimalGraph, module: nn.Module, x: torch.Tensor, dtype: torch.dtype) -> None:
    x = x.to(dtype)
    ours = evaluate_graph(graph, x.numpy(), DType(str(dtype).removeprefix("torch.")))
    with torch.no_grad():
        theirs = torch.cat([module.eval()(sample[None]) for sample in x]).numpy()
    assert ours.shape == theirs.shape
    limit = TOLERANCE[dtype] * max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=limit)


VECTOR = (3, 6)
MATRIX = (3, 4, 6)
IMAGE = (3, 4, 7, 9)
EVEN = (3, 4, 6, 8)

W = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 6)
MASK = torch.tensor([True, False, True, True, False, False])


def weight(*shape: int) -> torch.Tensor:
    """A constant that is neither parameter nor buffer; cast to the input's type where it is used."""
    return torch.linspace(-1, 1, math.prod(shape), dtype=torch.float64).reshape(shape)


FUNCTIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...]]] = {
    # functions of one
    "relu": (torch.relu, VECTOR),
    "relu_in_place": (lambda x: F.relu(x * 1.5, inplace=True), VECTOR),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), VECTOR),
    "clamp": (lambda x: x.clamp(-0.5, 0.7), VECTOR),
    "clamp_min": (lambda x: x.clamp_min(-0.5), VECTOR),
    "clamp_max": (lambda x: x.clamp(max=0.5), VECTOR),
    "clamp_crossed": (lambda x: x.clamp(0.7, -0.5), VECTOR),
    "clamp_tensor": (lambda x: x.clamp(weight(6).to(x.dtype) - 1, weight(6).to(x.dtype)), VECTOR),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 0.25), VECTOR),
    "relu6": (lambda x: F.relu6(4 * x), VECTOR),
    "sigmoid": (torch.sigmoid, VECTOR),
    "tanh": (torch.tanh, VECTOR),
    "erf": (torch.erf, VECTOR),
    "gelu": (F.gelu, VECTOR),
    "gelu_tanh": (lambda x: F.gelu(x, approximate="tanh"), VECTOR),
    "hardsigmoid": (lambda x: F.hardsigmoid(3 * x), VECTOR),
    "softplus": (F.softplus, VECTOR),
    "softplus_beta": (lambda x: F.softplus(x, beta=2.5), VECTOR),
    "exp": (torch.exp, VECTOR),
    "expm1": (torch.expm1, VECTOR),
    "log": (lambda x: torch.log(x + 3), VECTOR),
    "log1p": (lambda x: torch.log1p(x.abs()), VECTOR),
    "log2": (lambda x: torch.log2(x + 3), VECTOR),
    "sqrt": (lambda x: torch.sqrt(x + 3), VECTOR),
    "rsqrt": (lambda x: torch.rsqrt(x + 3), VECTOR),
    "reciprocal": (lambda x: torch.reciprocal(x + 3), VECTOR),
    "pow": (lambda x: x**3, VECTOR),
    "pow_half": (lambda x: (x + 3) ** 0.5, VECTOR),
    "pow_zero": (lambda x: x + x**0, VECTOR),
    "pow_of_number": (lambda x: 1.7**x, VECTOR),
    "pow_tensor": (lambda x: (x + 3) ** torch.tensor(2.5, dtype=x.dtype), VECTOR),
    "square": (torch.square, VECTOR),
    "abs": (torch.abs, VECTOR),
    "neg": (torch.neg, VECTOR),
    "sign": (torch.sign, VECTOR),
    "floor": (torch.floor, VECTOR),
    "ceil": (torch.ceil, VECTOR),
    "sin": (torch.sin, VECTOR),
    "cos": (torch.cos, VECTOR),
    "silu": (F.silu, VECTOR),
    "mish": (F.mish, VECTOR),
    "elu": (lambda x: F.elu(x, 0.7), VECTOR),
    "celu": (lambda x: F.celu(x, 0.7), VECTOR),
    "selu": (F.selu, VECTOR),
    "hardswish": (lambda x: F.hardswish(3 * x), VECTOR),
    "logsigmoid": (F.logsigmoid, VECTOR),
    "softsign": (F.softsign, VECTOR),
    "tanhshrink": (F.tanhshrink, VECTOR),
    # arithmetic of two
    "add_alpha": (lambda x: torch.add(x, x.abs(), alpha=2.5), VECTOR),
    "add_number": (lambda x: 2 + x + True, VECTOR),
    "add_integers": (lambda x: x + torch.arange(6), VECTOR),
    "sub_alpha": (lambda x: torch.sub(x, x.abs(), alpha=0.5), VECTOR),
    "rsub": (lambda x: 1 - x, VECTOR),
    "mul": (lambda x: x * x.flip(1) * 0.5, VECTOR),
    "div": (lambda x: x / (x.abs() + 1) / 3, VECTOR),
    "div_constant": (lambda x: x / (weight(6).to(x.dtype) + 2), VECTOR),
    "rdiv": (lambda x: 2 / (x + 3), VECTOR),
    "floor_divide": (lambda x: torch.div(x, 0.3, rounding_mode="floor"), VECTOR),
    "minimum": (lambda x: torch.minimum(x, x.flip(1)), VECTOR),
    "maximum": (lambda x: torch.maximum(x, weight(6).to(x.dtype)), VECTOR),
    "max_other": (lambda x: torch.max(x, -x), VECTOR),
    "addcmul": (lambda x: torch.addcmul(x, x, x.abs(), value=0.5), VECTOR),
    "addcdiv": (lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5), VECTOR),
    "lerp": (lambda x: torch.lerp(x, x.abs(), 0.3), VECTOR),
    "where": (lambda x: torch.where(MASK, x, -2 * x), VECTOR),
    "where_number": (lambda x: torch.where(MASK, x, 0.5), VECTOR),
    "masked_fill": (lambda x: x.masked_fill(MASK, 3.0), VECTOR),
    # products
    "mm": (lambda x: torch.mm(x, W.T.to(x.dtype)), VECTOR),
    "mv": (lambda x: x[0] @ weight(6).to(x.dtype) + x.sum(1), VECTOR),
    "matmul_left": (lambda x: weight(5, 4).to(x.dtype) @ x, MATRIX),
    "matmul_both": (lambda x: x @ x.transpose(1, 2), MATRIX),
    "matmul_stacked_weights": (lambda x: x[:, None] @ weight(2, 6, 3).to(x.dtype), MATRIX),
    "bmm": (lambda x: torch.bmm(x, x.mT), MATRIX),
    "addmm": (lambda x: torch.addmm(weight(5).to(x.dtype), x, W.T.to(x.dtype), beta=0.5, alpha=2.0), VECTOR),
    "baddbmm": (lambda x: torch.baddbmm(weight(4, 4).to(x.dtype), x, x.mT, beta=0.5, alpha=2.0), MATRIX),
    "einsum": (lambda x: torch.einsum("bij,bkj->bik", x, x), MATRIX),
    "einsum_weight": (lambda x: torch.einsum("bij,kj->bik", x, W.to(x.dtype)), MATRIX),
    "linear_of_input": (lambda x: F.linear(x, x[0]), MATRIX),
    # reductions
    "mean": (lambda x: x.mean(-1), MATRIX),
    "mean_all": (lambda x: x.mean((1, 2), keepdim=True), MATRIX),
    "mean_default": (lambda x: x.mean()[None], MATRIX),
    "sum": (lambda x: x.sum(1, keepdim=True), MATRIX),
    "sum_default": (lambda x: x.sum()[None], MATRIX),
    "amax": (lambda x: x.amax((1, 2)), MATRIX),
    "amin": (lambda x: x.amin(2), MATRIX),
    "max_dim": (lambda x: x.max(1).values, MATRIX),
    "min_dim": (lambda x: torch.min(x, -1, keepdim=True)[0], MATRIX),
    "max_default": (lambda x: x.max()[None], MATRIX),
    "var": (lambda x: x.var(-1), MATRIX),
    "std": (lambda x: x.std((1, 2), correction=0), MATRIX),
    "var_mean": (lambda x: sum(torch.var_mean(x, 1)), MATRIX),
    "logsumexp": (lambda x: torch.logsumexp(x, 1), MATRIX),
    "norm": (lambda x: x.norm(dim=1), MATRIX),
    "norm_1": (lambda x: torch.linalg.vector_norm(x, 1, dim=1), MATRIX),
    "normalize": (lambda x: F.normalize(x, dim=1), MATRIX),
    "cumsum": (lambda x: x.cumsum(1), MATRIX),
    # several elements into one
    "softmax": (lambda x: F.softmax(x, -1), MATRIX),
    "softmax_inner": (lambda x: torch.softmax(x, 1), MATRIX),
    "log_softmax": (lambda x: F.log_softmax(x, -1), MATRIX),
    "attention": (lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None] * 2, x[:, None].sin()), MATRIX),
    "attention_scale": (lambda x: F.scaled_dot_product_attention(x, 2 * x, x.sin(), scale=0.3), MATRIX),
    "attention_causal": (lambda x: F.scaled_dot_product_attention(x, 2 * x, x.sin(), is_causal=True), MATRIX),
    "attention_mask": (
        lambda x: F.scaled_dot_product_attention(x, 2 * x, x.sin(), attn_mask=weight(4, 4).to(x.dtype)),
        MATRIX,
    ),
    "attention_bool_mask": (
        lambda x: F.scaled_dot_product_attention(x, 2 * x, x.sin(), attn_mask=weight(4, 4) > -0.85),
        MATRIX,
    ),
    # pools
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), IMAGE),
    "max_pool2d_all": (lambda x: F.max_pool2d(x, (3, 2), (2, 3), (1, 0), (2, 1)), IMAGE),
    "max_pool2d_ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), EVEN),
    "max_pool2d_indices": (lambda x: F.max_pool2d(x, 2, return_indices=True)[0], IMAGE),
    "max_pool1d": (lambda x: F.max_pool1d(x, 3, 2), MATRIX),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), IMAGE),
    "avg_pool2d_padded": (lambda x: F.avg_pool2d(x, 3, 2, 1), IMAGE),
    "avg_pool2d_without_pad": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), IMAGE),
    "avg_pool2d_ceil": (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True), EVEN),
    "avg_pool2d_divisor": (lambda x: F.avg_pool2d(x, 2, divisor_override=3), IMAGE),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2), MATRIX),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), EVEN),
    "adaptive_avg_pool2d_to_one": (lambda x: F.adaptive_avg_pool2d(x, 1), IMAGE),
    "adaptive_avg_pool2d_uneven": (lambda x: F.adaptive_avg_pool2d(x, (3, 5)), IMAGE),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 3), MATRIX),
    "adaptive_max_pool2d": (lambda x: F.adaptive_max_pool2d(x, (3, 2)), EVEN),
    # layout
    "flatten": (lambda x: x.flatten(1), IMAGE),
    "flatten_inner": (lambda x: x.flatten(1, 2), IMAGE),
    "view": (lambda x: x.view(x.shape[0], -1, 3), MATRIX),
    "reshape_transposed": (lambda x: x.transpose(1, 2).reshape(1, -1), MATRIX),
    "unflatten": (lambda x: x.unflatten(2, (2, 3)), MATRIX),
    "permute": (lambda x: x.permute(0, 2, 3, 1), IMAGE),
    "batch_moved": (lambda x: (x.transpose(0, 1) * weight(4, 1, 6).to(x.dtype)).transpose(0, 1), MATRIX),
    "movedim": (lambda x: x.movedim(1, -1), IMAGE),
    "squeeze": (lambda x: x[:, :1].squeeze(1) + x[:, :1].squeeze(2).squeeze()[None, None, :], MATRIX),
    "unsqueeze": (lambda x: x.unsqueeze(1).unsqueeze(-1), MATRIX),
    "expand": (lambda x: x[:, :1].expand(-1, 3, -1), MATRIX),
    "expand_front": (lambda x: x[0].expand(1, 2, 4, 6), MATRIX),
    "repeat": (lambda x: x.repeat(1, 2, 3), MATRIX),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, dim=1), MATRIX),
    "cat": (lambda x: torch.cat([x, weight(1, 2, 6).to(x.dtype), -x], 1), MATRIX),
    "stack": (lambda x: torch.stack([x, -x], -1), MATRIX),
    "split": (lambda x: torch.cat(torch.split(x, 4, 2)[::-1], 2), MATRIX),
    "split_sizes": (lambda x: torch.split(x, [1, 2, 3], 2)[1], MATRIX),
    "chunk": (lambda x: torch.chunk(x, 4, -1)[2], MATRIX),
    "unbind": (lambda x: x.unbind(1)[1] - x.unbind(1)[3], MATRIX),
    "select": (lambda x: x[:, -1], MATRIX),
    "slice": (lambda x: x[:, 1:-1, ::2], MATRIX),
    "slice_negative_start": (lambda x: x[:, -3:], MATRIX),
    "narrow": (lambda x: x.narrow(1, 1, 2), MATRIX),
    "index_select": (lambda x: x.index_select(1, torch.tensor([3, 0, 0])), MATRIX),
    "index": (lambda x: x[:, torch.tensor([[3, 0], [-1, 1]])], MATRIX),
    "index_two_axes": (lambda x: x[:, torch.tensor([3, 0]), torch.tensor([1, -1])], MATRIX),
    "flip": (lambda x: x.flip((1, 2)), MATRIX),
    "roll": (lambda x: x.roll((1, -2), (1, 2)), MATRIX),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), IMAGE),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), EVEN),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=0.5), IMAGE),
    "pad_negative": (lambda x: F.pad(x, (1, -2)), IMAGE),
    "pad_reflect": (lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), IMAGE),
    "pad_replicate": (lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"), IMAGE),
    "pad_circular": (lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"), IMAGE),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2), IMAGE),
    "nearest_size": (lambda x: F.interpolate(x, size=(5, 23)), IMAGE),
    "nearest_exact": (lambda x: F.interpolate(x, size=(5, 23), mode="nearest-exact"), IMAGE),
    "nearest_1d": (lambda x: F.interpolate(x, scale_factor=3), MATRIX),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "bilinear_scale": (lambda x: F.interpolate(x, scale_factor=(1.5, 2.3), mode="bilinear"), IMAGE),
    "bilinear_corners": (lambda x: F.interpolate(x, size=(11, 4), mode="bilinear", align_corners=True), IMAGE),
    # what changes nothing, and what mutates
    "dropout": (lambda x: F.dropout(x, 0.5, training=False), VECTOR),
    "identities": (lambda x: x.clone().detach().contiguous().to(torch.float64).type_as(x) * 1.5, VECTOR),
    "no_grad": (torch.no_grad()(lambda x: x * 2), VECTOR),
    "in_place": (lambda x: x.clone().add_(1).mul_(x).clamp_(-1, 1), VECTOR),
    "assignment": (lambda x: _assigned(x), MATRIX),
    "zeros_like": (lambda x: torch.cat([torch.zeros_like(x), x + torch.ones_like(x)], 1), MATRIX),
    "new_full": (lambda x: x * x.new_full((6,), 2.5), VECTOR),
    "creations": (lambda x: x * torch.linspace(0, 1, 6, dtype=x.dtype) + torch.eye(6, dtype=x.dtype)[2], VECTOR),
}


def _assigned(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, 0] = 0
    y[:, 2, 1:3] = x[:, 0, :2]
    return y + x


@pytest.mark.parametrize("case", list(FUNCTIONS))
def test_functions_give_what_torch_gives(case: str) -> None:
    function, shape = FUNCTIONS[case]
    graph = check(function, points(*shape), torch.float64)
    compare(graph, Apply(function), points(*shape), torch.float32)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 5), VECTOR),
    "linear_stacked": (lambda: nn.Linear(6, 5, bias=False), MATRIX),
    "bilinear_of_two_layers": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), VECTOR),
    "conv1d": (lambda: nn.Conv1d(4, 5, 3, stride=2, padding=1), MATRIX),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=(1, 2), padding=(0, 1), dilation=(2, 1), groups=2), IMAGE),
    "conv2d_same": (lambda: nn.Conv2d(4, 5, (2, 3), padding="same", bias=False), IMAGE),
    "conv2d_valid": (lambda: nn.Conv2d(4, 5, 2, padding="valid"), IMAGE),
    "conv2d_reflect": (lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="reflect"), IMAGE),
    "conv2d_circular": (lambda: nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"), IMAGE),
    "conv_transpose1d": (lambda: nn.ConvTranspose1d(4, 5, 3, stride=2), MATRIX),
    "conv_transpose2d": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=(2, 3), padding=1, output_padding=(1, 0), groups=2, dilation=(1, 2)),
        IMAGE,
    ),
    "prelu": (lambda: nn.PReLU(), IMAGE),
    "prelu_channels": (lambda: nn.PReLU(4), IMAGE),
    "prelu_channels_vector": (lambda: nn.PReLU(6), VECTOR),
    "batch_norm1d": (lambda: nn.BatchNorm1d(6), VECTOR),
    "batch_norm1d_sequence": (lambda: nn.BatchNorm1d(4), MATRIX),
    "batch_norm2d": (lambda: nn.BatchNorm2d(4), IMAGE),
    "batch_norm2d_plain": (lambda: nn.BatchNorm2d(4, affine=False), IMAGE),
    "conv_batch_norm": (lambda: nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU()), IMAGE),
    "transposed_conv_batch_norm": (lambda: nn.Sequential(nn.ConvTranspose2d(4, 5, 3), nn.BatchNorm2d(5)), IMAGE),
    "layer_norm": (lambda: nn.LayerNorm(6), MATRIX),
    "layer_norm_two_axes": (lambda: nn.LayerNorm((4, 6), bias=False), MATRIX),
    "layer_norm_plain": (lambda: nn.LayerNorm(6, elementwise_affine=False), MATRIX),
    "group_norm": (lambda: nn.GroupNorm(2, 4), IMAGE),
    "instance_norm": (lambda: nn.InstanceNorm2d(4, affine=True), IMAGE),
    "instance_norm_running": (lambda: nn.InstanceNorm2d(4, track_running_stats=True), IMAGE),
    "rms_norm": (lambda: nn.RMSNorm(6, eps=1e-5), MATRIX),
    "softmax": (lambda: nn.Softmax(1), MATRIX),
    "dropout": (lambda: nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.Identity()), IMAGE),
    "upsample": (lambda: nn.Upsample(scale_factor=2), IMAGE),
    "padding": (lambda: nn.Sequential(nn.ZeroPad2d(1), nn.ReflectionPad2d(1), nn.ReplicationPad2d(1)), IMAGE),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), VECTOR),
    "multihead_attention": (lambda: SelfAttention(), MATRIX),
    "transformer_layer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), MATRIX),
    "transformer_layer_first": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=True, activation="gelu"),
        MATRIX,
    ),
    "buffers": (lambda: Buffers(), VECTOR),
    "positions": (lambda: Positions(), MATRIX),
    "lstm": (lambda: Recurrent(), MATRIX),
}


class SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 3, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table(torch.arange(x.shape[1]) * 2)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(6, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cell(x)[0][:, -1]


class Buffers(nn.Module):
    """Buffers of each kind: floats, integers that index, bools that choose, and one that the state does not hold."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(6))
        self.register_buffer("order", torch.tensor([5, 1, 0, 2, 2, 3]))
        self.register_buffer("mask", MASK)
        self.register_buffer("shift", torch.ones(6), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(self.mask, x * self.scale, x[:, self.order] + self.shift)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("case", list(LAYERS))
def test_layers_give_what_torch_gives(case: str, dtype: torch.dtype) -> None:
    build, shape = LAYERS[case]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths", UserWarning)
        warnings.filterwarnings("ignore", ".*_flat_weights.* were assigned during export", UserWarning)
        check(build().to(dtype), points(*shape), dtype)


# -- the form of graphs -----------------------------------------------------------------------------------------------


def test_layers_stay_whole() -> None:
    module = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(48, 8), nn.GELU(), nn.Dropout(), nn.Linear(8, 3), nn.Softmax(-1),
    )  # fmt: skip
    graph = check(module.double(), points(*EVEN), torch.float64)
    operators = ["conv2d", "relu", "max_pool2d", "reshape", "linear", "gelu", "linear", "softmax"]
    assert [node.op for node in graph.nodes] == operators


def test_without_a_batch_axis_all_of_the_input_is_one_sample() -> None:
    x = points(3, 6)
    graph = load_module(Apply(lambda x: x.softmax(0) @ x.T), (x,), batch_axis=False)
    assert graph.input_type.shape == (3, 6)
    expected = (x.softmax(0) @ x.T).numpy()
    np.testing.assert_allclose(evaluate_graph(graph, x.numpy()[None])[0], expected, rtol=0, atol=1e-12)


def test_name() -> None:
    assert load_module(nn.ReLU(), (points(2, 3),)).name == "ReLU"
    assert load_module(nn.ReLU(), (points(2, 3),), name="rectifier").name == "rectifier"


# -- live weights -----------------------------------------------------------------------------------------------------


def test_a_training_step_is_seen_without_loading_again() -> None:
    module = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Flatten(), nn.Linear(175, 3)).double()
    settle(module, torch.float64)
    x = points(*IMAGE)
    graph = load_module(module, (x,))
    assert [node.op for node in graph.nodes] == ["conv2d", "relu", "reshape", "linear"]
    before = evaluate_graph(graph, x.numpy())

    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(x).square().sum().backward()  # the forward pass moves the running statistics too
    optimizer.step()
    module.eval()

    after = evaluate_graph(graph, x.numpy())
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, module(x).detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:.*_flat_weights.* were assigned during export:UserWarning")
def test_weights_that_a_module_holds_twice_are_followed() -> None:
    module = Recurrent().double().eval()
    x = points(*MATRIX)
    graph = load_module(module, (x,))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    np.testing.assert_allclose(evaluate_graph(graph, x.numpy()), module(x).detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("what", ["1.running_mean", "1.running_var", "1.weight", "1.bias", "0.weight", "0.bias"])
def test_each_tensor_of_a_folded_batch_norm_is_followed(what: str) -> None:
    module = settle(nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5)), torch.float64).eval()
    x = points(*IMAGE)
    graph = load_module(module, (x,))
    with torch.no_grad():
        module.state_dict(keep_vars=True)[what].add_(0.25)
    expected = module(x).detach().numpy()
    np.testing.assert_allclose(evaluate_graph(graph, x.numpy()), expected, rtol=1e-12, atol=1e-12)


def test_weights_are_held_by_reference() -> None:
    module = nn.Linear(6, 5)
    held = [c.data for c in load_module(module, (torch.zeros(1, 6),)).constants.values()]
    assert {id(tensor) for tensor in held} == {id(module.weight), id(module.bias)}


def test_shared_weights_are_one_constant() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(6, 6, bias=False)
            self.second = nn.Linear(6, 6, bias=False)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x).relu())

    module = Tied().double()
    x = points(*VECTOR)
    graph = load_module(module, (x,))
    with torch.no_grad():
        module.first.weight.mul_(2)
    np.testing.assert_allclose(evaluate_graph(graph, x.numpy()), module(x).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_training_flags_are_restored() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout())
    module.train()
    module[1].eval()
    load_module(module, (torch.zeros(2, 6),))
    assert [part.training for part in module.modules()] == [True, True, False, True]
    with pytest.raises(LoadError):
        load_module(module, (torch.zeros(2, 7),))
    assert [part.training for part in module.modules()] == [True, True, False, True]


# -- exported programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_programs(dynamic: bool) -> None:
    module = settle(nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5), nn.ReLU()), torch.float64).eval()
    x = points(*IMAGE)
    if dynamic:
        program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    else:
        program = torch.export.export(module, (x[:1],))
    graph = load_module(program)
    with torch.no_grad():
        module[0].weight.mul_(2)
        module[0].bias.mul_(3)
        module[1].running_mean.add_(1)
    np.testing.assert_allclose(evaluate_graph(graph, x.numpy()), module(x).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_exported_for_a_batch() -> None:
    program = torch.export.export(nn.Linear(6, 5), (torch.zeros(3, 6),))
    with pytest.raises(LoadError, match="batch of 1"):
        load_module(program)
    assert load_module(program, batch_axis=False).input_type.shape == (3, 6)


def test_exported_in_training_mode() -> None:
    program = torch.export.export(nn.BatchNorm1d(6).train(), (torch.zeros(3, 6),))
    with pytest.raises(BoundFlowError, match="eval mode"):
        load_module(program, batch_axis=False)


# -- what is refused --------------------------------------------------------------------------------------------------


def refused(error: type[BoundFlowError], module: nn.Module | Callable[..., Any], *inputs: Any, **options: Any) -> str:
    module = module if isinstance(module, nn.Module) else Apply(module)
    with pytest.raises(error) as caught:
        load_module(module, inputs if inputs else None, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_no_example_inputs() -> None:
    assert "example_inputs=(x,)" in refused(LoadError, nn.Linear(6, 5))


def test_several_inputs() -> None:
    assert "2" in refused(LoadError, nn.Bilinear(6, 6, 2), torch.zeros(1, 6), torch.zeros(1, 6))


@pytest.mark.parametrize("x", [torch.zeros(0, 6), torch.zeros(()), np.zeros((1, 6)), "x"])
def test_no_sample(x: Any) -> None:
    assert "example" in refused(LoadError, nn.Linear(6, 5), x)


def test_wrong_input_shape() -> None:
    assert "Linear" in refused(LoadError, nn.Linear(6, 5), torch.zeros(1, 7))


def test_several_outputs() -> None:
    assert "2 outputs" in refused(LoadError, lambda x: (x + 1, x * 2), torch.zeros(1, 6))


def test_constant_output() -> None:
    assert "does not depend" in refused(LoadError, lambda x: torch.ones(1, 3), torch.zeros(1, 6))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64, torch.int64])
def test_element_types_of_inputs(dtype: torch.dtype) -> None:
    assert str(dtype) in refused(LoadError, nn.ReLU(), torch.zeros(1, 6, dtype=dtype))


@pytest.mark.parametrize(
    "function",
    [lambda x: x.half().relu().float(), lambda x: torch.complex(x, x).abs(), lambda x: x.bfloat16() + 1],
)
def test_element_types_on_the_way(function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    assert "element type" in refused(LoadError, function, torch.zeros(1, 6))


def test_half_weights() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6, dtype=torch.float16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    message = refused(LoadError, Half(), torch.zeros(1, 6))
    assert "'scale'" in message
    assert "float16" in message


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    module = nn.Sequential(nn.Linear(6, 5))
    with torch.no_grad():
        module[0].weight[1, 2] = value
    message = refused(LoadError, module, torch.zeros(1, 6))
    assert "'0.weight'" in message
    assert "not finite" in message


def test_control_flow_that_depends_on_values(capfd: pytest.CaptureFixture[str]) -> None:
    message = refused(LoadError, lambda x: x if x.sum() > 0 else -x, torch.zeros(1, 6))
    assert "control flow" in message
    assert capfd.readouterr().err == ""


def test_condition_that_depends_on_the_input() -> None:
    message = refused(UnsupportedOpError, lambda x: torch.where(x > 0, x, 0.5), torch.zeros(1, 6))
    assert "aten.gt" in message


def test_shapes_that_depend_on_values() -> None:
    assert "shape" in refused(LoadError, lambda x: x[..., MASK], torch.zeros(1, 6))


def test_active_dropout() -> None:
    assert "dropout" in refused(UnsupportedOpError, lambda x: F.dropout(x, 0.5, training=True), torch.zeros(1, 6))


def test_random_numbers() -> None:
    assert "random" in refused(UnsupportedOpError, lambda x: x + torch.randn(6), torch.zeros(1, 6))


def test_indices_of_a_maximum() -> None:
    message = refused(UnsupportedOpError, lambda x: x.max(1).values + x.max(1).indices, torch.zeros(1, 6))
    assert "operand" in message


def test_convolution_with_weights_from_the_input() -> None:
    message = refused(UnsupportedOpError, lambda x: F.conv2d(x, x), torch.zeros(1, 2, 4, 4))
    assert "aten.conv2d" in message


def test_masks_that_exclude_all() -> None:
    mask = torch.zeros(4, 4, dtype=torch.bool)
    message = refused(
        UnsupportedOpError, lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=mask), torch.zeros(1, 4, 6)
    )
    assert "mask" in message


def test_unknown_operator_names_node_module_and_remedy() -> None:
    class Inner(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.i1(x)

    module = nn.Sequential(nn.Linear(6, 6), nn.Sequential(nn.ReLU(), Inner()))
    message = refused(UnsupportedOpError, module, torch.zeros(1, 6))
    for part in ("aten.special_i1", "special_i1 in 1.1 (Inner)", "torch.export", "converters={'aten.special_i1'"):
        assert part in message


def test_converters_of_ones_own() -> None:
    def i1_of_small(call: Any, x: Any) -> Any:
        return call.g.mul(x, call.g.scalar(0.5))

    x = points(*VECTOR) * 1e-7
    graph = load_module(Apply(torch.special.i1), (x,), converters={"aten.special_i1": i1_of_small})
    np.testing.assert_allclose(evaluate_graph(graph, x.numpy()), torch.special.i1(x).numpy(), rtol=1e-12)


def test_a_converter_of_a_wrong_shape_is_told() -> None:
    with pytest.raises(UnsupportedOpError, match="bug of the converter"):
        load_module(nn.Flatten(), (torch.zeros(1, 2, 3),), converters={"aten.flatten": lambda call, x, *axes: x})


def test_not_a_module() -> None:
    with pytest.raises(LoadError, match="neither"):
        load_module(lambda x: x, (torch.zeros(1, 2),))  # type: ignore[arg-type]
