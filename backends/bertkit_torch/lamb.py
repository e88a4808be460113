"""LAMB by torch's multi-tensor operators: no tensor's norm is waited for.

With gradients g that are clipped to a global norm beforehand (NVIDIA's pre-normalisation is clipping to 1):
    m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  u = m^ / (sqrt(v^) + eps) + decay * w,
    w -= rate * |w| / |u| * u, where m^ and v^ are corrected for their bias if asked for.
The ratio |w| / |u| is 1 where a norm is zero and, with `trust_ratio` "decayed", where there is no weight decay.

Source: You et al. 2019, arXiv:1904.00962, algorithm 2; "all" is NVLAMB's use of it, "decayed" that of apex's FusedLAMB.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import Arrays, OptimizerSpec
from bertkit_torch.optimizer import OwnMoments


class Lamb(OwnMoments):
    """One optimizer; `step` takes the learning rate. Where the spec says AdamW, the ratio is 1 and this is AdamW."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        super().__init__(parameters, spec)
        self.count = torch.tensor(0.0, device=next(iter(parameters.values())).device)

    @torch.no_grad()
    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        taken = torch.ones_like(self.count) if left_out is None else 1 - left_out
        self.count += taken
        for (decay, factor), names in self.alike.items():
            self._step(names, decay, learning_rate * factor * taken, taken, left_out is not None)

    def _step(self, names: list[str], decay: float, rate: Tensor, taken: Tensor, may_overflow: bool) -> None:
        spec = self.spec
        weights: list[Tensor] = [self.parameters[name] for name in names]
        gradients = [gradient for name in names if (gradient := self.parameters[name].grad) is not None]
        first, second = ([moments[name] for name in names] for moments in (self.first, self.second))
        if may_overflow:
            gradients = [torch.nan_to_num(gradient, 0.0, 0.0, 0.0) for gradient in gradients]
        torch._foreach_mul_(first, 1 - (1 - spec.beta1) * taken)
        torch._foreach_add_(first, torch._foreach_mul(gradients, (1 - spec.beta1) * taken))
        torch._foreach_mul_(second, 1 - (1 - spec.beta2) * taken)
        squares = torch._foreach_mul(gradients, gradients)
        torch._foreach_mul_(squares, (1 - spec.beta2) * taken)
        torch._foreach_add_(second, squares)
        updates = self._directions(first, second)
        if decay:
            torch._foreach_add_(updates, weights, alpha=decay)
        if spec.algorithm == "lamb" and (decay or spec.trust_ratio == "all"):
            torch._foreach_mul_(updates, [rate * ratio for ratio in trust_ratios(weights, updates)])
        else:
            torch._foreach_mul_(updates, rate)
        torch._foreach_sub_(weights, updates)

    def _directions(self, first: list[Tensor], second: list[Tensor]) -> list[Tensor]:
        spec = self.spec
        roots = torch._foreach_sqrt(second)
        if not spec.bias_correction:
            torch._foreach_add_(roots, spec.epsilon)
            return list(torch._foreach_div(first, roots))
        count = self.count.clamp(min=1.0)  # 0 where the first updates were left out
        torch._foreach_div_(roots, torch.sqrt(_correction(spec.beta2, count)))
        torch._foreach_add_(roots, spec.epsilon)
        updates = torch._foreach_div(first, roots)
        torch._foreach_div_(updates, _correction(spec.beta1, count))
        return list(updates)

    def state_dict(self) -> Arrays:
        return self.moments_dict() | {"adam.step": np.array(float(self.count))}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.count.fill_(self.load_moments(arrays))


def _correction(beta: float, count: Tensor) -> Tensor:
    """1 - beta ** count; by subtraction float32 would lose 1e-5 of it at the first updates."""
    return -torch.expm1(count * math.log(beta)) if beta else torch.ones_like(count)


def trust_ratios(weights: list[Tensor], updates: list[Tensor]) -> Tensor:
    """(tensors,) |w| / |u| of each, 1 where either is zero."""
    of_weights, of_updates = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, updates))
    both = (of_weights > 0) & (of_updates > 0)
    return torch.where(both, of_weights / of_updates, 1.0)
