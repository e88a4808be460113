"""AdamW over float32 masters: torch's fused kernel, with our defaults passed explicitly.

Source: Loshchilov & Hutter 2019, arXiv:1711.05101; without bias correction: Devlin et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import Arrays, OptimizerSpec, UserError, decays, rate_factors

# The fused kernel divides by 1 - beta ** step. At this step number beta ** step is 0 in double precision for every
# beta below 1 - 1e-7, so the corrections are 1. Float32, which holds the step, has no number between it and 64 more or
# less: the kernel adds 1 to it at each update, and takes 1 off where one is left out, and it stays what it is.
FAR = 2.0**30
MOMENTS = {"exp_avg": "adam.first", "exp_avg_sq": "adam.second"}


class Optimizer(Protocol):
    """What the engine asks of an optimizer."""

    clips: bool  # whether it clips the gradients by itself, to the spec's `clip_norm`

    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        """`left_out`: a number on the device, 1 where this update must change nothing; None: it is taken."""

    def state_dict(self) -> Arrays: ...

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None: ...


class Moments:
    """The first and second moments of every parameter as arrays, under names that all optimizers share."""

    parameters: Mapping[str, nn.Parameter]
    clips = False

    def moments(self) -> Mapping[str, Mapping[str, Tensor]]:
        """`adam.first`, `adam.second` -> parameter's name -> tensor."""
        raise NotImplementedError

    def moments_dict(self) -> Arrays:
        return {
            f"{ours}.{name}": tensor.float().cpu().numpy().copy()
            for ours, tensors in self.moments().items()
            for name, tensor in tensors.items()
        }

    def load_moments(self, arrays: Mapping[str, np.ndarray]) -> float:
        """Take the moments back; returns the number of updates taken. Raises UserError where something is missing."""
        for ours, tensors in self.moments().items():
            for name, tensor in tensors.items():
                shape = tuple(self.parameters[name].shape)
                tensor.copy_(torch.from_numpy(read(arrays, f"{ours}.{name}", shape).copy()))
        return float(read(arrays, "adam.step", ()))


class AdamW(Moments):
    """One optimizer; `step` takes the learning rate, so that the schedule stays a pure function outside."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        self.parameters = dict(parameters)
        self.spec = spec
        self.optimizer = torch.optim.AdamW(
            groups(parameters, spec),
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

    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group["factor"]
        self.optimizer.found_inf = left_out  # type: ignore[attr-defined]  # torch's GradScaler tells it so too
        self.optimizer.step()

    def moments(self) -> Mapping[str, Mapping[str, Tensor]]:
        state: Mapping[Any, Any] = self.optimizer.state
        return {
            ours: {name: state[parameter][theirs] for name, parameter in self.parameters.items()}
            for theirs, ours in MOMENTS.items()
        }

    def state_dict(self) -> Arrays:
        first = next(iter(self.parameters.values()))
        return self.moments_dict() | {"adam.step": np.array(float(self.optimizer.state[first]["step"]))}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        taken = self.load_moments(arrays)
        taken = taken if self.spec.bias_correction else FAR
        for parameter in self.parameters.values():
            self.optimizer.state[parameter]["step"].fill_(taken)


def groups(parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> list[dict[str, Any]]:
    """The parameters by weight decay and learning rate, as torch's optimizers take them; none is empty."""
    return [
        {"params": [parameters[name] for name in names], "weight_decay": decay, "factor": factor}
        for (decay, factor), names in alike(parameters, spec).items()
    ]


def alike(names: Iterable[str], spec: OptimizerSpec) -> dict[tuple[float, float], list[str]]:
    """(weight decay, factor of the learning rate) -> the parameters that have these; those with weight decay first."""
    factors = rate_factors(names, spec.layer_decay)
    found: dict[tuple[float, float], list[str]] = {}
    for decayed in (True, False):
        for name, factor in factors.items():
            if decays(name) == decayed:
                found.setdefault((spec.weight_decay if decayed else 0.0, factor), []).append(name)
    return found


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
