"""FusedAdamW: its defaults are not torch's, and its epsilon is added before the second moment is corrected."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from habana_frameworks import _sim
from habana_frameworks.torch.core import step_closure


class FusedAdamW(torch.optim.Optimizer):
    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        bias_correction: bool = True,
        moments_dtype: torch.dtype | tuple[torch.dtype, torch.dtype] | None = None,
    ) -> None:
        if lr < 0.0:
            raise ValueError(f"Invalid learning rate: {lr} - should be >= 0.0")
        if not (0.0 <= betas[0] < 1.0 and 0.0 <= betas[1] < 1.0):
            raise ValueError(f"Invalid beta parameters: {betas} - should be in [0.0, 1.0[")
        if eps < 0.0:
            raise ValueError(f"Invalid epsilon value: {eps} - should be >= 0.0")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        defaults["bias_correction"] = bias_correction
        super().__init__(params, defaults)
        self.moments_dtype = moments_dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            step_closure._mark_step_if_lazy()
            if not group["params"]:
                raise RuntimeError("FusedAdamW: an empty parameter group")  # the device crashes
            self._step_group(group, [p for p in group["params"] if p.grad is not None])
        step_closure._mark_step_if_lazy()
        return loss

    def _step_group(self, group: dict[str, Any], params: list[torch.Tensor]) -> None:
        if not params:
            return
        first, second = [], []
        for p in params:
            state = self.state[p]
            if not state:
                state["step"] = 0
                kinds = self.moments_dtype if isinstance(self.moments_dtype, tuple) else (self.moments_dtype,) * 2
                state["exp_avg"] = torch.zeros(p.shape, dtype=kinds[0] or p.dtype).to(p.device)
                state["exp_avg_sq"] = torch.zeros(p.shape, dtype=kinds[1] or p.dtype).to(p.device)
            first.append(state["exp_avg"])
            second.append(state["exp_avg_sq"])
        group["step"] = group.get("step", 0) + 1  # the counter is the group's
        beta1, beta2 = group["betas"]
        size = group["lr"]
        if group.get("bias_correction", group.get("correct_bias", True)):
            size *= math.sqrt(1.0 - beta2 ** group["step"]) / (1.0 - beta1 ** group["step"])
        _sim.STATE.fused["optimizer_adamw"] += 1
        device, dtype = params[0].device, params[0].dtype
        step = torch.tensor(-size, dtype=dtype).to(device, non_blocking=True)
        keep = torch.tensor(1.0 - group["weight_decay"] * group["lr"], dtype=dtype).to(device, non_blocking=True)
        _adamw(params, [p.grad for p in params], first, second, beta1, beta2, group["eps"], step, keep)


def _adamw(
    params: list[torch.Tensor],
    grads: list[Any],
    first: list[torch.Tensor],
    second: list[torch.Tensor],
    beta1: float,
    beta2: float,
    eps: float,
    step: torch.Tensor,
    keep: torch.Tensor,
) -> None:
    torch._foreach_mul_(params, keep)
    torch._foreach_mul_(first, beta1)
    torch._foreach_add_(first, [g.to(m.dtype) for g, m in zip(grads, first, strict=True)], alpha=1.0 - beta1)
    torch._foreach_mul_(second, beta2)
    wide = [g.to(v.dtype) for g, v in zip(grads, second, strict=True)]
    torch._foreach_addcmul_(second, wide, wide, value=1.0 - beta2)
    divisor = torch._foreach_sqrt([v.to(p.dtype) for v, p in zip(second, params, strict=True)])
    torch._foreach_add_(divisor, eps)
    update = torch._foreach_div([m.to(p.dtype) for m, p in zip(first, params, strict=True)], divisor)
    torch._foreach_mul_(update, step)
    torch._foreach_add_(params, update)
