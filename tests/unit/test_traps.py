"""Traps of a comparison that no other test is about; docs/comparability.md lists all of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pytest

from bertkit.data.tasks.metrics import accuracy
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.training.evaluation import check_finite, predict
from ragged import features_of

HEAD = Head("classification", 2)


def test_a_metric_is_over_all_examples_not_a_mean_of_batches() -> None:
    """Batches of 4 and 1: right are 4 of 4 and 0 of 1, so 0.8; the batches' mean would be 0.5."""
    engine = Answers(wrong={4})
    features = features_of([3] * 5)
    logits = predict(engine, HEAD, features, 4, World())["logits"]  # type: ignore[arg-type]
    assert engine.batches == [4, 1]
    assert accuracy(logits, np.zeros(5, np.int64)) == {"accuracy": 0.8}


@pytest.mark.parametrize("gathered", [[0, 1, 2, 3, 3], [0, 1, 2, 3], [0, 1, 2, 3, 4, 4]])
def test_a_doubled_or_missing_prediction_is_refused(gathered: list[int]) -> None:
    engine = Answers(gathered=gathered)
    with pytest.raises(RuntimeError, match=r"\d predictions for 5 examples"):
        predict(engine, HEAD, features_of([3] * 5), 4, World())  # type: ignore[arg-type]


class Answers:
    """An engine that says class 0, save for the examples in `wrong`; `gathered` is what comes of the numbers."""

    def __init__(self, wrong: Collection[int] = (), gathered: list[int] | None = None) -> None:
        self.wrong, self.gathered = wrong, gathered
        self.batches: list[int] = []

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        self.batches.append(len(batch["example_ids"]))
        said = [1 if number in self.wrong else 0 for number in batch["example_ids"]]
        return {"logits": np.eye(2, dtype=np.float32)[said]}

    def gather(self, rows: np.ndarray) -> np.ndarray:
        if self.gathered is not None and rows.ndim == 1:
            return np.array(self.gathered)
        return rows


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_are_counted_and_are_no_answer(value: float) -> None:
    """Of 5 examples the logits of the 2nd and 4th are not finite; argmax would call NaN class 0."""
    features = features_of([3, 2, 4, 1, 2])
    logits = np.zeros((5, 2), np.float32)
    check_finite({"logits": logits}, features, "dev.tsv")
    logits[1, 1] = logits[3, 0] = value
    with pytest.raises(UserError, match=r"dev\.tsv: 2 of 5 examples have logits that are not finite \(.* 0: 1\)"):
        check_finite({"logits": logits}, features, "dev.tsv")


def test_windows_with_logits_that_are_not_finite_are_counted() -> None:
    """Tokens 2 and 4 are of windows 0 and 1, 9 is the third's; two windows in all, whichever output it is."""
    features = features_of([3, 2, 5, 1])
    starts, ends = np.zeros(11, np.float32), np.zeros(11, np.float32)
    check_finite({"start_logits": starts, "end_logits": ends}, features, "dev.json")
    starts[9] = np.nan
    ends[8] = ends[4] = np.inf
    with pytest.raises(UserError, match=r"dev\.json: 2 of 4 windows have .* \(the first, from 0: 1\)"):
        check_finite({"start_logits": starts, "end_logits": ends}, features, "dev.json")
