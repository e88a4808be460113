"""The fused attention, positional as an autograd function is."""

from __future__ import annotations

import math
from typing import Any

import torch

from habana_frameworks import _sim

__all__ = ["FusedSDPA"]


class FusedSDPA(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        attn_mask: torch.Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        softmax_mode: str = "None",
        recompute_mode: bool | None = None,
        valid_seq_len: torch.Tensor | None = None,
        seq_padding_type: str = "left",
    ) -> torch.Tensor:
        from habana_frameworks.torch import hpu

        recompute = hpu.recompute_sdp_enabled() if recompute_mode is None else recompute_mode
        trained = q.requires_grad or k.requires_grad or v.requires_grad
        if recompute and trained and softmax_mode.lower() == "fast":
            assert is_causal, "softmax_mode fast is supported in recompute training only with is_causal=True"
        if valid_seq_len is not None:
            alone = is_causal and not trained and attn_mask is None
            assert alone, "valid_seq_len is for causal inference without a mask only"
        if not torch.compiler.is_compiling():  # the recorder would be traced, and each count a new graph
            _sim.STATE.fused["FusedSDPA"] += 1
        with torch.autocast("hpu", enabled=False):
            ctx.scale = 1.0 / math.sqrt(q.size(-1)) if scale is None else scale
            p = _weights(q, k, attn_mask, is_causal, ctx.scale)
            keep = torch.ones_like(p)
            if dropout_p > 0.0:
                keep = keep.bernoulli_(1 - dropout_p) / (1 - dropout_p)
            ctx.save_for_backward(q, k, v, p, keep)
            return (p * keep).to(v.dtype) @ v

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        q, k, v, p, keep = ctx.saved_tensors
        with torch.autocast("hpu", enabled=False):
            out = grads[0].to(v.dtype)
            dv = (p * keep).to(v.dtype).transpose(-2, -1) @ out
            dp = (out @ v.transpose(-2, -1)).float() * keep
            ds = (p * (dp - (dp * p).sum(-1, keepdim=True)) * ctx.scale).to(q.dtype)
            return ds @ k, ds.transpose(-2, -1) @ q, dv, None, None, None, None, None, None, None, None


def _weights(q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, causal: bool, scale: float) -> torch.Tensor:
    scores = (q @ k.transpose(-2, -1)).float() * scale
    if causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        scores = scores.masked_fill(~seen, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return torch.softmax(scores, dim=-1)
