"""Metrics of GLUE and of own data, by scikit-learn and scipy: fractions of 1, not per cent.

Legend: N examples, C outputs of the head.
Source: Wang et al. 2018, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import numpy as np

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
    from sklearn.metrics import accuracy_score

    return {"accuracy": float(accuracy_score(labels, logits.argmax(-1)))}


def accuracy_and_f1(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Accuracy, and F1 of class 1 (0 where class 1 is neither there nor predicted)."""
    from sklearn.metrics import f1_score

    f1 = float(f1_score(labels, logits.argmax(-1), zero_division=0))
    return accuracy(logits, labels) | {"f1": f1}


def matthews(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Matthews' correlation coefficient (0 where a class is missing), and accuracy."""
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning about a single label is answered by the 0 above
        mcc = float(matthews_corrcoef(labels, logits.argmax(-1)))
    return {"mcc": mcc} | accuracy(logits, labels)


def correlations(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """Pearson's and Spearman's correlation of the first output; 0 where one side is constant."""
    from scipy.stats import pearsonr, spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning about constant input is answered by the 0 below
        found = {
            "pearson": float(pearsonr(logits[:, 0], labels)[0]) if len(labels) > 1 else 0.0,
            "spearman": float(spearmanr(logits[:, 0], labels)[0]) if len(labels) > 1 else 0.0,
        }
    return {name: value if np.isfinite(value) else 0.0 for name, value in found.items()}


SMALLER_IS_BETTER = frozenset({"mae", "mse", "rmse", "loss", "perplexity"})


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
    from sklearn.metrics import f1_score

    found = logits.argmax(-1)
    averages = ("macro", "weighted")
    f1 = {f"{name}_f1": float(f1_score(labels, found, average=name, zero_division=0)) for name in averages}
    return accuracy(logits, labels) | f1 | {"mcc": matthews(logits, labels)["mcc"]}


def label_scores(logits: np.ndarray, labels: np.ndarray) -> Metrics:
    """(N, C), (N, C) of 0 and 1 -> F1 at probability 0.5, micro and macro; rows with all labels right; mean average
    precision over the labels that occur."""
    from sklearn.metrics import accuracy_score, average_precision_score, f1_score

    wanted, found = labels.astype(np.int64), (logits >= 0).astype(np.int64)
    occurring = wanted.any(0)
    precision = average_precision_score(wanted[:, occurring], logits[:, occurring]) if occurring.any() else 0.0
    return {
        "micro_f1": float(f1_score(wanted, found, average="micro", zero_division=0)),
        "macro_f1": float(f1_score(wanted, found, average="macro", zero_division=0)),
        "all_labels_right": float(accuracy_score(wanted, found)),
        "mean_average_precision": float(precision),
    }


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
