"""Parameters in the dtype that the dense layers compute in: cast once an update, neighbours joined into one matrix.

The casts are part of the autograd graph, so gradients arrive at the float32 masters and are summed there in float32.

Legend: N slots, H hidden, F hidden of the feed-forward part, I inputs, M masked positions, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bertkit.plugin import ModelConfig
from bertkit_torch.dropout import Dropout

if TYPE_CHECKING:
    from bertkit_torch.short import ShortLayers


# (N, H), the slots that ask, (W,), and the mask of keys, (1, 1, 1, N) -> (W, H). None: all ask; nothing is hidden.
ShortLayer = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


class ComputeWeights:
    """A view of the masters for one update's forward passes; made anew after each optimizer step."""

    overwrites = False  # whether `add_and_norm` may overwrite the residual that it is given

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype) -> None:
        self.masters = masters
        self.dtype = dtype
        self._ready: dict[tuple[str, ...], Tensor] = {}
        self.short_layers: ShortLayers | None = None  # made when they are first asked for

    def cast(self, *names: str) -> Tensor:
        """The named parameters, joined along their first axis, in the compute dtype."""
        if names not in self._ready:
            parts = [self.masters[name].to(self.dtype) for name in names]
            self._ready[names] = parts[0] if len(parts) == 1 else torch.cat(parts)
        return self._ready[names]

    def dense(self, x: Tensor, *names: str) -> Tensor:
        """x (…, inputs) -> (…, outputs of all the named layers side by side)."""
        weight = self.cast(*(f"{name}.weight" for name in names))
        return torch.nn.functional.linear(x, weight, self.cast(*(f"{name}.bias" for name in names)))

    def dense_active(self, x: Tensor, name: str, activation: str) -> Tensor:
        """One layer and what `hidden_act` names after it."""
        return activate(self.dense(x, name), activation)

    @property
    def attended_dtype(self) -> torch.dtype:
        """Of what attention finds, in inference, sequence by sequence."""
        return self.dtype

    def of_short(self, slots: int) -> ComputeWeights:
        """These weights as one sequence of so many slots takes them."""
        return self

    def captured(self, layer: ShortLayer, x: Tensor, asking: Tensor | None, mask: Tensor | None) -> ShortLayer:
        """An encoder layer of one short sequence, without the Python between its operators where that can be had."""
        return layer

    @property
    def short_dtype(self) -> torch.dtype:
        """Of what one short sequence is between its layers: `bertkit_torch.short`."""
        return self.dtype

    def short_dense(self, *names: str, activation: str = "") -> Callable[[Tensor], Tensor]:
        """`dense`, or `dense_active` where there is an activation, as a function of x for one short sequence."""
        if activation:
            return functools.partial(self.dense_active, name=names[0], activation=activation)
        return lambda x: self.dense(x, *names)

    def short_norm(self, name: str, epsilon: float) -> Callable[[Tensor], Tensor]:
        return functools.partial(self.layer_norm, name=name, epsilon=epsilon)

    def decode(self, x: Tensor, table: str, bias: str) -> Tensor:
        """(M, H) -> (M, V) logits by the embeddings' own table; in training columns behind V may be minus infinity."""
        return torch.nn.functional.linear(x, self.cast(table), self.cast(bias))

    def dense_fp32(self, x: Tensor, name: str) -> Tensor:
        """A small layer computed in float32 whatever the compute dtype: a head's last word on the logits."""
        weight, bias = self.masters[f"{name}.weight"], self.masters[f"{name}.bias"]
        return torch.nn.functional.linear(x.float(), weight, bias)

    def of_few_rows(self, ids: Tensor, table: str) -> Tensor:
        """(N,) -> (N, H) float32: the rows `ids` of a table of two or three, the segments' embeddings."""
        return torch.nn.functional.embedding(ids, self.masters[table])

    def layer_norm(self, x: Tensor, name: str, epsilon: float) -> Tensor:
        weight, bias = self.cast(f"{name}.weight"), self.cast(f"{name}.bias")
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, epsilon)

    def add_and_norm(self, residual: Tensor, x: Tensor, block: str, config: ModelConfig, drop: Dropout) -> Tensor:
        """(N, H), (N, I) -> (N, H): LayerNorm of the residual and the block's dense layer of x, with dropout."""
        summed = drop.add(residual, self.dense(x, f"{block}.dense"), config.hidden_dropout_prob)
        return self.layer_norm(summed, f"{block}.LayerNorm", config.layer_norm_eps)

    def feed_forward(self, x: Tensor, prefix: str, config: ModelConfig, drop: Dropout) -> Tensor:
        """(N, H) -> (N, H): the second half of the encoder layer whose names begin with `prefix`."""
        inner = self.dense_active(x, f"{prefix}intermediate.dense", config.hidden_act)  # (N, F)
        return self.add_and_norm(x, inner, f"{prefix}output", config, drop)


class NormsInFloat32(ComputeWeights):
    """LayerNorm in float32 by the masters' own scale and shift, as autocast has it on GPUs; for devices that compile
    layers, where its casts are part of the kernels around them."""

    def layer_norm(self, x: Tensor, name: str, epsilon: float) -> Tensor:
        weight, bias = self.masters[f"{name}.weight"], self.masters[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x.float(), weight.shape, weight, bias, epsilon).to(self.dtype)


def activate(x: Tensor, name: str) -> Tensor:
    """`gelu` is the exact form by erf; `gelu_new` and `gelu_pytorch_tanh` the tanh form (arXiv:1606.08415)."""
    if name == "relu":
        return torch.relu(x)
    return torch.nn.functional.gelu(x, approximate="none" if name == "gelu" else "tanh")
