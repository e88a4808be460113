"""The importance of attention heads with the CPU's engine."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bertkit.conformance.fixtures import MODEL, example_batch, job, train, with_settings  # noqa: E402
from bertkit.engine.interface import OptimizerSpec  # noqa: E402
from bertkit.training.pruning_heads import READS, slopes  # noqa: E402
from bertkit_cpu import CpuBackend  # noqa: E402

STEP = 0.05  # by which a head's output grows and shrinks


def loss(scaled: tuple[int, int, float] | None = None) -> tuple[float, np.ndarray]:
    """(the loss, every head's slope), one head's output being multiplied."""
    plain = job("classification")
    weights = {name: array * 3 if "attention" in name else array for name, array in plain.weights.items()}
    if scaled:
        layer, head, factor = scaled
        width = MODEL.hidden_size // MODEL.num_attention_heads
        array = weights[READS.format(layer)].copy()
        array[:, head * width : (head + 1) * width] *= factor
        weights[READS.format(layer)] = array
    spec = OptimizerSpec(beta1=0.0, clip_norm=0.0)
    engine = with_settings(CpuBackend(), dataclasses.replace(plain, weights=weights, optimizer=spec))
    found = train(engine, example_batch("classification"), "classification", 1)[0]
    return found, slopes(MODEL, weights, engine.state_dict())


def test_a_slope_is_what_a_mask_over_heads_changes() -> None:
    _, found = loss()
    assert found.shape == (MODEL.num_hidden_layers, MODEL.num_attention_heads)
    for layer, head in ((0, 1), (1, 3)):
        more, less = (loss((layer, head, 1 + sign * STEP))[0] for sign in (1, -1))
        assert found[layer, head] == pytest.approx((more - less) / (2 * STEP), rel=0.02, abs=1e-6)
    assert np.unique(found).size == found.size
