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

from bertkit.plugin import Arrays, Batch, Int8Calibration, int8_layers_at, scales_place
from bertkit_cpu.dense import InferenceWeights, Product
from bertkit_cpu.int8 import ENCODER, host_weights
from bertkit_cpu.int8_static import StaticInt8Weights
from bertkit_cpu.outliers import Apart, Seen, keep_apart, scale_and_zero

ROWS = 128  # of a batch at each place; the extremes are those of all
OUTSIDE = 1e-4  # share of the values that a percentile leaves outside, on both sides together
SHARES = np.linspace(0.1, 1.0, 46)  # of the whole range, that least squares tries
MOST_VALUES = 100_000  # of a place, that least squares tries them on
Bounds = tuple[float, float]


@dataclass
class _Entered:
    """What has entered at one place so far."""

    lows: list[Tensor] = field(default_factory=list)  # (I,) of each batch
    highs: list[Tensor] = field(default_factory=list)
    rows: list[Tensor] = field(default_factory=list)  # (…, I) float32

    def seen(self) -> Seen:
        return Seen(torch.stack(self.lows).amin(0), torch.stack(self.highs).amax(0), torch.cat(self.rows))


class Observer(InferenceWeights):
    """Forward passes in the dtype of the rest that remember what enters the encoder's dense layers."""

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__(masters, dtype)
        self.entered: dict[str, _Entered] = {}
        self.activation = ""  # of the feed-forward part

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        product = super().bind(names, activation)
        if not names[0].startswith(ENCODER):
            return product
        entered = self.entered.setdefault(scales_place(names[0]), _Entered())
        self.activation = activation or self.activation

        def bound(x: Tensor) -> Tensor:
            rows = x.reshape(-1, x.shape[-1])
            low, high = torch.aminmax(rows, dim=0)
            entered.lows.append(low.float())
            entered.highs.append(high.float())
            entered.rows.append(rows[:: -(-len(rows) // ROWS)].float())
            return product(x)

        return bound


def calibrate(
    masters: Mapping[str, Tensor],
    dtype: torch.dtype,
    largest: int,
    run: Callable[[InferenceWeights, Batch], Arrays],
    batches: Sequence[Batch],
) -> Int8Calibration:
    """By the method whose logits differ least from those in `dtype` on the last quarter of the batches, which it has
    not seen. `largest`: of a weight in int8."""
    observer, kept = Observer(masters, dtype), max(1, len(batches) // 4)
    for batch in batches[:-kept] or batches:
        run(observer, batch)
    apart = without_outliers(observer, largest)
    plain = InferenceWeights(masters, dtype)
    wanted = [run(plain, batch) for batch in batches[-kept:]]
    weights, tried = StaticInt8Weights(masters, dtype, {}, largest), {}
    for method in METHODS:
        found = scales(apart, method)
        weights.use(found)
        differs = difference([run(weights, batch) for batch in batches[-kept:]], wanted)
        tried[method] = Int8Calibration(found, method, differs)
    return min(tried.values(), key=lambda one: one.difference)


def without_outliers(observer: Observer, largest: int) -> dict[str, Apart]:
    """By place."""
    return {
        place: keep_apart(
            place,
            entered.seen(),
            host_weights(observer.masters, int8_layers_at(observer.masters, place)),
            observer.activation,
            largest,
        )
        for place, entered in observer.entered.items()
    }


def difference(found: Sequence[Arrays], wanted: Sequence[Arrays]) -> float:
    """Root mean square of all logits' differences, as a share of that of the logits wanted."""
    pairs = [(f[name], w[name]) for f, w in zip(found, wanted, strict=True) for name in w]
    apart = sum(float(np.square(f - w, dtype=np.float64).sum()) for f, w in pairs)
    return float(np.sqrt(apart / max(1e-30, sum(float(np.square(w, dtype=np.float64).sum()) for _, w in pairs))))


def extremes(seen: Apart) -> Bounds:
    return seen.low, seen.high


def percentile(seen: Apart) -> Bounds:
    low, high = np.quantile(seen.values, [OUTSIDE / 2, 1 - OUTSIDE / 2])
    return min(0.0, float(low)), max(0.0, float(high))


def least_squares(seen: Apart) -> Bounds:
    """The share of the whole range with the least squared error, values outside included."""
    flat = seen.values.reshape(-1)
    values = np.append(flat[:: -(-len(flat) // MOST_VALUES)], [seen.low, seen.high]).astype(np.float32)

    def error(share: float) -> float:
        scale, zero = scale_and_zero(share * seen.low, share * seen.high)
        steps = np.clip(np.rint(values / scale) + zero, 0, 255) - zero
        return float(np.square(steps * scale - values).mean())

    share = min(SHARES, key=error)
    return share * seen.low, share * seen.high


METHODS: Mapping[str, Callable[[Apart], Bounds]] = {
    "minimum and maximum": extremes,
    "percentile": percentile,
    "least squares": least_squares,
}


def scales(apart: Mapping[str, Apart], method: str) -> Arrays:
    """All that int8 is to know of every place: `bertkit.plugin.int8_layer`."""
    found: Arrays = {}
    for place, one in apart.items():
        bounds = extremes(one) if one.exact else METHODS[method](one)
        found |= {**one.scales, place: np.array(scale_and_zero(*bounds), np.float32)}
    return found
