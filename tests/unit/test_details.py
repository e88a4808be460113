"""What lies behind the metrics: equal to scikit-learn's; intervals equal to those of a plain bootstrap."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.tasks import details as d
from bertkit.data.tasks.metrics import class_scores, probabilities, target_scores

sklearn = pytest.importorskip("sklearn")
from sklearn import calibration, metrics  # noqa: E402

NAMES = ("a", "b", "c")


def drawn(examples: int = 400, seed: int = 1, classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    labels = stream.choice(classes, examples, p=np.array([0.6, 0.3, 0.1])[:classes] / sum([0.6, 0.3, 0.1][:classes]))
    logits = stream.normal(size=(examples, classes)) * 2
    logits[np.arange(examples), labels] += 1.5
    return logits.astype(np.float32), labels, stream.integers(3, 90, examples)


def test_classes_are_scikit_learns() -> None:
    logits, labels, sizes = drawn()
    made = d.class_details(logits, labels, NAMES, sizes)
    shares, found = probabilities("classification", logits), logits.argmax(-1)
    told = metrics.classification_report(labels, found, target_names=list(NAMES), output_dict=True)
    for one in made["classes"]:
        wanted = told[one["label"]]
        assert [one["precision"], one["recall"], one["f1"], one["support"]] == pytest.approx(
            [wanted["precision"], wanted["recall"], wanted["f1-score"], wanted["support"]]
        )
    assert made["confusion"] == metrics.confusion_matrix(labels, found).tolist()
    area = metrics.roc_auc_score(labels, shares / shares.sum(-1, keepdims=True), multi_class="ovr", average="macro")
    assert made["macro_auroc"] == pytest.approx(area)
    assert sum(one["predicted"] for one in made["classes"]) == len(labels)
    json.dumps(made, allow_nan=False)


def test_calibration_is_scikit_learns() -> None:
    """Of two classes: the share of rights in bins of the top probability, and its mean there."""
    logits, labels, sizes = drawn(classes=2)
    made = d.class_details(logits, labels, NAMES[:2], sizes)
    top, right = probabilities("classification", logits).max(-1), logits.argmax(-1) == labels
    accuracy, confidence = calibration.calibration_curve(right, top, n_bins=d.BINS)
    bins = made["calibration"]["bins"]
    assert [one["accuracy"] for one in bins] == pytest.approx(list(accuracy))
    assert [one["confidence"] for one in bins] == pytest.approx(list(confidence))
    assert made["calibration_at_temperature"]["ece"] < made["calibration"]["ece"]


def test_the_temperature_is_found_again() -> None:
    """Labels that are drawn by the probabilities of logits / 3 ask for a temperature of 3."""
    stream = np.random.default_rng(3)
    logits = stream.normal(size=(20_000, 4)) * 6
    shares = probabilities("classification", logits / 3)
    labels = (shares.cumsum(-1) > stream.random(len(logits))[:, None]).argmax(-1)
    assert d.fitted_temperature(logits, labels) == pytest.approx(3, rel=0.05)


def test_labels_are_scikit_learns() -> None:
    stream = np.random.default_rng(2)
    labels = (stream.random((300, 3)) < [0.5, 0.2, 0.05]).astype(np.float32)
    logits = (stream.normal(size=(300, 3)) + 2 * labels - 1).astype(np.float32)
    made = d.label_details(logits, labels, NAMES, stream.integers(3, 90, 300))
    told = metrics.classification_report(
        labels, logits >= 0, target_names=list(NAMES), output_dict=True, zero_division=0
    )
    for one in made["classes"]:
        assert one["f1"] == pytest.approx(told[one["label"]]["f1-score"])
    shares = probabilities("multilabel", logits)
    assert made["mean_average_precision"] == pytest.approx(metrics.average_precision_score(labels, shares))
    tuned = shares >= np.array(made["thresholds"])
    assert made["at_thresholds"]["tuned_micro_f1"] == pytest.approx(metrics.f1_score(labels, tuned, average="micro"))
    for number, one in enumerate(made["classes"]):
        assert metrics.f1_score(labels[:, number], tuned[:, number]) >= one["f1"] - 1e-12
    json.dumps(made, allow_nan=False)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=12))
def test_no_threshold_is_better(rows: list[tuple[bool, int]]) -> None:
    wanted, shares = np.array([row[0] for row in rows], int), np.array([row[1] / 6 for row in rows])
    threshold = d.best_threshold(wanted, shares)
    best = max(metrics.f1_score(wanted, shares >= at, zero_division=0) for at in [*set(shares), 0.5])
    assert metrics.f1_score(wanted, shares >= threshold, zero_division=0) == pytest.approx(best)


def test_intervals_are_those_of_a_plain_bootstrap() -> None:
    logits, labels, _ = drawn(150)
    found = d.class_intervals(labels, logits.argmax(-1))
    stream = np.random.default_rng(9)
    plain = []
    for _ in range(600):
        places = stream.integers(0, len(labels), len(labels))
        plain.append(class_scores(logits[places], labels[places]))
    for name, (low, high) in found.items():
        wanted = np.quantile([one[name] for one in plain], [0.025, 0.975])
        assert [low, high] == pytest.approx(list(wanted), abs=0.02), name
        assert low < class_scores(logits, labels)[name] < high


def test_intervals_of_labels_and_numbers_hold_their_metrics() -> None:
    stream = np.random.default_rng(2)
    labels = (stream.random((200, 3)) < 0.4).astype(int)
    found = np.where(stream.random((200, 3)) < 0.2, 1 - labels, labels)
    low, high = d.label_intervals(labels, found)["macro_f1"]
    assert low < metrics.f1_score(labels, found, average="macro") < high
    wanted = stream.normal(size=(200, 2))
    logits = wanted + stream.normal(size=(200, 2))
    made, scores = d.target_intervals(logits, wanted), target_scores(logits, wanted)
    for name, (low, high) in made.items():
        assert low < scores[name] < high


def test_numbers_and_the_worst_of_them() -> None:
    labels = np.array([1.0, 2.0, 3.0, 4.0])
    made = d.target_details(np.array([[1.0], [2.5], [3.0], [9.0]]), labels, (), np.array([5, 9, 5, 30]))
    assert made["targets"] == [
        {"label": "value", "mean": 2.5, "bias": 1.375, "mae": 1.375, "rmse": pytest.approx(2.512469)}
    ]
    assert [one["example"] for one in made["worst"]] == [3, 1]
    assert [part["error"] for part in made["by_length"]["parts"]] == [0.0, 0.0, 0.5, 5.0]


@pytest.mark.parametrize("labels", [[0, 0, 0], [2, 2, 2]])
def test_a_single_class_has_no_area(labels: list[int]) -> None:
    made = d.class_details(np.eye(3, dtype=np.float32), np.array(labels), NAMES, np.array([3, 4, 5]))
    assert made["macro_auroc"] is None
    json.dumps(made, allow_nan=False)
