"""Dense layers by those products that are fastest on x86; measured in docs/performance.md.

In training in bf16, a product with the weights is a convolution of width 1 over the slots: oneDNN then puts the weights
into blocks first, 8 % faster than the plain product does it piece by piece. In inference the blocks are kept. In
float32 MKL's plain product is faster than oneDNN's, save with few slots: it orders the weights anew each time.
The gradient is written by hand: it goes to the float32 masters without a graph of casts and joins.

Legend: N slots, I inputs, O outputs of all joined layers.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bertkit_cpu.capture import captured, recording, scripts
from bertkit_cpu.layer_norm import Bf16Training
from bertkit_torch.weights import ComputeWeights, ShortLayer, activate

FEW = 1024  # slots; with fewer, bringing the weights into blocks costs more than it saves
FEW_FLOAT32 = 48  # slots up to which oneDNN's products with blocks are faster in float32


@dataclass(frozen=True)
class _Joined:
    """Layers of the same input side by side, in bf16."""

    weight: Tensor  # (O, I)
    bias: Tensor  # (O,)
    outputs: list[int]  # of each layer


class TrainingWeights(Bf16Training):
    """For forward passes with a gradient."""

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__(masters, dtype)
        self._joined: dict[tuple[str, ...], _Joined] = {}

    def dense(self, x: Tensor, *names: str) -> Tensor:
        if names not in self._joined:
            self._joined[names] = join(self.masters, names, self.dtype)
        parameters = [self.masters[f"{name}.{kind}"] for kind in ("weight", "bias") for name in names]
        found: Tensor = _Dense.apply(x, self._joined[names], *parameters)  # type: ignore[no-untyped-call]
        return found


class _Dense(torch.autograd.Function):
    """x (N, I) -> (N, O)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, joined: _Joined, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.joined = joined
        outputs, inputs = joined.weight.shape
        if len(x) < FEW or outputs < inputs:  # the plain product does a narrow weight as fast
            return functional.linear(x, joined.weight, joined.bias)
        return _flat(torch.conv2d(_image(x), joined.weight[:, :, None, None], joined.bias))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        gradient = gradients[0].contiguous()
        (x,) = ctx.saved_tensors
        joined: _Joined = ctx.joined
        to_weight = torch.mm(gradient.t(), x)  # (O, I)
        to_bias = torch.mm(gradient.new_ones(1, len(gradient)), gradient)[0]  # faster than a sum over the rows
        parts = [part.float() for whole in (to_weight, to_bias) for part in torch.split(whole, joined.outputs)]
        to_x = _to_input(gradient, x, joined.weight) if ctx.needs_input_grad[0] else None
        return to_x, None, *parts


def _to_input(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """(N, O) -> (N, I)."""
    if len(gradient) < FEW:
        return torch.mm(gradient, weight)
    found = torch.ops.aten.convolution_backward(
        _image(gradient), _image(x), weight[:, :, None, None], None,
        (1, 1), (0, 0), (1, 1), False, (0, 0), 1, (True, False, False),
    )  # fmt: skip
    return _flat(found[0])


def _image(x: Tensor) -> Tensor:
    """(N, C) as an image N high and 1 wide with its C channels last in memory."""
    return x.view(1, len(x), 1, -1).permute(0, 3, 1, 2)


def _flat(image: Tensor) -> Tensor:
    return image.permute(0, 2, 3, 1).reshape(image.shape[2], image.shape[1])


def join(masters: Mapping[str, Tensor], names: tuple[str, ...], dtype: torch.dtype) -> _Joined:
    with torch.no_grad():
        weights = [masters[f"{name}.weight"] for name in names]
        biases = [masters[f"{name}.bias"] for name in names]
        outputs = [len(weight) for weight in weights]
        weight = torch.empty(sum(outputs), weights[0].shape[1], dtype=dtype)
        bias = torch.empty(sum(outputs), dtype=dtype)
        for whole, parts in ((weight, weights), (bias, biases)):
            for place, part in zip(torch.split(whole, outputs), parts, strict=True):
                place.copy_(part)
        return _Joined(weight, bias, outputs)


Product = Callable[[Tensor], Tensor]  # (N, I) -> (N, O)


class InferenceWeights(ComputeWeights):
    """For forward passes without one: in blocks, and the activation is part of the product."""

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        super().__init__(masters, dtype)
        self._bound: dict[tuple[tuple[str, ...], str], Product] = {}

    def dense(self, x: Tensor, *names: str) -> Tensor:
        return self.bound(names)(x)

    def dense_active(self, x: Tensor, name: str, activation: str) -> Tensor:
        return self.bound((name,), activation)(x)

    def short_dense(self, *names: str, activation: str = "") -> Product:
        return self.bound(names, activation)

    def captured(self, layer: ShortLayer, x: Tensor, asking: Tensor | None, mask: Tensor | None) -> ShortLayer:
        return captured(layer, x, asking, mask)

    def bound(self, names: tuple[str, ...], activation: str = "") -> Product:
        """The product with these layers' weights, which is made when it is first asked for."""
        if (names, activation) not in self._bound:
            self._bound[names, activation] = self.bind(names, activation)
        return self._bound[names, activation]

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        return _InBlocks(join(self.masters, names, self.dtype), activation)

    def layer_norm(self, x: Tensor, name: str, epsilon: float) -> Tensor:
        return self.short_norm(name, epsilon)(x)

    def short_norm(self, name: str, epsilon: float) -> Callable[[Tensor], Tensor]:
        weight, bias = (self.masters[f"{name}.{kind}"].detach() for kind in ("weight", "bias"))
        return lambda x: torch.layer_norm(x, weight.shape, weight, bias, epsilon)


class Float32Weights(ComputeWeights):
    """For forward passes without a gradient, in float32."""

    def __init__(self, masters: Mapping[str, Tensor]) -> None:
        super().__init__(masters, torch.float32)
        self._few = _FewInFloat32(masters, self.dtype)

    def of_short(self, slots: int) -> ComputeWeights:
        return self._few if slots <= FEW_FLOAT32 else self

    def captured(self, layer: ShortLayer, x: Tensor, asking: Tensor | None, mask: Tensor | None) -> ShortLayer:
        return captured(layer, x, asking, mask)


class _FewInFloat32(InferenceWeights):
    """Of the layers of one sequence with few slots."""

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        """The activation apart: in float32 without AVX-512 oneDNN's takes a third of the product's time."""
        product = _InBlocks(join(self.masters, names, self.dtype), "")
        return _Active(product, activation) if activation else product


class _Active(nn.Module):
    """A product, and its activation after it."""

    def __init__(self, product: nn.Module, activation: str) -> None:
        super().__init__()
        self.product, self.activation = product, activation

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.product(x), self.activation)


class _InBlocks(nn.Module):
    """(N, I) -> (N, O), with the activation."""

    def __init__(self, joined: _Joined, activation: str) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ops.mkldnn._reorder_linear_weight(joined.weight, 1024))
        self.register_buffer("bias", joined.bias)
        self.after, self.form = onednn_form(activation)

    def forward(self, x: Tensor) -> Tensor:
        given = x, self.weight, self.bias, self.after
        if recording():
            found: Tensor = scripts().linear(*given, self.form)
        else:
            found = torch.ops.mkldnn._linear_pointwise.default(*given, [], self.form)
        return found


def onednn_form(activation: str) -> tuple[str, str]:
    """What oneDNN's operators call an activation, "" for none, and its form."""
    known = {"": ("none", ""), "relu": ("relu", ""), "gelu": ("gelu", "none")}
    return known.get(activation, ("gelu", "tanh"))


@functools.cache
def fast_products(dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in it here and torch has the operators used above, some without a public name."""
    if platform.machine() not in ("x86_64", "AMD64") or "mkldnn" not in dir(torch.backends):
        return False
    try:
        if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return False
        masters = {"a.weight": torch.ones(16, 32), "a.bias": torch.ones(16)}
        found = InferenceWeights(masters, dtype).dense_active(torch.ones(3, 32, dtype=dtype), "a", "relu")
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    return torch.equal(found, torch.full((3, 16), 33, dtype=dtype))
