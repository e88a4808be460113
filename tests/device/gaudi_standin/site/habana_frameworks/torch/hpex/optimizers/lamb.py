"""FusedLamb: it clips by itself, keeps its state on the device of the first parameter at construction, and its
`zero_grad` takes no argument."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from habana_frameworks import _sim
from habana_frameworks.torch.core import step_closure


class FusedLamb(torch.optim.Optimizer):
    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        adam_w_mode: bool = True,
        grad_averaging: bool = True,
        set_grad_none: bool = True,
        max_grad_norm: float | None = 1.0,
        use_lamb: bool = False,
        fused: bool = False,
        dtype: torch.dtype | None = None,
    ) -> None:
        if amsgrad:
            raise RuntimeError("FusedLamb does not support the AMSGrad variant.")
        defaults = {
            "lr": lr,
            "bias_correction": bias_correction,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "grad_averaging": grad_averaging,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, defaults)
        self.set_grad_none = set_grad_none
        self.use_lamb = use_lamb
        self.device = self.param_groups[0]["params"][0].device
        self.dtype = dtype

    def zero_grad(self) -> None:  # type: ignore[override]
        if not self.set_grad_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.compiler.disable()  # type: ignore[untyped-decorator]
    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        if closure is not None:
            with torch.enable_grad():
                closure()
        divisor = self._clip()
        for group in self.param_groups:
            if not group["params"]:
                raise RuntimeError("FusedLamb: an empty parameter group")  # the device crashes
            self._step_group(group, divisor)

    def _clip(self) -> torch.Tensor:
        """What gradients are divided by: max(norm / max_grad_norm, 1), over all groups. The default's norm counts."""
        limit = self.defaults["max_grad_norm"]
        if limit is None:
            return torch.ones((), device=self.device)
        grads = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
        grads = [g if self.dtype is None else g.to(self.dtype) for g in grads]
        _sim.STATE.fused["optimizer_lamb_fused_norm"] += 1
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        return (norm / limit).clamp(min=1.0)

    def _step_group(self, group: dict[str, Any], divisor: torch.Tensor) -> None:
        beta1, beta2 = group["betas"]
        group["step"] = group.get("step", 0) + 1
        corrected = group["bias_correction"]
        corrections = [1.0 - beta ** group["step"] if corrected else 1.0 for beta in (beta1, beta2)]
        correction1, correction2 = (torch.tensor(c, device=self.device) for c in corrections)
        step_closure._mark_step_if_lazy()
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p]["exp_avg"] = torch.zeros(p.shape).to(self.device).to(p.dtype)
                self.state[p]["exp_avg_sq"] = torch.zeros(p.shape).to(self.device).to(p.dtype)
        if not params:
            return
        first, second = ([self.state[p][name] for p in params] for name in ("exp_avg", "exp_avg_sq"))
        _sim.STATE.fused["optimizer_lamb_phase1"] += 1
        grads = torch._foreach_div([p.grad for p in params], divisor)
        torch._foreach_mul_(first, beta1)
        torch._foreach_add_(first, grads, alpha=1.0 - beta1 if group["grad_averaging"] else 1.0)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, value=1.0 - beta2)
        below = torch._foreach_sqrt(torch._foreach_div(second, correction2))
        torch._foreach_add_(below, group["eps"])
        update = torch._foreach_div(torch._foreach_div(first, correction1), below)
        if group["weight_decay"] != 0:
            torch._foreach_add_(update, params, alpha=group["weight_decay"])
        step_closure._mark_step_if_lazy()
        _sim.STATE.fused["optimizer_lamb_phase2"] += 1
        if group["weight_decay"] != 0 or self.use_lamb:
            ratios = [
                _trust(*norms) for norms in zip(torch._foreach_norm(params), torch._foreach_norm(update), strict=True)
            ]
            torch._foreach_mul_(update, ratios)
        torch._foreach_mul_(update, torch.tensor(-group["lr"], device=self.device))
        torch._foreach_add_(params, update)
        step_closure._mark_step_if_lazy()


def _trust(weight: torch.Tensor, update: torch.Tensor) -> torch.Tensor:
    one = torch.ones_like(weight)
    return torch.where((weight > 0) & (update > 0), weight / torch.where(update > 0, update, one), one)
