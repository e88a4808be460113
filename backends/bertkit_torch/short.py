"""An encoder layer for one short sequence in inference: each operator is bound once to the weights that it takes.

With few tokens most of the time goes by between the operators, where Python looks up weights by their names.

Legend: N slots, H hidden, W slots that the layer is computed for, A heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from bertkit.plugin import ModelConfig
from bertkit_torch.attention import of_joined, of_one
from bertkit_torch.dropout import Dropout
from bertkit_torch.seen import Attention
from bertkit_torch.weights import ComputeWeights

Attend = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class ShortLayers:
    """An encoder layer, by its number in the model (`bert.Layer`), without dropout."""

    def __init__(self, weights: ComputeWeights) -> None:
        self.weights = weights
        self._bound: dict[tuple[str, bool], Callable[[Tensor, Tensor | None], Tensor]] = {}

    def __call__(
        self, prefix: str, config: ModelConfig, x: Tensor, attention: Attention, asking: Tensor | None, drop: Dropout
    ) -> Tensor:
        key = prefix, asking is None
        if key not in self._bound:
            self._bound[key] = _bind(self.weights, prefix, config, asking is None)
        return self._bound[key](x, asking)


def _bind(
    w: ComputeWeights, prefix: str, config: ModelConfig, all_ask: bool
) -> Callable[[Tensor, Tensor | None], Tensor]:
    """-> a function of (N, H) and the slots that ask, (W,): (W, H), or (N, H) where all ask."""
    attend = (_all_ask if all_ask else _some_ask)(w, f"{prefix}attention.self.", config.num_attention_heads)
    after_attention = w.short_dense(f"{prefix}attention.output.dense")
    inner = w.short_dense(f"{prefix}intermediate.dense", activation=config.hidden_act)
    outer = w.short_dense(f"{prefix}output.dense")
    blocks = ("attention.output", "output")
    norms = [w.short_norm(f"{prefix}{block}.LayerNorm", config.layer_norm_eps) for block in blocks]

    def layer(x: Tensor, asking: Tensor | None) -> Tensor:
        found, residual = attend(x.to(w.short_dtype), asking)
        x = norms[0](after_attention(found).add_(residual))
        return norms[1](outer(inner(x)).add_(x))

    return layer


def _all_ask(w: ComputeWeights, prefix: str, heads: int) -> Attend:
    joined = w.short_dense(*(f"{prefix}{part}" for part in ("query", "key", "value")))

    def attend(x: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor]:
        return of_joined(joined(x), heads), x

    return attend


def _some_ask(w: ComputeWeights, prefix: str, heads: int) -> Attend:
    keys_values = w.short_dense(f"{prefix}key", f"{prefix}value")
    queries = w.short_dense(f"{prefix}query")

    def attend(x: Tensor, asking: Tensor | None) -> tuple[Tensor, Tensor]:
        key, value = keys_values(x).view(len(x), 2, heads, -1).permute(1, 2, 0, 3)
        x = x if asking is None else x.index_select(0, asking)
        return of_one(queries(x).view(len(x), heads, -1).transpose(0, 1), key, value), x

    return attend
