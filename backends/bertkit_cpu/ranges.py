"""Scales and zero points of what enters dense layers, from values that were seen there.

Legend: N slots, I inputs, V values.
Source: Migacz 2017, "8-bit inference with TensorRT" (calibration, percentiles); Choukroun et al. 2019, arXiv:1902.06822
(least squares).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import Arrays, Batch, Int8Calibration, scales_place
from bertkit_cpu.dense import InferenceWeights, Product
from bertkit_cpu.int8 import ENCODER
from bertkit_cpu.int8_static import StaticInt8Weights

KEPT = 16_384  # values of a batch at each place; the extremes are those of all
OUTSIDE = 1e-4  # share of the values that a percentile leaves outside, on both sides together
SHARES = np.linspace(0.1, 1.0, 46)  # of the whole range, that least squares tries
Bounds = tuple[float, float]


@dataclass
class ValuesSeen:
    """What entered at one place."""

    low: float = 0.0
    high: float = 0.0
    values: list[np.ndarray] = field(default_factory=list)  # some of them, float32


class Observer(InferenceWeights):
    """bf16 forward passes that remember what enters the encoder's dense layers."""

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__(masters, dtype)
        self.seen: dict[str, ValuesSeen] = {}

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        product = super().bind(names, activation)
        if not names[0].startswith(ENCODER):
            return product
        seen = self.seen.setdefault(scales_place(names[0]), ValuesSeen())

        def bound(x: Tensor) -> Tensor:
            low, high = torch.aminmax(x)
            seen.low, seen.high = min(seen.low, float(low)), max(seen.high, float(high))
            flat = x.reshape(-1)
            seen.values.append(flat[:: -(-len(flat) // KEPT)].float().numpy())
            return product(x)

        return bound


def calibrate(
    masters: Mapping[str, Tensor], run: Callable[[InferenceWeights, Batch], Arrays], batches: Sequence[Batch]
) -> Int8Calibration:
    """By the method whose logits differ least from bf16's on the last quarter of the batches, which it has not seen."""
    observer, kept = Observer(masters, torch.bfloat16), max(1, len(batches) // 4)
    for batch in batches[:-kept] or batches:
        run(observer, batch)
    plain = InferenceWeights(masters, torch.bfloat16)
    wanted = [run(plain, batch) for batch in batches[-kept:]]
    weights, tried = StaticInt8Weights(masters, torch.bfloat16, {}), {}
    for method in METHODS:
        found = scales(observer.seen, method)
        weights.use(found)
        apart = difference([run(weights, batch) for batch in batches[-kept:]], wanted)
        tried[method] = Int8Calibration(found, method, apart)
    return min(tried.values(), key=lambda one: one.difference)


def difference(found: Sequence[Arrays], wanted: Sequence[Arrays]) -> float:
    """Root mean square of all logits' differences, as a share of that of the logits wanted."""
    pairs = [(f[name], w[name]) for f, w in zip(found, wanted, strict=True) for name in w]
    apart = sum(float(np.square(f - w, dtype=np.float64).sum()) for f, w in pairs)
    return float(np.sqrt(apart / max(1e-30, sum(float(np.square(w, dtype=np.float64).sum()) for _, w in pairs))))


def extremes(seen: ValuesSeen) -> Bounds:
    return seen.low, seen.high


def percentile(seen: ValuesSeen) -> Bounds:
    low, high = np.quantile(np.concatenate(seen.values), [OUTSIDE / 2, 1 - OUTSIDE / 2])
    return min(0.0, float(low)), max(0.0, float(high))


def least_squares(seen: ValuesSeen) -> Bounds:
    """The share of the whole range with the least squared error, values outside included."""
    values = np.concatenate(seen.values)
    values = np.append(values, [seen.low, seen.high]).astype(np.float32)

    def error(share: float) -> float:
        scale, zero = scale_and_zero((share * seen.low, share * seen.high))
        steps = np.clip(np.rint(values / scale) + zero, 0, 255) - zero
        return float(np.square(steps * scale - values).mean())

    share = min(SHARES, key=error)
    return share * seen.low, share * seen.high


METHODS: Mapping[str, Callable[[ValuesSeen], Bounds]] = {
    "minimum and maximum": extremes,
    "percentile": percentile,
    "least squares": least_squares,
}


def scale_and_zero(bounds: Bounds) -> tuple[float, int]:
    """Of uint8 values that reach from `low`, at most 0, to `high`, at least 0; 0 is one of them exactly."""
    low, high = bounds
    scale = max(high - low, 1e-6) / 255
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def scales(seen: Mapping[str, ValuesSeen], method: str) -> dict[str, np.ndarray]:
    """Place -> (2,) float32: scale and zero point."""
    return {name: np.array(scale_and_zero(METHODS[method](one)), np.float32) for name, one in seen.items()}
