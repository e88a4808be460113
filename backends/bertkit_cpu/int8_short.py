"""Int8 products for one short sequence: FBGEMM's, which begin in half the time of oneDNN's and quantise what they take.

With few tokens a product's time is that of starting it and of reading its weights. The scales are those found
beforehand, the arithmetic is that of `int8_static.py`: uint8 times int8, summed in int32.

Legend: N slots, I inputs, O outputs of all joined layers.
Source: Khudia et al. 2021, arXiv:2101.05615 (FBGEMM).
"""

from __future__ import annotations

import functools
import warnings

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import Int8Inputs, Int8Layer, extreme_weights
from bertkit_torch.weights import activate

Packed = torch.ScriptObject  # an int8 weight (O, I) with its bias (O,), in FBGEMM's order


def pack(layer: Int8Layer) -> Packed:
    steps = torch.from_numpy(layer.scales)
    before = torch.backends.quantized.engine
    with warnings.catch_warnings():  # told once a process, that the quantised tensors of torch will go
        warnings.simplefilter("ignore")
        zeros = torch.zeros(len(steps), dtype=torch.int64)
        weight = torch._make_per_channel_quantized_tensor(torch.from_numpy(layer.values), steps.double(), zeros, 0)
        torch.backends.quantized.engine = "fbgemm"  # says, for the whole process, whose order a weight is brought into
        try:
            packed: Packed = torch.ops.quantized.linear_prepack(weight, torch.from_numpy(layer.bias))
        finally:
            torch.backends.quantized.engine = before
    return packed


class ShortProduct(nn.Module):
    """(N, I) float32 -> (N, O) float32, with the activation."""

    def __init__(self, packed: Packed, inputs: Int8Inputs, activation: str) -> None:
        super().__init__()
        self.packed, self.pair, self.activation = packed, (inputs.scale, inputs.zero), activation
        self.factors = None if inputs.divisors is None else torch.from_numpy(inputs.divisors).reciprocal()

    def forward(self, x: Tensor) -> Tensor:
        found = short_product(x if self.factors is None else x * self.factors, *self.pair, self.packed)
        return activate(found, self.activation) if self.activation else found


def short_product(x: Tensor, scale: float, zero: int, packed: Packed) -> Tensor:
    """(N, I) float32, which is quantised by the scale and zero point -> (N, O) float32."""
    found: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32.default(x, scale, zero, packed)
    return found


def onednn_from(hidden: int) -> int:
    """Slots of one sequence from which oneDNN's products are faster where they use AMX: 29 of 384, 8 of 768."""
    return -(-(4 << 20) // hidden**2)


@functools.cache
def short_works(largest: int) -> bool:
    """Whether torch has these operators, and they are exact with weights of up to `largest`."""
    values = extreme_weights(largest)
    x = torch.tensor([[255.0, 0.0] * 32, [255.0] * 64])
    try:
        found = short_product(x, 1.0, 0, pack(Int8Layer(values, np.ones(32, np.float32), np.zeros(32, np.float32))))
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return torch.equal(found, x @ torch.from_numpy(values).float().t())
