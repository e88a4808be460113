"""BERT: the encoder over N slots of any layout, and its four heads.

Legend: N slots, T tokens, B sequences, M masked positions, H hidden, V vocabulary, C outputs of the head.
Source: Devlin et al. 2018, arXiv:1810.04805. Parameters have Hugging Face's names (`bertkit.parameters`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bertkit.model_config import Head, ModelConfig
from bertkit_torch.attention import attend
from bertkit_torch.dropout import Dropout
from bertkit_torch.placement import Heads, Placed
from bertkit_torch.weights import ComputeWeights

Outputs = dict[str, Tensor]
Tensors = Mapping[str, Tensor]  # a batch's arrays on the device


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

    def forward(self, weights: ComputeWeights, placed: Placed, drop: Dropout) -> Outputs:
        """The head's logits, float32 (`bertkit.backend.Engine.predict` says which and their shapes)."""
        hidden = encode(weights, self.config, placed, drop)
        return HEADS[self.head.kind](weights, self.config, hidden, placed, drop)


def encode(w: ComputeWeights, config: ModelConfig, placed: Placed, drop: Dropout) -> Tensor:
    """-> (N, H) in the compute dtype; (W, H) where the head looks at W slots only."""
    table = w.masters
    words = functional.embedding(placed.input_ids, table["bert.embeddings.word_embeddings.weight"])
    positions = functional.embedding(placed.position_ids, table["bert.embeddings.position_embeddings.weight"])
    types = functional.embedding(placed.token_type_ids, table["bert.embeddings.token_type_embeddings.weight"])
    summed = (words + positions + types).to(w.dtype)
    hidden = drop(w.layer_norm(summed, "bert.embeddings.LayerNorm", config.layer_norm_eps), config.hidden_dropout_prob)
    for index in range(config.num_hidden_layers - 1):
        hidden = encoder_layer(w, f"bert.encoder.layer.{index}", config, hidden, placed.heads, None, drop)
    name = f"bert.encoder.layer.{config.num_hidden_layers - 1}"
    return encoder_layer(w, name, config, hidden, placed.last or placed.heads, placed.asking, drop)


def encoder_layer(
    w: ComputeWeights, name: str, config: ModelConfig, x: Tensor, heads: Heads, asking: Tensor | None, drop: Dropout
) -> Tensor:
    """(N, H) -> (N, H), or (W, H) where only the slots `asking` are wanted: then the others are keys and values."""
    query, key, value = (f"{name}.attention.self.{part}" for part in ("query", "key", "value"))
    parts: tuple[Tensor, ...]
    if asking is None:
        parts = (w.dense(x, query, key, value),)  # (N, 3H)
    else:
        keys_values = w.dense(x, key, value)  # (N, 2H)
        x = x.index_select(0, asking)
        parts = w.dense(x, query), keys_values
    softmax = torch.float32 if config.softmax == "fp32" else w.dtype
    found = attend(parts, heads, drop, config.attention_probs_dropout_prob, softmax)
    found = drop.add(x, w.dense(found, f"{name}.attention.output.dense"), config.hidden_dropout_prob)
    x = w.layer_norm(found, f"{name}.attention.output.LayerNorm", config.layer_norm_eps)
    inner = w.dense_active(x, f"{name}.intermediate.dense", config.hidden_act)  # (N, F)
    inner = drop.add(x, w.dense(inner, f"{name}.output.dense"), config.hidden_dropout_prob)
    return w.layer_norm(inner, f"{name}.output.LayerNorm", config.layer_norm_eps)


def pool(w: ComputeWeights, hidden: Tensor, placed: Placed) -> Tensor:
    """-> (B, H): a dense layer and tanh over each sequence's first token."""
    return torch.tanh(w.dense(hidden.index_select(0, placed.first), "bert.pooler.dense"))


def sequence_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, placed: Placed, drop: Dropout) -> Outputs:
    """Classification and regression: logits (B, C)."""
    own = config.classifier_dropout
    pooled = drop(pool(w, hidden, placed), config.hidden_dropout_prob if own is None else own)
    return {"logits": w.dense_fp32(pooled, "classifier")}


def span_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, placed: Placed, drop: Dropout) -> Outputs:
    """Start and end logits, (T,) each."""
    logits = w.dense(hidden, "qa_outputs").float().index_select(0, placed.tokens)  # (T, 2)
    return {"start_logits": logits[:, 0], "end_logits": logits[:, 1]}


def pretraining_head(w: ComputeWeights, config: ModelConfig, hidden: Tensor, placed: Placed, drop: Dropout) -> Outputs:
    """Masked-word logits (M, V), on the masked positions only, and next-sentence logits (B, 2)."""
    masked = hidden.index_select(0, placed.masked)  # (M, H)
    name = "cls.predictions.transform"
    masked = w.dense_active(masked, f"{name}.dense", config.hidden_act)
    masked = w.layer_norm(masked, f"{name}.LayerNorm", config.layer_norm_eps)
    decoder = w.cast("bert.embeddings.word_embeddings.weight")  # tied
    logits = functional.linear(masked, decoder, w.cast("cls.predictions.bias"))
    pooled = pool(w, hidden, placed)
    return {"masked_logits": logits.float(), "logits": w.dense_fp32(pooled, "cls.seq_relationship")}


HEADS = {
    "classification": sequence_head,
    "regression": sequence_head,
    "span": span_head,
    "pretraining": pretraining_head,
}
