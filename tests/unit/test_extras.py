"""Class weights, layer-wise rates and frozen layers: what the recipe's words become."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.features import Features
from bertkit.data.tasks import TASKS
from bertkit.data.tasks.task import Task
from bertkit.engine.interface import NO_LABEL, LossSpec
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit.model.config import ARCHITECTURES, Head, HeadKind
from bertkit.model.parameters import depth_of, frozen_names, rate_factors, shapes
from bertkit.recipes.resolve import resolve
from bertkit.training.extras import check_extras, class_weights, described, frozen

compute_class_weight = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight  # seconds to import
TINY = ARCHITECTURES["tiny"]


def task(kind: HeadKind = "classification", labels: tuple[str, ...] = ("bad", "fine", "good")) -> Task:
    return dataclasses.replace(TASKS["sst2"], name="own", head=Head(kind, len(labels)), labels=labels)


def features(labels: Any, name: str = "labels") -> Features:
    return Features(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(1, np.int64), {name: np.array(labels)})


def recipe(**settings: Any) -> Any:
    return resolve({key.replace("__", "."): value for key, value in settings.items()}).recipe


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_balanced_weights_are_scikit_learns(labels: list[int]) -> None:
    there = np.unique(labels)
    wanted = dict(zip(there, compute_class_weight("balanced", classes=there, y=labels), strict=True))
    found = class_weights("balanced", task(), features(labels))
    assert found == pytest.approx([wanted.get(number, 1.0) for number in range(3)])


def test_balanced_weights_of_several_labels_and_of_tokens() -> None:
    several = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]], np.float32)
    assert class_weights("balanced", task("multilabel"), features(several)) == (1.0, 3.0, 1.0)
    tokens = [0, NO_LABEL, 0, 0, 1, NO_LABEL]
    assert class_weights("balanced", task("tokens"), features(tokens, "token_labels")) == pytest.approx((2 / 3, 2, 1))


def test_given_weights_go_by_name() -> None:
    assert class_weights("good=2, bad=0.5", task(), features([])) == (0.5, 1.0, 2.0)
    assert class_weights("", task(), features([])) == ()
    assert described(LossSpec((0.5, 1, 2), 0.1), task()) == "class weights bad 0.5, fine 1, good 2; label smoothing 0.1"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("goood=2", "names no label"),
        ("good", "names no label"),
        ("good=much", "weight of good is 'much'"),
        ("good=-1", "weight of good is '-1'"),
        ("good=inf", "weight of good is 'inf'"),
        ("good=0,bad=0,fine=0", "all weights are 0"),
    ],
)
def test_weights_that_cannot_be(said: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        class_weights(said, task(), features([]))


def test_depths_of_all_parameters() -> None:
    names = list(shapes(TINY, Head("classification", 2)))
    depths = {name: depth_of(name, 2) for name in names}
    assert set(depths.values()) == {0, 1, 2, 3}
    assert {depths[name] for name in names if "embeddings" in name} == {0}
    assert {depths[name] for name in names if ".layer.1." in name} == {2}
    assert {depths[name] for name in names if "pooler" in name or "classifier" in name} == {3}
    factors = rate_factors(names, 0.5)
    assert all(factors[name] == 0.5 ** (3 - depths[name]) for name in names)
    assert set(rate_factors(names, 1.0).values()) == {1.0}


def test_what_is_frozen() -> None:
    head = Head("classification", 2)
    embeddings = [name for name in shapes(TINY, head) if "embeddings" in name]
    assert list(frozen(recipe(train__freeze="embeddings"), TINY, task())) == embeddings
    one = frozen(recipe(train__freeze=1), TINY, task())
    assert set(one) - set(embeddings) == {name for name in shapes(TINY, head) if ".layer.0." in name}
    encoder = frozen(recipe(train__freeze="encoder"), TINY, task())
    assert {name.partition(".")[0] for name in set(shapes(TINY, head)) - set(encoder)} == {"bert", "classifier"}
    assert frozen(recipe(), TINY, task()) == frozen_names(TINY, head, -1) == ()
    with pytest.raises(UserError, match="but the model has 2 layers"):
        frozen(recipe(train__freeze="3"), TINY, task())


@pytest.mark.parametrize(
    ("settings", "kind", "words"),
    [
        ({"loss__class_weights": "balanced"}, "regression", "loss.class_weights is not for own"),
        ({"loss__label_smoothing": 0.1}, "multilabel", "loss.label_smoothing is not for own"),
        ({"loss__focal_gamma": 2.0}, "span", "loss.focal_gamma is not for own"),
        ({"loss__focal_gamma": 2.0, "loss__label_smoothing": 0.1}, "classification", "exclude each other"),
    ],
)
def test_what_a_task_has_not(settings: dict[str, Any], kind: HeadKind, words: str) -> None:
    with pytest.raises(UserError, match=words):
        check_extras(find("cpu"), task(kind), recipe(**settings))


def test_what_a_backend_has_not() -> None:
    class Plain:
        name = "plain"
        capabilities = dataclasses.replace(find("cpu").capabilities, extras=())

    with pytest.raises(UserError, match=r"backend plain has no train\.freeze"):
        check_extras(Plain(), task(), recipe(train__freeze="encoder"))  # type: ignore[arg-type]
    check_extras(Plain(), task(), recipe())  # type: ignore[arg-type]
