"""GLUE's metrics, by scikit-learn and scipy: fractions of 1, not per cent.

Legend: N examples, C outputs of the head.
Source: Wang et al. 2018, arXiv:1804.07461, table 1.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np

from bertkit.data.tasks.task import Metrics


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


# By the name of the metric that picks the best checkpoint: what computes it, and whether it is of classes.
METRICS: Mapping[str, tuple[Callable[[np.ndarray, np.ndarray], Metrics], bool]] = {
    "accuracy": (accuracy, True),
    "f1": (accuracy_and_f1, True),
    "mcc": (matthews, True),
    "pearson": (correlations, False),
    "spearman": (correlations, False),
}
