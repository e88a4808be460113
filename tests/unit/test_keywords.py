"""`bertkit.recipes.keywords`: settings as keywords of a Python call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.recipes.keywords import MEANT, from_keywords, keywords
from bertkit.recipes.recipe import KEYS


def test_every_keyword_means_one_setting() -> None:
    known = keywords()
    assert set(known.values()) <= set(KEYS)
    assert known["learning_rate"] == "optimizer.learning_rate", "not phase 2's"
    assert {name: known[name] for name in MEANT} == MEANT
    assert {known[name] for name in ("task", "output", "seed", "backend", "precision")} == {
        "task", "output", "seed", "backend", "precision",
    }  # fmt: skip


def test_values_come_under_their_keys() -> None:
    given = {"model": Path("models/minilm"), "epochs": 3, "task": None}
    found = from_keywords(given, {"device.threads": 1, "log.every": 5, "train.steps": None})
    assert found == {"model.name": "models/minilm", "train.epochs": 3, "device.threads": 1, "log.every": 5}


@pytest.mark.parametrize(
    ("value", "plain"), [(np.float64(2e-5), 2e-5), (np.int64(3), 3), (np.bool_(True), True), (np.str_("a"), "a")]
)
def test_numbers_of_numpy_are_pythons(value: Any, plain: Any) -> None:
    (found,) = from_keywords({"epochs": value}).values()
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        ({"learning_rat": 1e-4}, {}, ("there is no keyword 'learning_rat'", "did you mean learning_rate")),
        ({"callback": []}, {}, ("there is no keyword 'callback'", "did you mean callbacks")),
        ({"every": 10}, {}, ("there is no keyword 'every'", "settings={…}", "log.every", "evaluation.every")),
        ({}, {"train.stepps": 1}, ("settings: there is no setting 'train.stepps'", "train.steps")),
        ({"epochs": 1}, {"train.epochs": 2}, ("train.epochs is given twice",)),
        ({"batch_size": 1}, {"train.batch_size": 2}, ("train.batch_size is given twice",)),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], settings: dict[str, Any], words: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as caught:
        from_keywords(given, settings, ("callbacks", "resume"))
    for word in words:
        assert word in str(caught.value)
