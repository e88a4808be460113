"""Inputs of dense layers that are far larger than the others, which would leave few of uint8's steps to those.

In a trained BERT they are a channel or two of the hidden states, and single neurons of the feed-forward part, at a few
tokens. How `bertkit.plugin.int8_layer` keeps each apart is chosen here, for each place, by what it does to the layers'
outputs.

Legend: R rows seen, I inputs, O outputs of the layers of one place.
Source: Bondarenko et al. 2021, arXiv:2109.12948 (where they are); Xiao et al. 2023, arXiv:2211.10438 (divisors).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import INT8_COPIES, INT8_DIVISORS, Arrays, copied_neurons, int8_inputs, int8_layer
from bertkit_torch.weights import activate

SHARES = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)  # of the farthest input, that the others may reach
MOST_DIVIDED = 8  # inputs of a place
MOST_COPIES = 32  # of a place's neurons together
TOGETHER = 16  # copies of a place are a multiple of it: products of another width are up to 1.4 times slower
LEAST_TOP = 3.0  # of a neuron with copies; nearer to 0, GELU is not near the identity or 0
OUTPUTS = 256  # of a place, that are compared


@dataclass(frozen=True)
class Seen:
    """What entered at one place."""

    low: Tensor  # (I,) of all rows
    high: Tensor  # (I,)
    rows: Tensor  # (R, I) float32, some of them


@dataclass(frozen=True)
class Apart:
    """What enters at one place once outliers are kept apart."""

    low: float
    high: float
    values: np.ndarray  # float32, of the rows
    scales: Arrays  # all that `int8_layer` is to know of the place, by a scale from `low` to `high`

    @property
    def exact(self) -> bool:
        """Whether the range must be this one: copies begin where it ends."""
        return any(name.endswith(INT8_COPIES) for name in self.scales)


def scale_and_zero(low: float, high: float) -> tuple[float, int]:
    """Of uint8 values that reach from `low`, at most 0, to `high`, at least 0; 0 is one of them exactly."""
    scale = max(high - low, 1e-6) / 255
    return scale, int(np.clip(np.rint(-low / scale), 0, 255))


def keep_apart(place: str, seen: Seen, weights: Mapping[str, np.ndarray], activation: str, largest: int) -> Apart:
    """The one of `SHARES` whose int8 products differ least from float32's on the rows seen.

    `weights`: of the layers that take these inputs, under their names; `activation`: whose values they are, where the
    place is the feed-forward part's second; `largest`: of a weight in int8.
    """
    names = tuple(name.removesuffix(".weight") for name in weights if name.endswith(".weight"))
    few = _some_outputs(weights, names)
    wanted = functional.linear(seen.rows, torch.from_numpy(few[f"{names[0]}.weight"]))
    tried = [_without(place, seen, share, activation) for share in SHARES]
    options = [one for one in tried if one is not None]
    return min(options, key=lambda one: _error(one, few, names[0], wanted, largest))


def _some_outputs(weights: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """As of one layer, with the first one's name."""
    whole = np.concatenate([weights[f"{name}.weight"] for name in names])
    some = whole[:: -(-len(whole) // OUTPUTS)]
    return {f"{names[0]}.weight": np.ascontiguousarray(some), f"{names[0]}.bias": np.zeros(len(some), np.float32)}


def _without(place: str, seen: Seen, share: float, activation: str) -> Apart | None:
    """None where this share cannot be had here."""
    if share == 1:
        return _apart(place, float(seen.low.min()), float(seen.high.max()), seen.rows, {})
    reach = share * float(torch.maximum(-seen.low, seen.high).max())
    if reach <= 0 or place.endswith(".attention.output.dense"):  # what enters there has no outliers
        return None
    return _copied(place, seen, reach, activation) if place.endswith(".output.dense") else _divided(place, seen, reach)


def _divided(place: str, seen: Seen, reach: float) -> Apart | None:
    divisors = (torch.maximum(-seen.low, seen.high) / reach).clamp_min(1)
    if int((divisors > 1).sum()) > MOST_DIVIDED:
        return None
    low, high = (float(bound) for bound in ((seen.low / divisors).min(), (seen.high / divisors).max()))
    return _apart(place, low, high, seen.rows / divisors, {place + INT8_DIVISORS: divisors.numpy()})


def _copied(place: str, seen: Seen, reach: float, activation: str) -> Apart | None:
    copies = _whole(seen.high / reach)
    if reach < LEAST_TOP or int(copies.sum()) > MOST_COPIES:
        return None
    neurons, turns = copied_neurons(copies.numpy())
    low = float(seen.low.min())
    top = int8_inputs(_apart(place, low, reach, seen.rows, {}).scales, place).top
    further = seen.rows[:, neurons] - torch.from_numpy(top * turns)
    rows = torch.cat([seen.rows, activate(further, activation)], 1)
    return _apart(place, low, reach, rows, {place + INT8_COPIES: copies.numpy()})


def _whole(reached: Tensor) -> Tensor:
    """(I,) how many times uint8's reach a neuron came to -> (I,) copies that it takes, and one more of those that came
    nearest to the end of theirs, so that all are a multiple of `TOGETHER`: 0 at what was seen, and of use beyond it."""
    copies = reached.ceil().clamp_min(1) - 1
    missing = min(-int(copies.sum()) % TOGETHER, len(copies))
    nearest = (reached - copies).topk(missing).indices
    return copies.index_add(0, nearest, torch.ones(missing))


def _apart(place: str, low: float, high: float, rows: Tensor, scales: Arrays) -> Apart:
    low, high = min(0.0, low), max(0.0, high)
    pair = np.array(scale_and_zero(low, high), np.float32)
    return Apart(low, high, rows.numpy(), {place: pair, **scales})


def _error(apart: Apart, weights: Mapping[str, np.ndarray], name: str, wanted: Tensor, largest: int) -> float:
    """Mean squared, of the layers' outputs."""
    inputs, layer = int8_inputs(apart.scales, name), int8_layer(weights, (name,), apart.scales, largest)
    weight = torch.from_numpy(layer.values * layer.scales[:, None])
    rounded = (
        torch.clamp(torch.round(torch.from_numpy(apart.values) / inputs.scale) + inputs.zero, 0, 255) - inputs.zero
    )
    return float((functional.linear(rounded * inputs.scale, weight) - wanted).square().mean())
