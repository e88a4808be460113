"""Metrics of GLUE and of own data: fractions of 1, not per cent.

Legend: N examples, C outputs of the head.
Source: Wang et al. 2018, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from bertkit.data.tasks.counts import areas, correlation, counted, ranks, scores_of_classes, scores_of_labels

Metrics = dict[str, float]  # by name


def probabilities(kind: str, logits: np.ndarray) -> np.ndarray:
    """(N, C) logits -> (N, C) float64: of classes that exclude one another, or of each label by itself."""
    values = logits.astype(np.float64)
    if kind == "multilabel":
        return np.asarray((1 + np.tanh(values / 2)) / 2)  # the logistic function, which overflows nowhere so
    values = np.exp(values - values.max(-1, keepdims=True))
    return np.asarray(values / values.sum(-1, keepdims=True))


def accuracy(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """(N, C), (N,) -> share of examples whose largest logit is the label's."""
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


def accuracy_and_f1(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, and F1 of class 1 (0 where class 1 is neither there nor predicted)."""
    wanted, found = ((classes == 1)[:, None].astype(np.int64) for classes in (labels, logits.argmax(-1)))
    return accuracy(logits, labels) | {"f1": scores_of_labels(wanted, found)[0]["macro_f1"]}


def matthews(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Matthews' correlation coefficient (0 where a class is missing), and accuracy."""
    found = scores_of_classes(counted(labels, logits.argmax(-1)))
    return {name: float(found[name][0]) for name in ("mcc", "accuracy")}


def correlations(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Pearson's and Spearman's correlation of the first output; 0 where one side is constant."""
    if len(labels) < 2 or not np.isfinite(logits[:, 0]).all():
        return {"pearson": 0.0, "spearman": 0.0}
    return {
        "pearson": correlation(logits[:, 0], labels),
        "spearman": correlation(ranks(logits[:, 0]), ranks(labels)),
    }


SMALLER_IS_BETTER = frozenset({"mae", "mse", "rmse", "loss", "perplexity", "state_loss"})


def worth(metric: str, score: float) -> float:
    """The score as a number of which a larger one is better; what is not finite is worth least."""
    if not math.isfinite(score):
        return -math.inf
    return -score if metric in SMALLER_IS_BETTER else score


# By the name of the metric that picks the best checkpoint: what computes it, and whether it is of classes.
METRICS: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray], Metrics], bool]] = {
    "accuracy": (accuracy, True),
    "f1": (accuracy_and_f1, True),
    "mcc": (matthews, True),
    "pearson": (correlations, False),
    "spearman": (correlations, False),
}


# ---- of users' own data ----


def class_scores(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """(N, C), (N,) -> accuracy, F1 over the classes that occur (macro, and weighted by support), Matthews'."""
    return {name: float(one[0]) for name, one in scores_of_classes(counted(labels, logits.argmax(-1))).items()}


def label_scores(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """(N, C), (N, C) of 0 and 1 -> F1 at probability 0.5, micro and macro; rows with all labels right; mean average
    precision over the labels that occur."""
    wanted = labels.astype(np.int64)
    precisions = [areas(there, scores)[1] for there, scores in zip(wanted.T == 1, logits.T, strict=True) if there.any()]
    precision = float(np.mean(precisions)) if precisions else 0.0
    return scores_of_labels(wanted, (logits >= 0).astype(np.int64))[0] | {"mean_average_precision": precision}


def target_scores(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """(N, C), (N,) or (N, C) -> correlations, and errors in the targets' unit; means over the targets."""
    wanted = labels.reshape(len(labels), -1).astype(np.float64)
    each = [correlations(logits[:, [column]], wanted[:, column]) for column in range(wanted.shape[1])]
    means = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
    errors = logits.astype(np.float64) - wanted
    return means | {"mae": float(np.abs(errors).mean()), "rmse": float(np.sqrt(np.square(errors).mean()))}


OWN_METRICS: Mapping[str, Callable[[np.ndarray, np.ndarray], Metrics]] = {
    "classification": class_scores,
    "multilabel": label_scores,
    "regression": target_scores,
}
# Those that can pick the best checkpoint, the usual one first.
PRIMARIES: Mapping[str, tuple[str, ...]] = {
    "classification": ("accuracy", "macro_f1", "weighted_f1", "mcc"),
    "multilabel": ("micro_f1", "macro_f1", "all_labels_right", "mean_average_precision"),
    "regression": ("pearson", "spearman", "mae", "rmse"),
}
