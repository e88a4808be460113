"""LAMB on the CPU: the formulas of `bertkit_torch.lamb`, in chunks that stay in the caches.

The first pass turns each gradient into its update, in place, and takes both norms; the second adds the update to the
weights, last chunk first, while that is still cached. So 40 bytes a parameter are moved: gradient, moments and weight
are read and all but the weight written (28), then update and weight read and the weight written (12).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bertkit.plugin import OptimizerSpec, decays, rate_factors
from bertkit_cpu.norms import sum_of_squares
from bertkit_torch.lamb import Lamb
from bertkit_torch.optimizer import FAR

# Elements; the four arrays of a chunk take 16 MB, which a third-level cache holds. With chunks for the second level,
# calling the operators costs more than its speed gains (docs/performance.md).
CHUNK = 1 << 20


class BlockedLamb(Lamb):
    """Uses the gradients up: after a step they hold what was added to the weights, but for the rate."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        super().__init__(parameters, spec)
        self.decay = {name: spec.weight_decay if decays(name) else 0.0 for name in parameters}
        self.scaled = [name for name in parameters if self.decay[name] or spec.trust_ratio == "all"]
        self.factors = rate_factors(parameters, spec.layer_decay)
        self.plain: dict[float, list[str]] = {}
        for name in parameters:
            if name not in set(self.scaled):
                self.plain.setdefault(self.factors[name], []).append(name)

    @torch.no_grad()
    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        if left_out is not None and float(left_out):
            return
        self.count += 1
        for factor, names in self.plain.items():
            weights: list[Tensor] = [self.parameters[name] for name in names]
            first, second = ([moments[name] for name in names] for moments in (self.first, self.second))
            gradients = [gradient(self.parameters[name]) for name in names]
            self._adam(weights, gradients, first, second, learning_rate * factor)
        for name in self.scaled:
            self._scaled(name, learning_rate * self.factors[name])

    def _scaled(self, name: str, learning_rate: float) -> None:
        weight = self.parameters[name]
        whole = (gradient(weight), weight, self.first[name], self.second[name])
        chunks = list(zip(*(torch.split(tensor.view(-1), CHUNK) for tensor in whole), strict=True))
        of_weight = of_update = 0.0
        for update, part, first, second in chunks:
            # A rate and a decay of 1 take the old value away, so that the gradient's place then holds the update.
            self._adam([update], [update], [first], [second], rate=1.0, decay=1.0)
            if self.decay[name]:
                update.sub_(part, alpha=self.decay[name])
            of_weight += sum_of_squares(part)
            of_update += sum_of_squares(update)
        ratio = math.sqrt(of_weight / of_update) if of_weight > 0 and of_update > 0 else 1.0
        for update, part, _, _ in reversed(chunks):
            part.add_(update, alpha=learning_rate * ratio)

    def _adam(
        self,
        weights: list[Tensor],
        gradients: list[Tensor],
        first: list[Tensor],
        second: list[Tensor],
        rate: float,
        decay: float = 0.0,
    ) -> None:
        """torch's fused AdamW, for all chunks of one update with the same number of the update."""
        step = self.count if self.spec.bias_correction else torch.tensor(FAR)
        torch._fused_adamw_(
            weights, gradients, first, second, [], [step] * len(weights),
            lr=rate, beta1=self.spec.beta1, beta2=self.spec.beta2, weight_decay=decay, eps=self.spec.epsilon,
            amsgrad=False, maximize=False,
        )  # fmt: skip


def gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        raise RuntimeError("a parameter without a gradient")  # the engine completes them before
    return parameter.grad.contiguous()
