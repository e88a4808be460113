"""AdamW over float32 masters: torch's fused kernel, with our defaults passed explicitly.

Source: Loshchilov & Hutter 2019, arXiv:1711.05101; without bias correction: Devlin et al. 2018.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from bertkit.plugin import Arrays, OptimizerSpec, decays, rate_factors, read_array

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
                tensor.copy_(torch.from_numpy(read_array(arrays, f"{ours}.{name}", shape).copy()))
        return float(read_array(arrays, "adam.step", ()))


class OwnMoments(Moments):
    """Tensors of ours, and the parameters by what their updates have alike."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        self.parameters = dict(parameters)
        self.spec = spec
        self.alike = alike(parameters, spec)
        self.first = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.second = {name: torch.zeros_like(p) for name, p in parameters.items()}

    def moments(self) -> Mapping[str, Mapping[str, Tensor]]:
        return {"adam.first": self.first, "adam.second": self.second}


class AdamW(OwnMoments):
    """One optimizer; `step` takes the learning rate, so that the schedule stays a pure function outside.

    By torch's function: making its class loads torch's compiler, one CPU second that no update needs.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> None:
        super().__init__(parameters, spec)
        taken = 0.0 if spec.bias_correction else FAR
        self.steps = {name: torch.tensor(taken, device=p.device) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        for (decay, factor), names in self.alike.items():
            used = [(name, gradient) for name in names if (gradient := self.parameters[name].grad) is not None]
            adamw(
                [self.parameters[name] for name, _ in used],
                [gradient for _, gradient in used],
                [self.first[name] for name, _ in used],
                [self.second[name] for name, _ in used],
                [],
                [self.steps[name] for name, _ in used],
                fused=True,
                found_inf=left_out,
                lr=learning_rate * factor,
                beta1=self.spec.beta1,
                beta2=self.spec.beta2,
                weight_decay=decay,
                eps=self.spec.epsilon,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> Arrays:
        return self.moments_dict() | {"adam.step": np.array(float(next(iter(self.steps.values()))))}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        taken = self.load_moments(arrays)
        for step in self.steps.values():
            step.fill_(taken if self.spec.bias_correction else FAR)


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
