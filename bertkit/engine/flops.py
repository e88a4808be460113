"""Model FLOPs by formula, for model-FLOP utilisation: what the model needs, not what an implementation spends.

Forward, for a sequence of real length L: n * (8*H^2*L + 4*H*F*L + 4*H*L^2) for the n encoder layers (with F = 4H this
is n * (24*H^2*L + 4*H*L^2)), 2*(H^2 + H*V) for each predicted masked position, 2*H^2 + 2*H*C for a pooled head,
2*H*C*L for a head over all tokens; of an encoder alone, the layers up to the last that is wanted. Training is three
times the forward pass. Recomputation, LayerNorm, GELU, dropout and the optimizer are not counted.

Legend: n layers, H hidden, F intermediate, V vocabulary, C outputs of the head, L tokens of a sequence.
Source: Narayanan et al. 2021, arXiv:2104.04473, appendix, without its padding.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from bertkit.engine.interface import Batch, sequence_lengths
from bertkit.model.config import Head, ModelConfig

Formula = Callable[[ModelConfig, Head, np.ndarray, int], float]


def forward_flops(config: ModelConfig, head: Head, lengths: np.ndarray, masked: int = 0) -> float:
    """FLOPs of one forward pass over sequences of these lengths, `masked` positions predicted in all."""
    hidden, inner = config.hidden_size, config.intermediate_size
    tokens = float(lengths.sum())
    squares = float(np.square(lengths.astype(np.float64)).sum())
    layers = (8 * hidden**2 + 4 * hidden * inner) * tokens + 4 * hidden * squares
    if head.kind == "encoder":
        return max(layer for _, layer in head.all_states) * layers
    total = config.num_hidden_layers * layers
    if not head.pooled:
        return total + 2 * hidden * head.logits_each * tokens
    total += 2 * hidden * (hidden + head.logits_each) * len(lengths)
    return total + 2 * masked * (hidden**2 + hidden * config.vocab_size)


def training_flops(config: ModelConfig, head: Head, lengths: np.ndarray, masked: int = 0) -> float:
    """FLOPs of forward and backward pass: the backward pass is counted as two forward ones."""
    return 3 * forward_flops(config, head, lengths, masked)


def of_batch(formula: Formula, config: ModelConfig, head: Head, batch: Batch) -> float:
    """FLOPs by one of the formulas over a batch; only a pre-training batch has masked positions."""
    return formula(config, head, sequence_lengths(batch), len(batch.get("masked_positions", ())))
