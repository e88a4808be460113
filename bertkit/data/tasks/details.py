"""What lies behind the metrics of labels and numbers: each class by itself, confusions, calibration, the worst errors,
errors by length, and how far the metrics would move on another draw of examples.

Metrics are scikit-learn's. Calibration: the expected error of Guo et al. 2017, arXiv:1706.04599, in bins of equal
width. Intervals: percentiles of the bootstrap (Efron 1979) over examples.

Legend: N examples, C classes or labels, R resamples.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertkit.data.tasks.metrics import probabilities

BINS = 15  # of probabilities, as in Guo et al.
RESAMPLES, SEED, LEVEL = 1000, 1, 0.95
MOST_CONFUSED = 100  # classes, beyond which there is no whole matrix
WORST = 100  # examples that are kept
LENGTHS = 5  # parts of the examples by length
Details = dict[str, Any]  # as JSON has it


def class_details(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], sizes: np.ndarray) -> Details:
    """(N, C), (N,) -> of classes that exclude one another. `sizes`: (N,) tokens of each example."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    shares, found, every = probabilities("classification", logits), logits.argmax(-1), range(logits.shape[1])
    each = precision_recall_fscore_support(labels, found, labels=list(every), zero_division=0)
    areas = [_areas(labels == number, shares[:, number]) for number in every]
    temperature = fitted_temperature(logits, labels)
    cooled = probabilities("classification", logits / temperature)
    right = found == labels
    made: Details = {
        "examples": len(labels),
        "classes": _by_name(names, each, areas, np.bincount(found, minlength=len(names))),
        "macro_auroc": _mean([one["auroc"] for one in areas]),
        "mean_average_precision": _mean([one["average_precision"] for one in areas]),
        "calibration": _calibration(shares.max(-1), right),
        "temperature": temperature,
        "calibration_at_temperature": _calibration(cooled.max(-1), right),
        "intervals": class_intervals(labels, found),
        "by_length": _by_length(sizes, ~right, "error rate"),
        "worst": [
            {"example": int(at), "label": names[labels[at]], "said": names[found[at]], "probability": _short(value)}
            for at, value in _largest(np.where(right, 0.0, shares.max(-1)))
        ],
    }
    if len(names) <= MOST_CONFUSED:
        made["confusion"] = confusion_matrix(labels, found, labels=list(every)).tolist()
    return made


def label_details(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], sizes: np.ndarray) -> Details:
    """(N, C), (N, C) of 0 and 1 -> of labels any number of which may apply."""
    from sklearn.metrics import precision_recall_fscore_support

    shares, wanted = probabilities("multilabel", logits), labels.astype(np.int64)
    found = (shares >= 0.5).astype(np.int64)
    each = precision_recall_fscore_support(wanted, found, zero_division=0)
    areas = [_areas(wanted[:, number] == 1, shares[:, number]) for number in range(len(names))]
    thresholds = [best_threshold(wanted[:, number], shares[:, number]) for number in range(len(names))]
    wrong = (found != wanted).sum(-1)
    return {
        "examples": len(labels),
        "classes": _by_name(names, each, areas, found.sum(0)),
        "macro_auroc": _mean([one["auroc"] for one in areas]),
        "mean_average_precision": _mean([one["average_precision"] for one in areas]),
        "calibration": _calibration(np.maximum(shares, 1 - shares).ravel(), (found == wanted).ravel()),
        "thresholds": thresholds,
        "at_thresholds": at_thresholds(labels, shares, thresholds),
        "intervals": label_intervals(wanted, found),
        "by_length": _by_length(sizes, wrong > 0, "share of rows with a wrong label"),
        "worst": [
            {"example": int(at), "label": _chosen(names, wanted[at]), "said": _chosen(names, found[at])}
            for at, value in _largest(np.where(wrong, np.abs(shares - wanted).max(-1), 0.0))
        ],
    }


def target_details(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], sizes: np.ndarray) -> Details:
    """(N, C), (N,) or (N, C) -> of numbers."""
    wanted = labels.reshape(len(labels), -1).astype(np.float64)
    error = logits.astype(np.float64) - wanted
    most = np.abs(error).max(-1)
    return {
        "examples": len(labels),
        "targets": [
            {
                "label": name,
                "mean": float(wanted[:, number].mean()),
                "bias": float(error[:, number].mean()),
                "mae": float(np.abs(error[:, number]).mean()),
                "rmse": float(np.sqrt(np.square(error[:, number]).mean())),
            }
            for number, name in enumerate(names or ["value"])
        ],
        "intervals": target_intervals(logits.astype(np.float64), wanted),
        "by_length": _by_length(sizes, np.abs(error).mean(-1), "mean absolute error"),
        "worst": [
            {"example": int(at), "label": _shorts(wanted[at]), "said": _shorts(logits[at])}
            for at, value in _largest(most)
        ],
    }


DETAILS: Mapping[str, Callable[[np.ndarray, np.ndarray, Sequence[str], np.ndarray], Details]] = {
    "classification": class_details,
    "multilabel": label_details,
    "regression": target_details,
}


def behind(
    kind: str, logits: np.ndarray, labels: np.ndarray | None, names: Sequence[str], sizes: np.ndarray
) -> Callable[[], Details] | None:
    """What works the details out; None where there are no labels, or none of these kinds."""
    if labels is None or kind not in DETAILS or not len(labels):
        return None
    return functools.partial(DETAILS[kind], logits, labels, names, sizes)


# ---- calibration ----


def fitted_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """What the logits are divided by so that the labels are most likely; within 1/20 and 20."""
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    values = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        likely = log_softmax(values / np.exp(log_temperature), axis=-1)
        return float(-likely[np.arange(len(labels)), labels].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-np.log(20), np.log(20)), method="bounded").x))


def best_threshold(wanted: np.ndarray, shares: np.ndarray) -> float:
    """The probability above which F1 of one label is largest, midway between two examples'; 0.5 where none has it."""
    order = np.argsort(-shares, kind="stable")
    hits = np.cumsum(wanted[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + max(1, wanted.sum()))
    sorted_shares = shares[order]
    ends = np.append(sorted_shares[1:] != sorted_shares[:-1], True)  # of equal ones all or none
    if not hits[-1]:
        return 0.5
    best = int(np.where(ends, f1, -1.0).argmax())
    after = sorted_shares[best + 1] if best + 1 < len(order) else 0.0
    return float((sorted_shares[best] + after) / 2)


def at_thresholds(labels: np.ndarray, shares: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
    """(N, C), (N, C), (C,) -> F1, micro and macro, where a label applies from its own threshold on."""
    from sklearn.metrics import f1_score

    wanted, found = labels.astype(np.int64), (shares >= np.array(thresholds)).astype(np.int64)
    averages = ("micro", "macro")
    return {f"tuned_{name}_f1": float(f1_score(wanted, found, average=name, zero_division=0)) for name in averages}


def expected_error(bins: Sequence[Mapping[str, float]]) -> float:
    """The mean distance of confidence and accuracy, weighted by the bins' counts."""
    total = sum(one["count"] for one in bins)
    return sum(one["count"] * abs(one["confidence"] - one["accuracy"]) for one in bins) / max(1, total)


def _calibration(confidence: np.ndarray, right: np.ndarray) -> Details:
    """The bins that hold something, and their expected error."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = [
        {
            "from": number / BINS,
            "count": int((place == number).sum()),
            "confidence": float(confidence[place == number].mean()),
            "accuracy": float(right[place == number].mean()),
        }
        for number in np.unique(place).tolist()
    ]
    return {"ece": expected_error(bins), "bins": bins}


# ---- intervals ----


def class_intervals(labels: np.ndarray, found: np.ndarray) -> dict[str, list[float]]:
    """Of accuracy, F1 and Matthews' correlation.

    To draw N examples anew is to draw how many fall into each cell of the confusion matrix: one multinomial.
    """
    classes = int(max(labels.max(initial=0), found.max(initial=0))) + 1
    cells, counts = np.unique(labels * classes + found, return_counts=True)
    rows, columns = np.divmod(cells, classes)
    drawn = np.random.default_rng(SEED).multinomial(len(labels), counts / len(labels), RESAMPLES)  # (R, cells)
    hits = np.where(rows == columns, drawn, 0)
    names = np.unique(np.concatenate([rows, columns]))
    of_label, of_found, right = (
        np.stack([what[:, place == name].sum(1) for name in names], 1)
        for what, place in ((drawn, rows), (drawn, columns), (hits, rows))
    )  # (R, classes) each
    both = of_label + of_found
    f1 = np.divide(2 * right, both, out=np.zeros(both.shape), where=both > 0)
    total = len(labels)
    correct = right.sum(1)
    spread = np.sqrt((total**2 - (of_found**2).sum(1)) * (total**2 - (of_label**2).sum(1)).astype(np.float64))
    cross = correct * total - (of_label * of_found).sum(1)
    values = {
        "accuracy": correct / total,
        "macro_f1": f1.sum(1) / np.maximum(1, (both > 0).sum(1)),
        "weighted_f1": (f1 * of_label).sum(1) / total,
        "mcc": np.divide(cross, spread, out=np.zeros(RESAMPLES), where=spread > 0),
    }
    return {name: _percentiles(value) for name, value in values.items()}


def label_intervals(wanted: np.ndarray, found: np.ndarray) -> dict[str, list[float]]:
    """Of F1, micro and macro, and of rows with all labels right."""
    hits, both, whole = wanted * found, wanted + found, (wanted == found).all(-1)
    values: dict[str, list[float]] = {"micro_f1": [], "macro_f1": [], "all_labels_right": []}
    for times in _resampled(len(wanted)):
        right, sums = times @ hits, times @ both
        f1 = np.divide(2 * right, sums, out=np.zeros(len(right)), where=sums > 0)
        values["micro_f1"].append(float(2 * right.sum() / max(1, sums.sum())))
        values["macro_f1"].append(float(f1.mean()))
        values["all_labels_right"].append(float(times @ whole / len(wanted)))
    return {name: _percentiles(np.array(value)) for name, value in values.items()}


def target_intervals(found: np.ndarray, wanted: np.ndarray) -> dict[str, list[float]]:
    """Of Pearson's correlation and of the errors; means over the targets."""
    values: dict[str, list[float]] = {"pearson": [], "mae": [], "rmse": []}
    error = found - wanted
    for times in _resampled(len(wanted)):
        weights = times / len(wanted)
        off, beside = found - weights @ found, wanted - weights @ wanted
        spread = np.sqrt((weights @ off**2) * (weights @ beside**2))
        pearson = np.divide(weights @ (off * beside), spread, out=np.zeros(len(spread)), where=spread > 0)
        values["pearson"].append(float(pearson.mean()))
        values["mae"].append(float((weights @ np.abs(error)).mean()))
        values["rmse"].append(float(np.sqrt((weights @ error**2).mean())))
    return {name: _percentiles(np.array(value)) for name, value in values.items()}


def _resampled(examples: int) -> Any:
    """How often each example is drawn, (N,), again and again."""
    stream = np.random.default_rng(SEED)
    return (np.bincount(stream.integers(0, examples, examples), minlength=examples) for _ in range(RESAMPLES))


def _percentiles(values: np.ndarray) -> list[float]:
    tail = (1 - LEVEL) / 2
    return [float(value) for value in np.quantile(values, [tail, 1 - tail])]


# ---- parts ----


def _by_name(names: Sequence[str], each: Any, areas: Sequence[Details], said: np.ndarray) -> list[Details]:
    precision, recall, f1, support = each
    return [
        {
            "label": name,
            "precision": float(precision[number]),
            "recall": float(recall[number]),
            "f1": float(f1[number]),
            "support": int(support[number]),
            "predicted": int(said[number]),
            **areas[number],
        }
        for number, name in enumerate(names)
    ]


def _areas(there: np.ndarray, shares: np.ndarray) -> Details:
    """The area under the receiver's curve, and average precision; null where the class is everywhere or nowhere."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if there.all() or not there.any():
        return {"auroc": None, "average_precision": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "auroc": float(roc_auc_score(there, shares)),
            "average_precision": float(average_precision_score(there, shares)),
        }


def _by_length(sizes: np.ndarray, error: np.ndarray, what: str) -> Details:
    """The mean error of the shortest examples to the longest, in parts of like number."""
    order = np.argsort(sizes, kind="stable")
    parts = [part for part in np.array_split(order, LENGTHS) if len(part)]
    return {
        "of": what,
        "parts": [
            {
                "from": int(sizes[part].min()),
                "to": int(sizes[part].max()),
                "examples": len(part),
                "error": float(np.asarray(error, np.float64)[part].mean()),
            }
            for part in parts
        ],
    }


def _largest(values: np.ndarray) -> list[tuple[int, float]]:
    """(place, value) of the largest above 0, first."""
    order = np.argsort(-values, kind="stable")[:WORST]
    return [(int(at), float(values[at])) for at in order if values[at] > 0]


def _chosen(names: Sequence[str], there: np.ndarray) -> list[str]:
    return [name for name, yes in zip(names, there, strict=True) if yes]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _shorts(values: np.ndarray) -> list[float]:
    return [_short(float(value)) for value in values]
