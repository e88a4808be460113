"""`bertkit.data.tasks.metrics` against values worked out by hand, degenerate cases among them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from bertkit.data.tasks.metrics import accuracy, accuracy_and_f1, correlations, matthews
from bertkit.data.tasks.task import Metrics


@pytest.fixture(autouse=True)
def _without_warnings() -> Iterator[None]:
    """A user is not to see what scikit-learn and scipy have to say of odd labels."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def logits(classes: Sequence[int], outputs: int = 2) -> np.ndarray:
    """Logits whose largest is the class's, the others not being equal."""
    return np.eye(outputs, dtype=np.float32)[list(classes)] * 5 - np.arange(outputs, dtype=np.float32)


def column(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def labels(*values: float) -> np.ndarray:
    return np.array(values, np.int64 if all(isinstance(value, int) for value in values) else np.float32)


def test_accuracy() -> None:
    assert accuracy(logits([0, 1, 2, 2], 3), labels(0, 1, 2, 0)) == {"accuracy": 0.75}
    assert accuracy(logits([1, 1]), labels(0, 0)) == {"accuracy": 0.0}
    assert accuracy(np.array([[-9.0, -8.0], [1e9, -1e9]]), labels(1, 0)) == {"accuracy": 1.0}


def test_accuracy_and_f1() -> None:
    # class 1: 2 true positives, 1 false positive, 1 false negative; precision and recall 2/3
    found = accuracy_and_f1(logits([1, 1, 1, 0, 0]), labels(1, 1, 0, 1, 0))
    assert found == pytest.approx({"accuracy": 3 / 5, "f1": 2 / 3})
    # precision 1/3, recall 1: 2 * (1/3) / (4/3)
    assert accuracy_and_f1(logits([1, 1, 1]), labels(1, 0, 0)) == pytest.approx({"accuracy": 1 / 3, "f1": 0.5})


@pytest.mark.parametrize(
    ("said", "true", "right", "f1"),
    [
        ([0, 0], [0, 0], 1.0, 0.0),  # class 1 is neither there nor predicted
        ([1, 1], [1, 1], 1.0, 1.0),
        ([0, 0], [1, 1], 0.0, 0.0),
        ([1, 1], [0, 0], 0.0, 0.0),
        ([0], [1], 0.0, 0.0),
    ],
)
def test_f1_where_classes_are_missing(said: list[int], true: list[int], right: float, f1: float) -> None:
    assert accuracy_and_f1(logits(said), labels(*true)) == {"accuracy": right, "f1": f1}


def test_matthews() -> None:
    # 2 true positives, 1 true negative, 1 false positive, 1 false negative: (2*1 - 1*1) / sqrt(3*3*2*2)
    found = matthews(logits([1, 1, 1, 0, 0]), labels(1, 1, 0, 1, 0))
    assert found == pytest.approx({"mcc": 1 / 6, "accuracy": 3 / 5})
    assert matthews(logits([0, 1, 0, 1]), labels(0, 1, 0, 1)) == pytest.approx({"mcc": 1.0, "accuracy": 1.0})
    assert matthews(logits([1, 0]), labels(0, 1)) == pytest.approx({"mcc": -1.0, "accuracy": 0.0})


@pytest.mark.parametrize(
    ("said", "true", "right"), [([1, 1], [0, 1], 0.5), ([0, 1], [1, 1], 0.5), ([1, 1], [1, 1], 1.0), ([0], [0], 1.0)]
)
def test_matthews_is_zero_where_a_class_is_missing(said: list[int], true: list[int], right: float) -> None:
    assert matthews(logits(said), labels(*true)) == {"mcc": 0.0, "accuracy": right}


def test_correlations() -> None:
    # deviations (-1, 0, 1) and (-4/3, -1/3, 5/3): 3 / sqrt(2 * 42/9); the ranks are the same
    found = correlations(column([1, 2, 3]), labels(0.0, 1.0, 3.0))
    assert found == pytest.approx({"pearson": 3 / math.sqrt(2 * 42 / 9), "spearman": 1.0})
    assert correlations(column([3, 2, 1]), labels(1.0, 2.0, 3.0)) == pytest.approx({"pearson": -1.0, "spearman": -1.0})
    # ranks (1, 2, 3, 4) and (1, 3, 2, 4): 1 - 6 * 2 / (4 * 15)
    assert correlations(column([1, 2, 3, 10]), labels(0.0, 3.0, 1.0, 4.0))["spearman"] == pytest.approx(0.8)


def test_correlations_look_at_the_first_output() -> None:
    both = np.array([[1.0, 9.0], [2.0, 5.0], [3.0, 7.0]])
    assert correlations(both, labels(1.0, 2.0, 3.0)) == pytest.approx({"pearson": 1.0, "spearman": 1.0})


@pytest.mark.parametrize(
    ("said", "true"),
    [
        ([2.5, 2.5, 2.5], [1.0, 2.0, 3.0]),
        ([1.0, 2.0, 3.0], [4.0, 4.0, 4.0]),
        ([1.0], [2.0]),
        ([], []),
        ([math.nan, 1.0, 2.0], [1.0, 2.0, 3.0]),
    ],
    ids=["constant logits", "constant labels", "one example", "none", "not a number"],
)
def test_correlations_are_zero_where_there_are_none(said: list[float], true: list[float]) -> None:
    found = correlations(column(said), np.array(true, np.float32))
    assert found == {"pearson": 0.0, "spearman": 0.0}


@pytest.mark.parametrize("score", [accuracy, accuracy_and_f1, matthews, correlations])
def test_metrics_are_plain_floats(score: Callable[[np.ndarray, np.ndarray], Metrics]) -> None:
    found = score(logits([0, 1, 1]), labels(0, 1, 0))
    assert {type(value) for value in found.values()} == {float}  # so that JSON can hold them
