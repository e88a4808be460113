"""The fused clip by global norm."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from habana_frameworks import _sim
from habana_frameworks.torch.core import step_closure

__all__ = ["FusedClipNorm"]


class FusedClipNorm:
    """L2 only. `max_norm` is fixed here, on the device, in the first parameter's dtype."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter], max_norm: float) -> None:
        held = list(parameters)
        self.dtype = held[0].dtype if held else torch.float32
        self.max_norm_t = (torch.ones(1) * max_norm).to(self.dtype).to("hpu")
        self.norm_type = 2.0

    @torch.no_grad()
    def clip_norm(self, parameters: Iterable[torch.Tensor] | torch.Tensor) -> torch.Tensor:
        step_closure._mark_step_if_lazy()
        held = [parameters] if isinstance(parameters, torch.Tensor) else list(parameters)
        grads = [p.grad for p in held if p.grad is not None]
        if not grads:
            return torch.tensor(0.0)
        _sim.STATE.fused["FusedClipNorm"] += 1
        total = torch.stack(torch._foreach_norm(grads)).norm()
        scale = (self.max_norm_t / (total + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads, scale.to(grads[0].dtype).reshape(()))
        step_closure._mark_step_if_lazy()
        return total
