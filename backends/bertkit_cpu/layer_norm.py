"""LayerNorm in training with bf16 activations, the gradients of scale and shift summed over the slots in float32.

torch's kernel on the CPU sums them in bf16, float32 parameters or not: 4 % off over 1,700 slots, 8 % over 5,000. Here
they are products with vectors, whose sums oneDNN keeps in float32; the gradient of the input is torch's.

Legend: N slots, H hidden.
Source: Ba et al. 2016, arXiv:1607.06450.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bertkit_torch.weights import ComputeWeights


class Bf16Training(ComputeWeights):
    """For forward passes with a gradient."""

    def layer_norm(self, x: Tensor, name: str, epsilon: float) -> Tensor:
        scale, shift = self.masters[f"{name}.weight"], self.masters[f"{name}.bias"]
        found: Tensor = _LayerNorm.apply(x, scale, shift, epsilon)  # type: ignore[no-untyped-call]
        return found


class _LayerNorm(torch.autograd.Function):
    """(N, H) bf16 -> (N, H) bf16, by float32 `scale` and `shift` (H,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float) -> Tensor:
        found, mean, inverse = torch.native_layer_norm(x, scale.shape, scale, shift, epsilon)
        ctx.save_for_backward(x, mean, inverse, scale, shift)
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()  # (N, H)
        x, mean, inverse, scale, shift = ctx.saved_tensors  # mean, inverse: (N, 1) float32
        to_x = None
        if ctx.needs_input_grad[0]:
            to_x = torch.ops.aten.native_layer_norm_backward(
                gradient, x, scale.shape, mean, inverse, scale, shift, (True, False, False)
            )[0]
        # The sum of g (x - mean) inverse, as that of (g x) inverse less that of g (mean inverse).
        inverse = inverse.to(gradient.dtype)
        of_gradient = torch.cat([torch.ones_like(inverse), (mean * inverse).to(gradient.dtype)], 1).t()  # (2, N)
        to_shift, of_mean = torch.mm(of_gradient, gradient).float()
        to_scale = torch.mm(inverse.t(), gradient * x)[0].float() - of_mean
        return to_x, to_scale, to_shift, None
