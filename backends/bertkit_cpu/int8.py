"""Inference with the encoder's dense layers in int8, by oneDNN's quantised products.

Weights have a scale for each output, fixed when the model is loaded; the inputs of a layer have one for each token,
found as they come. So a sequence's answer does not depend on the others of its batch. Attention, LayerNorm, embeddings
and heads stay in bf16.

Legend: N slots, I inputs, O outputs of all joined layers.
Source: Zafrir et al. 2019, arXiv:1910.06188 (symmetric 8-bit BERT), with dynamic inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import Int8Layer, int8_layer
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

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        if not names[0].startswith(ENCODER):
            return super().bind(names, activation)
        weight = quantise(layer_of(self.masters, names, {}), torch.bfloat16)
        if not activation:
            return lambda x: product(x, weight)
        return lambda x: activate(product(x, weight), activation)


def host_weights(masters: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The layers' float32 weights and biases, as they stand in memory."""
    return {key: masters[key].detach().numpy() for name in names for key in (f"{name}.weight", f"{name}.bias")}


def layer_of(masters: Mapping[str, Tensor], names: tuple[str, ...], scales: Mapping[str, np.ndarray]) -> Int8Layer:
    return int8_layer(host_weights(masters, names), names, scales)


def quantise(layer: Int8Layer, bias: torch.dtype) -> Quantised:
    blocks = torch.ops.onednn.qlinear_prepack(torch.from_numpy(layer.values), None)
    steps = torch.from_numpy(layer.scales)
    zeros = torch.zeros(len(steps), dtype=torch.int64)
    return Quantised(blocks, steps, zeros, torch.from_numpy(layer.bias).to(bias))


def product(x: Tensor, weight: Quantised) -> Tensor:
    """(N, I) bf16 -> (N, O) bf16."""
    largest = torch.linalg.vector_norm(x, float("inf"), 1, keepdim=True)
    inverse = LARGEST / largest.clamp_min_(1e-20)  # (N, 1) bf16
    rows = (x * inverse).round_().to(torch.int8).view(torch.uint8).bitwise_xor_(ZERO)
    found = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, ZERO, weight.blocks, weight.scales, weight.zeros, None, 1.0, 0, torch.bfloat16, "none", [], ""
    )  # fmt: skip
    answer: Tensor = torch.addcmul(weight.bias, found, inverse.reciprocal_())
    return answer


def int8_works() -> bool:
    """Whether torch has the operators used above, which have no public name, and they compute what they should."""
    x = torch.tensor([[1.0, -2.0, 3.0, 0.5] * 16, [0.0] * 64], dtype=torch.bfloat16)
    masters = {"a.weight": torch.linspace(-1, 1, 32 * 64).view(32, 64), "a.bias": torch.ones(32)}
    try:
        found = product(x, quantise(layer_of(masters, ("a",), {}), torch.bfloat16))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    wanted = functional.linear(x.float(), masters["a.weight"], masters["a.bias"])
    return bool((found.float() - wanted).abs().max() < 0.03 * wanted.abs().max())
