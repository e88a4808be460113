"""Rows of the fused optimizers, clipping and attention, in either mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from both import STATE, hpu
from habana_frameworks.torch.hpex.kernels import FusedSDPA
from habana_frameworks.torch.hpex.normalization import FusedClipNorm
from habana_frameworks.torch.hpex.optimizers import FusedAdamW, FusedLamb
from table import raises, row


def _adamw_by_hand(p: torch.Tensor, grads: list[torch.Tensor], lr: float, decay: float) -> torch.Tensor:
    first, second = torch.zeros_like(p), torch.zeros_like(p)
    for step, g in enumerate(grads, 1):
        p = p * (1 - decay * lr)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        size = lr * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        p = p - size * first / (second.sqrt() + 1e-6)  # epsilon is added to what is not corrected yet
    return p


@row("1.5 FusedAdamW: its defaults, decay before the update, its step in the group")
def _adamw() -> None:
    start, grads = torch.randn(5), [torch.randn(5) for _ in range(3)]
    p = torch.nn.Parameter(start.to("hpu"))
    defaults = FusedAdamW([p]).defaults
    assert (defaults["eps"], defaults["weight_decay"], defaults["bias_correction"]) == (1e-6, 0.0, True)
    optimizer = FusedAdamW([p], lr=0.1, weight_decay=0.01)
    for grad in grads:
        p.grad = grad.to("hpu")
        optimizer.step()
    assert torch.allclose(p.detach().cpu(), _adamw_by_hand(start, grads, 0.1, 0.01), atol=1e-5)
    assert (optimizer.param_groups[0]["step"], STATE.fused["optimizer_adamw"]) == (3, 3)


@row("1.5 FusedAdamW keeps moments in the dtype it is told")
def _moments() -> None:
    p = torch.nn.Parameter(hpu(5))
    p.grad = hpu(5)
    optimizer = FusedAdamW([p], moments_dtype=(torch.bfloat16, torch.float32))
    optimizer.step()
    assert [optimizer.state[p][name].dtype for name in ("exp_avg", "exp_avg_sq")] == [torch.bfloat16, torch.float32]


@row("1.5 fused optimizers crash on an empty parameter group")
def _empty_group() -> None:
    p = torch.nn.Parameter(hpu(5))
    p.grad = hpu(5)
    for kind in (FusedAdamW, FusedLamb):
        with raises(RuntimeError, "empty parameter group"):
            kind([{"params": [p]}, {"params": []}]).step()


def _lamb_by_hand(p: torch.Tensor, grads: list[torch.Tensor], decay: float) -> torch.Tensor:
    first, second = torch.zeros_like(p), torch.zeros_like(p)
    for step, grad in enumerate(grads, 1):
        g = grad / max(grad.norm().item(), 1.0)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        update = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-6) + decay * p
        p = p - 0.1 * (p.norm() / update.norm() if decay else 1.0) * update
    return p


@row("1.5 FusedLamb: clips by itself, its trust ratio only where there is decay, step returns None")
def _lamb() -> None:
    for decay in (0.01, 0.0):
        start, grads = torch.randn(6), [torch.randn(6) * 10, torch.randn(6) / 10]  # the first is clipped
        p = torch.nn.Parameter(start.to("hpu"))
        optimizer = FusedLamb([p], lr=0.1, weight_decay=decay)
        for grad in grads:
            p.grad = grad.to("hpu")
            assert optimizer.step() is None
        assert torch.allclose(p.detach().cpu(), _lamb_by_hand(start, grads, decay), atol=1e-5)
    assert STATE.fused["optimizer_lamb_fused_norm"] == 4
    FusedLamb([p], max_grad_norm=None).step()
    assert STATE.fused["optimizer_lamb_fused_norm"] == 4


@row("1.5 FusedLamb.zero_grad takes no argument")
def _zero_grad() -> None:
    p = torch.nn.Parameter(hpu(2))
    p.grad = hpu(2)
    optimizer = FusedLamb([p])
    with raises(TypeError):
        optimizer.zero_grad(set_to_none=True)  # type: ignore[call-arg]
    optimizer.zero_grad()
    assert p.grad is None


@row("1.5 FusedClipNorm: in place, the norm on the device, and a CPU zero where there are no gradients")
def _clip() -> None:
    p = torch.nn.Parameter(torch.zeros(2, device="hpu"))
    clip = FusedClipNorm([p], 1.0)
    assert clip.clip_norm([p]).device.type == "cpu"
    p.grad = torch.tensor([3.0, 4.0]).to("hpu")
    norm = clip.clip_norm([p])
    assert (norm.device.type, round(norm.item(), 4)) == ("hpu", 5.0)
    assert torch.allclose(p.grad.cpu(), torch.tensor([0.6, 0.8]), atol=1e-5)
    assert STATE.fused["FusedClipNorm"] == 1


@row("1.5 FusedSDPA is positional, agrees with the reference forward and backward, and refuses fast training softmax")
def _sdpa() -> None:
    q, k, v = (hpu(2, 2, 5, 4).requires_grad_() for _ in range(3))
    mask = torch.tensor([1, 1, 1, 0, 0]).bool().to("hpu")[None, None, None]
    out = FusedSDPA.apply(q, k, v, mask, 0.0, False)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    for ours, theirs in zip(grads, torch.autograd.grad(wanted.square().sum(), (q, k, v)), strict=True):
        assert torch.allclose(ours.cpu(), theirs.cpu(), atol=1e-5)
    assert torch.allclose(out.detach().cpu(), wanted.detach().cpu(), atol=1e-6)
    with raises(AssertionError, "is_causal"):
        FusedSDPA.apply(q, k, v, mask, 0.0, False, None, "fast", True)
