"""Dropout whose masks follow from (seed, update, rank, micro-batch) alone: nothing to save, exact after a resume.

A mask is 0 or 1 in the dtype of the values; the scale stays a number beside it, since bf16 would round 1 / 0.9 by
0.16 % and with it every mean.

Source: Srivastava et al. 2014, JMLR 15.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Shape = tuple[int, ...]
Mask = Callable[[Shape, torch.dtype, float], tuple[Tensor, float]]  # (shape, dtype, rate) -> 0 or 1 each, the scale


@dataclass(frozen=True)
class Dropout:
    """One forward pass's dropout; without `mask` there is none."""

    mask: Mask | None = None

    def __call__(self, values: Tensor, rate: float) -> Tensor:
        """Values, some zero and the rest scaled up."""
        if self.mask is None or rate == 0.0:
            return values
        return _drop(None, values, *self.mask(tuple(values.shape), values.dtype, rate))

    def add(self, residual: Tensor, values: Tensor, rate: float) -> Tensor:
        """residual + self(values, rate), in one pass."""
        if self.mask is None or rate == 0.0:
            return residual + values
        return _drop(residual, values, *self.mask(tuple(values.shape), values.dtype, rate))

    @property
    def on(self) -> bool:
        return self.mask is not None


@dataclass(frozen=True)
class DeviceDropout(Dropout):
    """By torch's own kernels, from the device's generator, which the engine seeds before each forward pass.

    Compilers, captured graphs and attention kernels take it as it is; masks of ours would be a tensor each.
    """

    active: bool = True

    def __call__(self, values: Tensor, rate: float) -> Tensor:
        return functional.dropout(values, rate) if self.active and rate > 0 else values

    def add(self, residual: Tensor, values: Tensor, rate: float) -> Tensor:
        return residual + self(values, rate)

    @property
    def on(self) -> bool:
        return self.active


def _drop(residual: Tensor | None, values: Tensor, kept: Tensor, scale: float) -> Tensor:
    dropped: Tensor = _Drop.apply(residual, values, kept, scale)  # type: ignore[no-untyped-call]
    return dropped


class _Drop(torch.autograd.Function):
    """residual + values * kept * scale, rounded once."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor | None, values: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        if residual is None:
            return (values * kept).mul_(scale)
        return torch.addcmul(residual, values, kept, value=scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor, None, None]:
        (gradient,) = gradients
        (kept,) = ctx.saved_tensors
        to_residual = gradient if ctx.needs_input_grad[0] else None
        return to_residual, (gradient * kept).mul_(ctx.scale), None, None


def stream_key(seed: int, step: int, rank: int, micro_batch: int) -> np.random.SeedSequence:
    """The key of one forward pass's masks."""
    return np.random.SeedSequence([seed, step, rank, micro_batch])


def dropout_seed(key: np.random.SeedSequence) -> int:
    """One number, below 2 ** 63, for a device's generator."""
    return int(key.generate_state(1, np.uint64)[0] >> np.uint64(1))


def torch_masks(key: np.random.SeedSequence, device: torch.device) -> Mask:
    """Masks from torch's own generator on `device`; every torch vendor has one."""
    generator = torch.Generator(device)
    generator.manual_seed(dropout_seed(key))

    def mask(shape: Shape, dtype: torch.dtype, rate: float) -> tuple[Tensor, float]:
        kept = torch.empty(shape, dtype=dtype, device=device).bernoulli_(1.0 - rate, generator=generator)
        return kept, 1.0 / (1.0 - rate)

    return mask
