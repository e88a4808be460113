"""What a resume on another number of processes says of dropout."""

from __future__ import annotations

import dataclasses

import pytest

from bertkit.distributed.world import World
from bertkit.model.checkpoint import Progress
from bertkit.model.config import ModelConfig
from bertkit.training.resume import other_masks

MODEL = ModelConfig(8, 1, 2, 16)
NONE = dataclasses.replace(MODEL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


@pytest.mark.parametrize(
    ("before", "now", "model", "said"),
    [
        (2, 1, MODEL, True), (1, 2, MODEL, True), (2, 2, MODEL, False), (0, 2, MODEL, False), (2, 1, NONE, False),
        (2, 1, dataclasses.replace(NONE, classifier_dropout=0.1), True),
        (2, 1, dataclasses.replace(NONE, attention_probs_dropout_prob=0.1), True),
    ],
)  # fmt: skip
def test_other_masks_are_warned_of(before: int, now: int, model: ModelConfig, said: bool) -> None:
    remark = other_masks(Progress(3, {}, processes=before), model, World(0, now))
    assert bool(remark) == said
    assert not said or f"processes: {now}, {before} before" in remark
