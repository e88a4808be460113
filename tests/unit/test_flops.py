"""`bertkit.engine.flops` against published costs of a sequence (GFLOP, rounded there to three digits)."""

from __future__ import annotations

import numpy as np
import pytest

from bertkit.engine.flops import forward_flops, training_flops
from bertkit.model.config import ARCHITECTURES, Head, ModelConfig

PAIR, SPAN, PRETRAINING = Head("classification", 2), Head("span", 2), Head("pretraining", 2)


def spread(mean: float, mean_square: float) -> np.ndarray:
    """Two lengths with this mean and this mean of squares."""
    deviation = (mean_square - mean**2) ** 0.5
    return np.array([mean - deviation, mean + deviation])


COSTS = [  # head, lengths, masked positions of a sequence, base forward, base training, large forward, large training
    pytest.param(PRETRAINING, np.array([128]), 20, 23.3, 69.9, 80.2, 240.6, id="phase 1, 128"),
    pytest.param(PRETRAINING, np.array([512]), 77, 100.3, 301.0, 340.0, 1020, id="phase 2, 512"),
    pytest.param(PRETRAINING, spread(254.4, 94e3), 38.2, 48.5, 145.6, 165.4, 496.2, id="phase 2, real lengths"),
    pytest.param(SPAN, np.array([384]), 0, 70.7, 212.0, 246.4, 739.3, id="SQuAD padded to 384"),
    pytest.param(SPAN, spread(178.5, 36554), 0, 31.7, 95.0, 111.4, 334.2, id="SQuAD, real lengths"),
    pytest.param(PAIR, np.array([128]), 0, 22.4, 67.1, 78.9, 236.8, id="MRPC padded to 128"),
    pytest.param(PAIR, spread(53.2, 3003), 0, 9.15, 27.5, 32.4, 97.3, id="MRPC, real lengths"),
]


@pytest.mark.parametrize(("head", "lengths", "masked", "base", "base_training", "large", "large_training"), COSTS)
def test_costs_of_a_sequence(
    head: Head,
    lengths: np.ndarray,
    masked: float,
    base: float,
    base_training: float,
    large: float,
    large_training: float,
) -> None:
    all_masked = masked * len(lengths)

    def giga(function: object, name: str) -> float:
        assert callable(function)
        return float(function(ARCHITECTURES[name], head, lengths, all_masked)) / len(lengths) / 1e9

    assert giga(forward_flops, "base") == pytest.approx(base, rel=5e-3)
    assert giga(training_flops, "base") == pytest.approx(base_training, rel=5e-3)
    assert giga(forward_flops, "large") == pytest.approx(large, rel=5e-3)
    assert giga(training_flops, "large") == pytest.approx(large_training, rel=5e-3)


def test_by_hand() -> None:
    """n 2, H 4, F 8 (not 4 H), V 10; two sequences of 3 and 1 tokens."""
    config = ModelConfig(4, 2, 2, 8, vocab_size=10)
    lengths = np.array([3, 1])
    layers = 2 * ((8 * 16 + 4 * 4 * 8) * 4 + 4 * 4 * (9 + 1))
    assert forward_flops(config, Head("classification", 3), lengths) == layers + 2 * (2 * 16 + 2 * 4 * 3)
    assert forward_flops(config, Head("regression", 1), lengths) == layers + 2 * (2 * 16 + 2 * 4 * 1)
    assert forward_flops(config, SPAN, lengths) == layers + 2 * 4 * 2 * 4
    predicted = 2 * 5 * (16 + 4 * 10)
    assert forward_flops(config, PRETRAINING, lengths, 5) == layers + 2 * (2 * 16 + 2 * 4 * 2) + predicted


def test_no_sequences_cost_nothing() -> None:
    assert training_flops(ARCHITECTURES["base"], PAIR, np.empty(0, np.int64)) == 0


def test_lengths_of_a_small_type_do_not_overflow() -> None:
    many = np.full(1000, 512, np.int32)
    assert forward_flops(ARCHITECTURES["base"], PAIR, many) == pytest.approx(
        1000 * forward_flops(ARCHITECTURES["base"], PAIR, np.array([512]))
    )
