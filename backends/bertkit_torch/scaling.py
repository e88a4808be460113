"""Loss scaling for fp16, kept on the device: no update waits for the host to know whether it overflowed.

Legend: P parameters.
Source: Micikevicius et al. 2017, arXiv:1710.03740.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import MOST_SCALING, Arrays, LossScaling, check_scaling, loss_scaling, restored_scaling
from bertkit_torch.gradients import Gradients, norms


class LossScaler:
    """The factor and what it has met; all stay in their places, since captured graphs read the factor there."""

    def __init__(self, spec: LossScaling, device: torch.device) -> None:
        self.spec = spec
        self.factor = torch.tensor(float(spec.initial), device=device)
        self.good = torch.tensor(0.0, device=device)  # updates since the last overflow or growth
        self.overflows = torch.tensor(0.0, device=device)  # in a row
        self.first = torch.tensor(-1.0, device=device)  # at the last overflow: number of the parameter it began at

    def settle(self, gradients: Gradients, most: float) -> tuple[Tensor, Tensor]:
        """Divide the gradients by the factor, clip them to the norm `most` (0: not), and follow up the factor.

        Returns their norm before clipping, and 1 where the update is to be left out, else 0.
        """
        parts = norms(gradients.complete())  # (P,)
        norm = torch.linalg.vector_norm(parts) / self.factor
        overflow = ~torch.isfinite(norm)
        clip = (most / (norm + 1e-6)).clamp(max=1.0) if most > 0 else torch.ones_like(norm)
        gradients.multiply(clip / self.factor)
        self._remember(overflow, parts)
        return norm, overflow.float()

    def _remember(self, overflow: Tensor, parts: Tensor) -> None:
        # Backward goes from the last parameter to the first, so the last one that is not finite was the first to be so.
        numbers = torch.arange(len(parts), device=parts.device, dtype=torch.float32)
        last = torch.where(torch.isfinite(parts), -1.0, numbers).max()
        self.first.copy_(torch.where(overflow, last, self.first))
        self.overflows.copy_(torch.where(overflow, self.overflows + 1, 0.0))
        self.good.copy_(torch.where(overflow, 0.0, self.good + 1))
        if not self.spec.dynamic:
            return
        grown = self.good >= self.spec.grow_after
        halved = (self.factor / 2).clamp(min=self.spec.floor)
        most = (self.factor * 2).clamp(max=MOST_SCALING)
        doubled = torch.maximum(self.factor, most)  # a larger one that was asked for stays
        self.factor.copy_(torch.where(overflow, halved, torch.where(grown, doubled, self.factor)))
        self.good.copy_(torch.where(grown, 0.0, self.good))

    def check(self, names: Sequence[str]) -> None:
        """Raises UserError after too many overflows in a row, naming the first tensor. Waits for the device."""
        check_scaling(self.spec, int(self.overflows), float(self.factor), names[int(self.first)])

    def state_dict(self) -> Arrays:
        return {f"loss_scaling.{name}": np.array(float(getattr(self, name))) for name in loss_scaling(self.spec)}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, value in restored_scaling(self.spec, arrays).items():
            getattr(self, name).fill_(value)


def backward(value: Tensor, scaler: LossScaler | None) -> None:
    """Add the gradients of the loss `value`, scaled where it is."""
    scaled = value if scaler is None else value * scaler.factor
    scaled.backward()  # type: ignore[no-untyped-call]  # torch 2.13 leaves it untyped
