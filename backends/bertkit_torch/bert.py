"""BERT: the encoder over N slots of any layout, and its heads.

Legend: N slots, T tokens, B sequences, M masked positions, H hidden, V vocabulary, C outputs of the head.
Source: Devlin et al. 2018, arXiv:1810.04805. Parameters have Hugging Face's names (`bertkit.model.parameters`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bertkit.plugin import Head, ModelConfig
from bertkit_torch.attention import OfOne
from bertkit_torch.dropout import Dropout
from bertkit_torch.seen import Attention, Seen
from bertkit_torch.short import ShortLayers
from bertkit_torch.weights import ComputeWeights

Outputs = dict[str, Tensor]
QUERY_KEY_VALUE = ("query", "key", "value")


class Bert(nn.Module):
    """The parameters, float32, as a module tree with Hugging Face's names; `forward` is the functions below."""

    def __init__(self, config: ModelConfig, head: Head, weights: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.config = config
        self.head = head
        for name, values in weights.items():
            *path, leaf = name.split(".")
            module: nn.Module = self
            for part in path:
                if part not in module._modules:
                    module.add_module(part, nn.Module())
                module = module.get_submodule(part)
            module.register_parameter(leaf, nn.Parameter(torch.tensor(values, dtype=torch.float32)))

    def forward(self, weights: ComputeWeights, seen: Seen, drop: Dropout) -> Outputs:
        """The head's logits, float32 (`bertkit.engine.interface.Engine.predict` says which and their shapes)."""
        layer: Layer = functools.partial(encoder_layer, weights)
        if isinstance(seen.attention, OfOne):
            short = weights.of_short(len(seen.input_ids))
            layer = short.short_layers = short.short_layers or ShortLayers(short)
        return outputs(weights, self.config, self.head, seen, drop, layer)


class Layer(Protocol):
    """One encoder layer, by its number in the model."""

    def __call__(
        self, prefix: str, config: ModelConfig, x: Tensor, attention: Attention, asking: Tensor | None, drop: Dropout
    ) -> Tensor: ...


def outputs(w: ComputeWeights, config: ModelConfig, head: Head, seen: Seen, drop: Dropout, layer: Layer) -> Outputs:
    if head.kind == "encoder":
        return states(w, config, head, seen, drop, layer)
    hidden = encode(w, config, seen, drop, layer)
    found = HEADS[head.kind](w, config, hidden, seen, drop)
    if head.states:
        found["hidden"] = hidden if seen.tokens is None else hidden.index_select(0, seen.tokens)
    return found


def encode(w: ComputeWeights, config: ModelConfig, seen: Seen, drop: Dropout, layer: Layer) -> Tensor:
    """-> (N, H) in the compute dtype or float32; (W, H) where the head looks at W slots only."""
    hidden = embed(w, config, seen, drop)
    last = config.num_hidden_layers - 1
    for number in range(last):
        hidden = layer(prefix(number), config, hidden, seen.attention, None, drop)
    return layer(prefix(last), config, hidden, seen.last, seen.asking, drop)


def states(w: ComputeWeights, config: ModelConfig, head: Head, seen: Seen, drop: Dropout, layer: Layer) -> Outputs:
    """Of the K states that the head names side by side: (T, K H), or (N, K H) where the layout is fixed."""
    wanted = head.all_states
    hidden = embed(w, config, seen, drop)
    found: dict[tuple[str, int], Tensor] = {("hidden", 0): hidden.to(w.dtype, copy=w.overwrites)}
    for number in range(1, max(number for _, number in wanted) + 1):  # those above are not computed
        parts = {part for part, of_layer in wanted if of_layer == number} - {"hidden"}
        found |= {(part, number): x for part, x in inner_states(w, config, number - 1, parts, hidden, seen).items()}
        if any(of_layer > number or (part, of_layer) == ("hidden", number) for part, of_layer in wanted):
            hidden = layer(prefix(number - 1), config, hidden, seen.attention, None, drop)
            found["hidden", number] = hidden.to(w.dtype, copy=w.overwrites)
    side_by_side = torch.cat([found[one] for one in wanted], 1)
    return {"hidden": side_by_side if seen.tokens is None else side_by_side.index_select(0, seen.tokens)}


def inner_states(
    w: ComputeWeights, config: ModelConfig, number: int, parts: AbstractSet[str], hidden: Tensor, seen: Seen
) -> Outputs:
    """(N, H) each: queries, keys, values, and what attention makes of them, without dropout, of one layer."""
    if not parts:
        return {}
    every = [f"{prefix(number)}attention.self.{part}" for part in QUERY_KEY_VALUE]
    if "context" in parts:
        joined = w.dense(hidden, *every)
        found = dict(zip(QUERY_KEY_VALUE, joined.chunk(3, 1), strict=True))
        softmax = torch.float32 if config.softmax == "fp32" else w.dtype
        return found | {"context": seen.attention((joined,), Dropout(), 0.0, softmax)}
    names = [part for part in QUERY_KEY_VALUE if part in parts]
    made = w.dense(hidden, *(f"{prefix(number)}attention.self.{part}" for part in names))
    return dict(zip(names, made.chunk(len(names), 1), strict=True))


def prefix(number: int) -> str:
    """How the names of this encoder layer's parameters begin."""
    return f"bert.encoder.layer.{number}."


def embed(w: ComputeWeights, config: ModelConfig, seen: Seen, drop: Dropout) -> Tensor:
    """-> (N, H)"""
    table = w.masters
    words = functional.embedding(seen.input_ids, table["bert.embeddings.word_embeddings.weight"])
    positions = functional.embedding(seen.position_ids, table["bert.embeddings.position_embeddings.weight"])
    types = w.of_few_rows(seen.token_type_ids, "bert.embeddings.token_type_embeddings.weight")
    summed = (words + positions + types).to(w.dtype)
    return drop(w.layer_norm(summed, "bert.embeddings.LayerNorm", config.layer_norm_eps), config.hidden_dropout_prob)


def encoder_layer(
    w: ComputeWeights,
    prefix: str,
    config: ModelConfig,
    x: Tensor,
    attention: Attention,
    asking: Tensor | None,
    drop: Dropout,
) -> Tensor:
    """(N, H) -> (N, H), or (W, H) where only the slots `asking` are wanted: then the others are keys and values.

    `prefix`: how the names of its parameters begin in `w`.
    """
    query, key, value = (f"{prefix}attention.self.{part}" for part in QUERY_KEY_VALUE)
    softmax = torch.float32 if config.softmax == "fp32" else w.dtype
    parts: tuple[Tensor, ...]
    if asking is None or attention.whole:
        parts = (w.dense(x, query, key, value),)  # (N, 3H)
    else:
        keys_values = w.dense(x, key, value)  # (N, 2H)
        x = x.index_select(0, asking)
        parts = w.dense(x, query), keys_values
    found = attention(parts, drop, config.attention_probs_dropout_prob, softmax)
    if asking is not None and attention.whole:
        x, found = x.index_select(0, asking), found.index_select(0, asking)
    x = w.add_and_norm(x, found, f"{prefix}attention.output", config, drop)
    return w.feed_forward(x, prefix, config, drop)


def pool(w: ComputeWeights, hidden: Tensor, seen: Seen) -> Tensor:
    """-> (B, H): a dense layer and tanh over each sequence's first token."""
    return torch.tanh(w.dense(hidden.index_select(0, seen.first), "bert.pooler.dense"))


def sequence_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Classification, of one label or several, regression and choices: logits (B, C)."""
    own = config.classifier_dropout
    pooled = drop(pool(w, hidden, seen), config.hidden_dropout_prob if own is None else own)
    return {"logits": w.dense_fp32(pooled, "classifier")}


def token_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Classes of the tokens: logits (T, C), or (N, C) where the layout is fixed."""
    if seen.tokens is not None:
        hidden = hidden.index_select(0, seen.tokens)
    own = config.classifier_dropout
    return {"logits": w.dense(drop(hidden, config.hidden_dropout_prob if own is None else own), "classifier").float()}


def span_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Start and end logits, (T,) each."""
    logits = w.dense(hidden, "qa_outputs").float()
    if seen.tokens is not None:
        logits = logits.index_select(0, seen.tokens)  # (T, 2)
    return {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}


def pretraining_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, seen: Seen, drop: Dropout) -> Outputs:
    """Masked-word logits (M, V) in the compute dtype, on the masked positions only, and next-sentence logits (B, 2)."""
    masked = hidden.index_select(0, seen.masked)  # (M, H)
    name = "cls.predictions.transform"
    masked = w.dense_active(masked, f"{name}.dense", config.hidden_act)
    masked = w.layer_norm(masked, f"{name}.LayerNorm", config.layer_norm_eps)
    logits = w.decode(masked, "bert.embeddings.word_embeddings.weight", "cls.predictions.bias")  # tied
    pooled = pool(w, hidden, seen)
    return {"masked_logits": logits, "logits": w.dense_fp32(pooled, "cls.seq_relationship")}


HEADS = {
    "classification": sequence_head,
    "multilabel": sequence_head,
    "regression": sequence_head,
    "choice": sequence_head,
    "tokens": token_head,
    "span": span_head,
    "pretraining": pretraining_head,
}
