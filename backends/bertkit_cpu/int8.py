"""Inference with the encoder's dense layers in int8, by oneDNN's quantised products.

Weights have a scale for each output, fixed when the model is loaded; the inputs of a layer have one for each token,
found as they come. So a sequence's answer does not depend on the others of its batch. Attention, LayerNorm, embeddings
and heads stay in bf16, or in float32 where the CPU has no bf16.

Without VNNI, x86 adds two products of a uint8 and an int8 in 16 bits, and what does not fit is cut off. Weights then
have 7 bits, with which every sum fits: twice as coarse, and right.

Legend: N slots, I inputs, O outputs of all joined layers.
Source: Zafrir et al. 2019, arXiv:1910.06188 (symmetric 8-bit BERT), with dynamic inputs.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import INT8_WEIGHTS, Int8Layer, extreme_weights, int8_layer
from bertkit_cpu.dense import InferenceWeights, Product
from bertkit_torch.weights import activate

ENCODER = "bert.encoder."
LARGEST = 126.0  # not 127: the reciprocal of a token's largest value is rounded to bf16, and -128 must not be reached
ZERO = 128  # oneDNN takes unsigned inputs: the int8 values, shifted


@dataclass(frozen=True)
class Quantised:
    blocks: Tensor  # (O, I) int8 in oneDNN's order
    scales: Tensor  # (O,) float32
    zeros: Tensor  # (O,) int64
    bias: Tensor  # (O,)


class Int8Weights(InferenceWeights):
    """For forward passes without a gradient."""

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype, largest: int) -> None:
        super().__init__(masters, dtype)
        self.largest = largest

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        if not names[0].startswith(ENCODER):
            return super().bind(names, activation)
        weight = quantise(layer_of(self.masters, names, {}, self.largest), self.dtype)
        if not activation:
            return lambda x: product(x, weight)
        return lambda x: activate(product(x, weight), activation)


def host_weights(masters: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The layers' float32 weights and biases, as they stand in memory."""
    return {key: masters[key].detach().numpy() for name in names for key in (f"{name}.weight", f"{name}.bias")}


def layer_of(
    masters: Mapping[str, Tensor], names: tuple[str, ...], scales: Mapping[str, np.ndarray], largest: int
) -> Int8Layer:
    return int8_layer(host_weights(masters, names), names, scales, largest)


def quantise(layer: Int8Layer, bias: torch.dtype) -> Quantised:
    blocks = torch.ops.onednn.qlinear_prepack(torch.from_numpy(layer.values), None)
    steps = torch.from_numpy(layer.scales)
    zeros = torch.zeros(len(steps), dtype=torch.int64)
    return Quantised(blocks, steps, zeros, torch.from_numpy(layer.bias).to(bias))


def product(x: Tensor, weight: Quantised) -> Tensor:
    """(N, I) bf16 or float32 -> (N, O) of the same."""
    largest = torch.linalg.vector_norm(x, float("inf"), 1, keepdim=True)
    inverse = LARGEST / largest.clamp_min_(1e-20)  # (N, 1)
    rows = (x * inverse).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)
    found = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, ZERO, weight.blocks, weight.scales, weight.zeros, None, 1.0, 0, x.dtype, "none", [], ""
    )  # fmt: skip
    answer: Tensor = torch.addcmul(weight.bias, found, inverse.reciprocal_())
    return answer


@functools.cache
def largest_weight() -> int | None:
    """The first of `INT8_WEIGHTS` whose products oneDNN sums exactly here; None where torch has no such products.

    The operators have no public name. Which instructions oneDNN takes is for its own settings to say, too: so it is
    tried, with sums that are too large for 16 bits.
    """
    return next((largest for largest in INT8_WEIGHTS.values() if _is_exact(largest)), None)


def _is_exact(largest: int) -> bool:
    rows = torch.full((16, 64), 255, dtype=torch.uint8)
    layer = Int8Layer(extreme_weights(largest), np.ones(32, np.float32), np.zeros(32, np.float32))
    try:
        weight = quantise(layer, torch.float32)
        found = torch.ops.onednn.qlinear_pointwise(
            rows, 1.0, 0, weight.blocks, weight.scales, weight.zeros, None, 1.0, 0, torch.float32, "none", [], ""
        )
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return torch.equal(found, rows.float() @ torch.from_numpy(layer.values).float().t())


def int8_works(dtype: torch.dtype) -> bool:
    """Whether the products with inputs as they come are what they should be."""
    largest = largest_weight()
    if largest is None:
        return False
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5] * 16, [0.0] * 64], dtype=dtype)
    masters = {"a.weight": torch.linspace(-1, 1, 32 * 64).view(32, 64), "a.bias": torch.ones(32)}
    try:
        found = product(x, quantise(layer_of(masters, ("a",), {}, largest), dtype))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    wanted = functional.linear(x.float(), masters["a.weight"], masters["a.bias"])
    return bool((found.float() - wanted).abs().max() < 0.03 * wanted.abs().max())
