"""The vendor's fused optimizers behind the engine's: our values passed for every argument whose default differs.

FusedAdamW computes m / (sqrt(v) + eps) and then corrects the bias, so that in the first updates its epsilon is up to
1 / sqrt(1 - beta2) = 32 times larger than AdamW's: after 12 updates of MRPC the loss differs by 1.5e-4. Without bias
correction it is AdamW to the letter.
FusedLamb clips to the global norm by itself. Neither takes an empty group, and both must be made after the weights
are on the device.

Sources: habana_frameworks.torch.hpex.optimizers of release 1.19; arXiv:1711.05101, arXiv:1904.00962.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import Arrays, OptimizerSpec
from bertkit_torch.optimizer import MOMENTS, Moments, groups


class Fused(Moments):
    """One of the vendor's optimizers; its step counter stands in the group, its moments in the state."""

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec, optimizer: Any, clips: bool
    ) -> None:
        self.parameters = dict(parameters)
        self.spec = spec
        self.optimizer = optimizer
        self.clips = clips
        for parameter in self.parameters.values():
            state = self.optimizer.state[parameter]
            state["step"] = 0
            for name in MOMENTS:
                state[name] = torch.zeros_like(parameter)

    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        if left_out is not None:
            raise RuntimeError("the fused optimizers cannot leave an update out")  # fp16 takes another
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.step()

    def moments(self) -> Mapping[str, Mapping[str, Tensor]]:
        state = self.optimizer.state
        return {
            ours: {name: state[parameter][theirs] for name, parameter in self.parameters.items()}
            for theirs, ours in MOMENTS.items()
        }

    def state_dict(self) -> Arrays:
        return self.moments_dict() | {"adam.step": np.array(float(self.optimizer.param_groups[0].get("step", 0)))}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        taken = self.load_moments(arrays)
        for group in self.optimizer.param_groups:
            group["step"] = int(taken)


def fused_adamw(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Fused:
    from habana_frameworks.torch.hpex.optimizers import FusedAdamW

    made = FusedAdamW(
        groups(parameters, spec),
        lr=0.0,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        bias_correction=spec.bias_correction,
    )
    return Fused(parameters, spec, made, clips=False)


def fused_lamb(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Fused:
    from habana_frameworks.torch.hpex.optimizers import FusedLamb

    made = FusedLamb(
        groups(parameters, spec),
        lr=0.0,
        bias_correction=spec.bias_correction,
        betas=(spec.beta1, spec.beta2),
        eps=spec.epsilon,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.clip_norm if spec.clip_norm > 0 else None,
        use_lamb=spec.trust_ratio == "all",
    )
    return Fused(parameters, spec, made, clips=True)


def is_exact(spec: OptimizerSpec) -> bool:
    """Whether FusedAdamW computes what AdamW does."""
    return not spec.bias_correction
