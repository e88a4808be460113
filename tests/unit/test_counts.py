"""Every figure of `bertkit.data.tasks.counts` against scikit-learn's and scipy's, on labels drawn by hypothesis."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.tasks.counts import areas, correlation, counted, ranks, scores_of_classes, scores_of_labels

metrics = pytest.importorskip("sklearn.metrics")
stats = pytest.importorskip("scipy.stats")
SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, examples=st.integers(1, 60), classes=st.integers(1, 6))
def test_classes(seed: int, examples: int, classes: int) -> None:
    stream = np.random.default_rng(seed)
    labels, found = stream.integers(0, classes, (2, examples))
    made = {name: values[0] for name, values in scores_of_classes(counted(labels, found)).items()}
    f1 = {
        f"{name}_f1": metrics.f1_score(labels, found, average=name, zero_division=0) for name in ("macro", "weighted")
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a single label
        mcc = metrics.matthews_corrcoef(labels, found)
    wanted = f1 | {"mcc": mcc, "accuracy": metrics.accuracy_score(labels, found)}
    assert made == pytest.approx(wanted, abs=1e-12)


@given(seed=SEEDS, examples=st.integers(1, 40), count=st.integers(2, 5))
def test_labels(seed: int, examples: int, count: int) -> None:
    stream = np.random.default_rng(seed)
    wanted, found = (stream.random((examples, count)) < stream.random(count) for _ in range(2))
    (made,) = scores_of_labels(wanted.astype(np.int64), found.astype(np.int64))
    f1 = {f"{name}_f1": metrics.f1_score(wanted, found, average=name, zero_division=0) for name in ("micro", "macro")}
    assert made == pytest.approx(f1 | {"all_labels_right": metrics.accuracy_score(wanted, found)}, abs=1e-12)


@given(seed=SEEDS, examples=st.integers(2, 60), distinct=st.integers(1, 30))
def test_areas(seed: int, examples: int, distinct: int) -> None:
    stream = np.random.default_rng(seed)
    there = stream.permutation(np.arange(examples) < stream.integers(1, examples))
    scores = stream.integers(0, distinct, examples) / 7
    wanted = metrics.roc_auc_score(there, scores), metrics.average_precision_score(there, scores)
    assert areas(there, scores) == pytest.approx(wanted, abs=1e-12)
    whole = np.ones(examples, bool)
    assert areas(whole, scores)[1] == pytest.approx(metrics.average_precision_score(whole, scores), abs=1e-12)


@given(seed=SEEDS, examples=st.integers(2, 60), distinct=st.integers(2, 30))
def test_correlations(seed: int, examples: int, distinct: int) -> None:
    stream = np.random.default_rng(seed)
    found = (stream.integers(0, distinct, examples) * 0.1).astype(np.float32)
    wanted = stream.integers(0, distinct, examples) * 0.3
    assert ranks(found) == pytest.approx(stats.rankdata(found))
    if np.ptp(found) and np.ptp(wanted):
        assert correlation(found, wanted) == pytest.approx(stats.pearsonr(found, wanted)[0], abs=1e-6)
        assert correlation(ranks(found), ranks(wanted)) == pytest.approx(stats.spearmanr(found, wanted)[0], abs=1e-12)
    else:
        assert correlation(found, wanted) == 0.0
