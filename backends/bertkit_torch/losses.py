"""The heads' losses, each a sum over this micro-batch divided by the number of labels in the whole global batch.

So the sum over micro-batches and ranks is the mean over the global batch, however it was split.

Legend: T tokens, B sequences, M masked positions, C outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from bertkit.model_config import HeadKind
from bertkit_torch.bert import Outputs, Tensors


def loss(kind: HeadKind, outputs: Outputs, batch: Tensors, counts: Mapping[str, int]) -> Tensor:
    """The scalar to differentiate."""
    sequences = counts["sequences"]
    if kind == "classification":
        return _cross_entropy(outputs["logits"], batch["labels"]) / sequences
    if kind == "regression":  # mean squared error
        return functional.mse_loss(outputs["logits"][:, 0], batch["labels"].float(), reduction="sum") / sequences
    if kind == "span":  # mean of the start's and the end's
        start = _cross_entropy(_by_sequence(outputs["start_logits"], batch), batch["start_positions"])
        end = _cross_entropy(_by_sequence(outputs["end_logits"], batch), batch["end_positions"])
        return (start + end) / (2 * sequences)
    masked = _cross_entropy(outputs["masked_logits"], batch["masked_labels"]) / max(1, counts["masked"])
    return masked + _cross_entropy(outputs["logits"], batch["labels"]) / sequences


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="sum")


def _by_sequence(logits: Tensor, batch: Tensors) -> Tensor:
    """(T,) -> (B, longest), minus infinity behind each sequence's end."""
    starts = batch["cu_seqlens"][:-1]
    lengths = batch["cu_seqlens"][1:] - starts
    columns = torch.arange(int(lengths.max()), device=logits.device)
    real = columns < lengths[:, None]
    places = (starts[:, None] + columns).where(real, starts[:, None])
    return logits[places].masked_fill(~real, float("-inf"))
