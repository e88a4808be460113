"""An encoder layer for one short sequence in inference: each operator is bound once to the weights that it takes.

With few tokens most of the time goes by between the operators, where Python looks up weights by their names.

Legend: N slots, H hidden, W slots that the layer is computed for, A heads, D head size.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from bertkit.plugin import ModelConfig
from bertkit_torch.attention import OfOne, of_joined, of_one
from bertkit_torch.dropout import Dropout
from bertkit_torch.seen import Attention
from bertkit_torch.weights import ComputeWeights, ShortLayer

OFTEN = 16  # calls after which a layer is worth capturing, which takes as long as ten


class ShortLayers:
    """An encoder layer, by its number in the model (`bert.Layer`), without dropout."""

    def __init__(self, weights: ComputeWeights) -> None:
        self.weights = weights
        self._layers: dict[tuple[str, bool, bool], ShortLayer] = {}
        self._calls: Counter[tuple[str, bool, bool]] = Counter()

    def __call__(
        self, prefix: str, config: ModelConfig, x: Tensor, attention: Attention, asking: Tensor | None, drop: Dropout
    ) -> Tensor:
        mask = attention.mask if isinstance(attention, OfOne) else None
        key = prefix, asking is None, mask is None
        if key not in self._layers:
            self._layers[key] = _Layer(self.weights, prefix, config, all_ask=asking is None)
        self._calls[key] += 1
        if self._calls[key] == OFTEN:
            self._layers[key] = self.weights.captured(self._layers[key], x, asking, mask)
        return self._layers[key](x, asking, mask)


class _Layer(nn.Module):
    """(N, H), and the slots that ask, (W,) -> (W, H), or (N, H) where all ask."""

    def __init__(self, w: ComputeWeights, prefix: str, config: ModelConfig, *, all_ask: bool) -> None:
        super().__init__()
        self.dtype = w.short_dtype
        kind = _AllAsk if all_ask else _SomeAsk
        self.attend = kind(w, f"{prefix}attention.self.", config.num_attention_heads)
        self.after_attention = w.short_dense(f"{prefix}attention.output.dense")
        self.inner = w.short_dense(f"{prefix}intermediate.dense", activation=config.hidden_act)
        self.outer = w.short_dense(f"{prefix}output.dense")
        self.first_norm = w.short_norm(f"{prefix}attention.output.LayerNorm", config.layer_norm_eps)
        self.second_norm = w.short_norm(f"{prefix}output.LayerNorm", config.layer_norm_eps)

    def forward(self, x: Tensor, asking: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        found, residual = self.attend(x.to(self.dtype), asking, mask)
        x = self.first_norm(self.after_attention(found).add_(residual))
        return self.second_norm(self.outer(self.inner(x)).add_(x))


class _AllAsk(nn.Module):
    """-> what attention finds, (N, H), and x."""

    def __init__(self, w: ComputeWeights, prefix: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.joined = w.short_dense(*(f"{prefix}{part}" for part in ("query", "key", "value")))

    def forward(self, x: Tensor, asking: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        return of_joined(self.joined(x), self.heads, mask), x


class _SomeAsk(nn.Module):
    """-> what attention finds for the slots that ask, (W, H), and x of these."""

    def __init__(self, w: ComputeWeights, prefix: str, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.keys_values = w.short_dense(f"{prefix}key", f"{prefix}value")
        self.queries = w.short_dense(f"{prefix}query")

    def forward(self, x: Tensor, asking: Tensor | None, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        key, value = torch.unflatten(self.keys_values(x), 1, (2, self.heads, -1)).permute(1, 2, 0, 3)
        x = x if asking is None else x.index_select(0, asking)
        query = torch.unflatten(self.queries(x), 1, (self.heads, -1)).transpose(0, 1)
        return of_one(query, key, value, mask), x
