"""The encoder's dense layers in int8: what their weights, and what enters them, are rounded to.

Scales are arrays by name, as a calibration finds them and a run's folder keeps them; of each place that `scales_place`
names, where P is its name:

- `P`: (2,) scale and zero point of the uint8 values that inputs are rounded to.
- `P.divisors`: (I,) float32, where a few inputs are far larger than all others: inputs are divided by these before they
  are rounded, and weights multiplied.
- `P.copies`: (I,) whole numbers as float32, where a few neurons of the feed-forward part are: how many copies of each
  stand beside it. What uint8 reaches is subtracted from each further copy, so that a copy goes on where the one before
  it ends. The activation must be near the identity above 0 and near 0 below, as GELU and ReLU are.

Legend: I inputs, O outputs of layers side by side, K copies.
Source: Jacob et al. 2018, arXiv:1712.05877 (the scheme); Xiao et al. 2023, arXiv:2211.10438 (divisors); after Zhao et
al. 2019, arXiv:1901.09504, who split channels by halving weights (copies).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

INT8_DIVISORS, INT8_COPIES = ".divisors", ".copies"  # of what is known of a place, after its name
STEPS = 255  # of uint8
# A weight's largest value, by its bits. With 7, the sum of two products with uint8 is below 2^15: x86 without VNNI adds
# them in 16 bits.
INT8_WEIGHTS: Mapping[int, int] = {8: 127, 7: 64}


def extreme_weights(largest: int) -> np.ndarray:
    """(32, 64) int8: outputs whose weights are all the largest there are, of either sign. With inputs of 255, what a
    runtime sums in too few bits is cut off."""
    return np.where(np.arange(32)[:, None] % 2, -largest, largest).repeat(64, 1).astype(np.int8)


@dataclass(frozen=True)
class Int8Inputs:
    """What enters the layers of one place."""

    scale: float
    zero: int
    divisors: np.ndarray | None  # (I,)

    @property
    def top(self) -> float:
        """The largest value that uint8 reaches."""
        return self.scale * (STEPS - self.zero)


@dataclass(frozen=True)
class Int8Layer:
    """Layers of the same input side by side."""

    values: np.ndarray  # (O, I) int8, from -`largest` to `largest`; with copies of neurons, more of either
    scales: np.ndarray  # (O,) float32
    bias: np.ndarray  # (O,) float32


def scales_place(layer: str) -> str:
    """Under which name the scale of a dense layer's inputs is known: query, key and value have the same."""
    return layer.rpartition(".")[0] if ".self." in layer else layer


def _next(layer: str) -> str:
    """The dense layer that takes what an activation makes of this one's outputs; "" where none does."""
    first, second = ".intermediate.dense", ".output.dense"
    return layer.removesuffix(first) + second if layer.endswith(first) else ""


def int8_inputs(scales: Mapping[str, np.ndarray], layer: str) -> Int8Inputs:
    place = scales_place(layer)
    scale, zero = scales[place]
    return Int8Inputs(float(scale), int(zero), scales.get(place + INT8_DIVISORS))


def int8_layer(
    weights: Mapping[str, np.ndarray],
    names: tuple[str, ...],
    scales: Mapping[str, np.ndarray],
    largest: int = INT8_WEIGHTS[8],
) -> Int8Layer:
    """`weights`: float32, under Hugging Face's names; `scales`: {} where inputs are rounded as they come; `largest`:
    what a weight is rounded to at the most, one of `INT8_WEIGHTS`."""
    weight = np.concatenate([weights[f"{name}.weight"] for name in names])
    bias = np.concatenate([weights[f"{name}.bias"] for name in names])
    place = scales_place(names[0])
    if place + INT8_DIVISORS in scales:
        weight = weight * scales[place + INT8_DIVISORS]
    if place + INT8_COPIES in scales:
        weight = np.concatenate([weight, weight[:, copied_neurons(scales[place + INT8_COPIES])[0]]], axis=1)
    after = _next(names[0])
    if after + INT8_COPIES in scales:
        neurons, turns = copied_neurons(scales[after + INT8_COPIES])
        weight = np.concatenate([weight, weight[neurons]])
        bias = np.concatenate([bias, bias[neurons] - int8_inputs(scales, after).top * turns])
    values, steps = rounded(weight, largest)
    return Int8Layer(values, steps, bias.astype(np.float32))


def copied_neurons(copies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(I,) how many of each neuron -> (K,) which neuron each copy is of, (K,) its number among that one's, from 1."""
    counts = copies.astype(np.int64)
    neurons = np.repeat(np.arange(len(counts)), counts)
    firsts = np.repeat(np.cumsum(counts) - counts, counts)
    return neurons, (np.arange(len(neurons)) - firsts + 1).astype(np.float32)


def rounded(weight: np.ndarray, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """(O, I) float32 -> (O, I) int8 from -`largest` to `largest`, (O,) float32 scales."""
    scales = np.maximum(np.abs(weight).max(1), np.finfo(np.float32).tiny) / np.float32(largest)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)


def int8_layers_at(weights: Iterable[str], place: str) -> tuple[str, ...]:
    """The names of the dense layers that take what enters at a place, of parameters with these names."""
    return tuple(
        name.removesuffix(".weight") for name in weights
        if name.endswith(".weight") and scales_place(name.removesuffix(".weight")) == place
    )  # fmt: skip
