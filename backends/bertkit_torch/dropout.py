"""Dropout whose masks follow from (seed, update, rank, micro-batch) alone: nothing to save, exact after a resume.

Source: Srivastava et al. 2014, JMLR 15.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Dropout = Callable[[Tensor, float], Tensor]  # (values, rate) -> values, some zero and the rest scaled up
Mask = Callable[[Tensor, float], Tensor]  # (values, rate) -> 0 or 1/(1-rate) at each place, dtype of the values


def no_dropout(values: Tensor, rate: float) -> Tensor:
    return values


def dropout(mask: Mask) -> Dropout:
    def drop(values: Tensor, rate: float) -> Tensor:
        return values if rate == 0.0 else values * mask(values, rate)

    return drop


def stream_key(seed: int, step: int, rank: int, micro_batch: int) -> np.random.SeedSequence:
    """The key of one forward pass's masks."""
    return np.random.SeedSequence([seed, step, rank, micro_batch])


def torch_masks(key: np.random.SeedSequence, device: torch.device) -> Mask:
    """Masks from torch's own generator on `device`; every torch vendor has one."""
    generator = torch.Generator(device)
    generator.manual_seed(int(key.generate_state(1, np.uint64)[0] >> np.uint64(1)))

    def mask(values: Tensor, rate: float) -> Tensor:
        kept = torch.empty_like(values).bernoulli_(1.0 - rate, generator=generator)
        return kept.mul_(1.0 / (1.0 - rate))

    return mask
