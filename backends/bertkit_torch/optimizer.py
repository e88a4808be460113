"""AdamW over float32 masters: torch's fused kernel, with our defaults passed explicitly.

Source: Loshchilov & Hutter 2019, arXiv:1711.05101; without bias correction: Devlin et al. 2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.backend import Arrays, OptimizerSpec
from bertkit.errors import UserError
from bertkit.parameters import decays

# The fused kernel divides by 1 - beta ** step. At this step number beta ** step is 0 in double precision for every
# beta below 1 - 1e-7, so the corrections are 1. Large enough, yet exact in the float32 that holds the step.
FAR = 2.0**30
MOMENTS = {"exp_avg": "adam.first", "exp_avg_sq": "adam.second"}


class AdamW:
    """One optimizer; `step` takes the learning rate, so that the schedule stays a pure function outside."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        self.parameters = dict(parameters)
        self.spec = spec
        groups = [
            {"params": [p for n, p in parameters.items() if decays(n)], "weight_decay": spec.weight_decay},
            {"params": [p for n, p in parameters.items() if not decays(n)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=0.0,
            betas=(spec.beta1, spec.beta2),
            eps=spec.epsilon,
            fused=True,
        )
        for parameter in self.parameters.values():
            self.optimizer.state[parameter] = self._fresh(parameter)

    def _fresh(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        return {
            "step": torch.tensor(0.0 if self.spec.bias_correction else FAR, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }

    def step(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        if not self.spec.bias_correction:
            for parameter in self.parameters.values():
                self.optimizer.state[parameter]["step"].fill_(FAR)

    def state_dict(self) -> Arrays:
        state: Mapping[Any, Any] = self.optimizer.state
        arrays = {
            f"{ours}.{name}": state[parameter][theirs].cpu().numpy().copy()
            for name, parameter in self.parameters.items()
            for theirs, ours in MOMENTS.items()
        }
        first = next(iter(self.parameters.values()))
        return arrays | {"adam.step": np.array(float(state[first]["step"]))}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        for name, parameter in self.parameters.items():
            state = self.optimizer.state[parameter]
            state["step"].fill_(float(read(arrays, "adam.step", ())))
            for theirs, ours in MOMENTS.items():
                state[theirs].copy_(torch.from_numpy(read(arrays, f"{ours}.{name}", tuple(parameter.shape)).copy()))


def read(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """arrays[name], which must be there and have this shape. Raises UserError, naming it."""
    if name not in arrays:
        raise UserError(f"the checkpoint lacks {name}", "it belongs to another model or optimizer")
    if arrays[name].shape != shape:
        raise UserError(
            f"{name} is {arrays[name].shape} in the checkpoint, {shape} in the model",
            "it belongs to another model",
        )
    return arrays[name]
