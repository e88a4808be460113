"""Scores of labels, all from how often each was said where each was right; one definition for a set of examples and
for the thousand sets that are drawn from it.

Not by scikit-learn, whose import takes one CPU second of every process that evaluates, of each rank; the tests hold
every figure here to its.

Legend: N examples, C classes or labels, K cells of the confusion matrix that hold something, R draws, 1 for the set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassCounts:
    """Of each class that is there or was said."""

    names: np.ndarray  # (classes,) their numbers
    support: np.ndarray  # (R, classes) examples of it
    said: np.ndarray  # (R, classes) examples that were given it
    right: np.ndarray  # (R, classes) both
    total: int  # examples


def cells(labels: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(N,), (N,) -> the cells of the confusion matrix that hold something: rows, columns and counts, (K,) each."""
    classes = int(max(labels.max(initial=0), found.max(initial=0))) + 1
    places, counts = np.unique(labels.astype(np.int64) * classes + found, return_counts=True)
    rows, columns = np.divmod(places, classes)
    return rows, columns, counts


def by_class(rows: np.ndarray, columns: np.ndarray, counts: np.ndarray) -> ClassCounts:
    """Sums of the cells; `counts`: (R, K)."""
    names = np.unique(np.concatenate([rows, columns]))
    hits = np.where(rows == columns, counts, 0)
    support, said, right = (
        np.stack([what[:, place == name].sum(1) for name in names], 1)
        for what, place in ((counts, rows), (counts, columns), (hits, rows))
    )
    return ClassCounts(names=names, support=support, said=said, right=right, total=int(counts[0].sum()))


def counted(labels: np.ndarray, found: np.ndarray) -> ClassCounts:
    """(N,), (N,) -> the counts of these examples, R = 1."""
    rows, columns, counts = cells(labels, found)
    return by_class(rows, columns, counts[None])


def scores_of_classes(counts: ClassCounts) -> dict[str, np.ndarray]:
    """(R,) each: accuracy, F1 over the classes that occur (macro, and weighted by support), Matthews' correlation
    (0 where a class is missing)."""
    f1 = ratio(2 * counts.right, counts.support + counts.said)
    occurring = (counts.support + counts.said > 0).sum(1)
    total, correct = counts.total, counts.right.sum(1)
    spread = np.sqrt((total**2 - (counts.said**2).sum(1)) * (total**2 - (counts.support**2).sum(1)).astype(np.float64))
    cross = correct * total - (counts.said * counts.support).sum(1)
    return {
        "accuracy": correct / total,
        "macro_f1": f1.sum(1) / np.maximum(1, occurring),
        "weighted_f1": (f1 * counts.support).sum(1) / total,
        "mcc": ratio(cross, spread),
    }


def scores_of_labels(
    wanted: np.ndarray, found: np.ndarray, draws: Iterable[np.ndarray] | None = None
) -> list[dict[str, float]]:
    """(N, C), (N, C) of 0 and 1 -> F1, micro and macro, and the share of rows with all labels right.

    Of each of `draws`, (N,) how often each row counts; without them of the rows as they are.
    """
    hits, both, whole = wanted * found, wanted + found, (wanted == found).all(-1)
    made = []
    for times in [np.ones(len(wanted), np.int64)] if draws is None else draws:
        right, sums = times @ hits, times @ both
        made.append(
            {
                "micro_f1": float(ratio(2 * right.sum(), sums.sum())),
                "macro_f1": float(ratio(2 * right, sums).mean()),
                "all_labels_right": float(times @ whole / len(wanted)),
            }
        )
    return made


def areas(there: np.ndarray, scores: np.ndarray) -> tuple[float, float]:
    """(N,) of bool, (N,) -> the area under the receiver operating characteristic, and average precision: the sum over
    the thresholds of the precision there times what the recall grows by. Both need examples of either kind."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # equal scores have one threshold
    hits = np.cumsum(there[order])[ends].astype(np.float64)
    said = ends + 1.0
    recall = np.append(0.0, hits / hits[-1])
    misses = np.append(0.0, (said - hits) / max(1.0, said[-1] - hits[-1]))
    area = float((np.diff(misses) * (recall[1:] + recall[:-1]) / 2).sum())
    return area, float((np.diff(recall) * (hits / said)).sum())


def correlation(found: np.ndarray, wanted: np.ndarray) -> float:
    """(N,), (N,) -> Pearson's correlation; 0 where one side is constant."""
    if not (np.ptp(found) and np.ptp(wanted)):  # before the mean, whose rounding would leave something
        return 0.0
    found, wanted = (values.astype(np.float64) - values.astype(np.float64).mean() for values in (found, wanted))
    return float(np.clip(ratio(found @ wanted, np.sqrt((found @ found) * (wanted @ wanted))), -1.0, 1.0))


def ranks(values: np.ndarray) -> np.ndarray:
    """(N,) -> the place of each in order, from 1; equal ones share the mean of their places."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse])


def ratio(above: Any, below: Any) -> np.ndarray:
    """above / below, 0 where `below` is 0."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.asarray(np.divide(above, below, out=np.zeros(np.broadcast(above, below).shape), where=below > 0))
