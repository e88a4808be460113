"""What lies behind the metrics of labels and numbers: each class by itself, confusions, calibration, the worst errors,
errors by length, and how far the metrics would move on another draw of examples.

Calibration: the expected error of Guo et al. 2017, arXiv:1706.04599, in bins of equal
width. Intervals: percentiles of the bootstrap (Efron 1979) over examples.

Legend: N examples, C classes or labels, R resamples.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from bertkit.data.tasks.counts import areas, by_class, cells, ratio, scores_of_classes, scores_of_labels
from bertkit.data.tasks.metrics import probabilities

BINS = 15  # of probabilities, as in Guo et al.
RESAMPLES, SEED, LEVEL = 1000, 1, 0.95
MOST_CONFUSED = 100  # classes, beyond which there is no whole matrix
WORST = 100  # examples that are kept
LENGTHS = 5  # parts of the examples by length
Details = dict[str, Any]  # as JSON has it


def class_details(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], sizes: np.ndarray) -> Details:
    """(N, C), (N,) -> of classes that exclude one another. `sizes`: (N,) tokens of each example."""
    shares, found, classes = probabilities("classification", logits), logits.argmax(-1), logits.shape[1]
    each = [np.bincount(which, minlength=classes) for which in (labels, found, labels[labels == found])]
    curves = [_areas(labels == number, shares[:, number]) for number in range(classes)]
    temperature = fitted_temperature(logits, labels)
    cooled = probabilities("classification", logits / temperature)
    right = found == labels
    made: Details = {
        "examples": len(labels),
        "classes": _by_name(names, each, curves),
        "macro_auroc": _mean([one["auroc"] for one in curves]),
        "mean_average_precision": _mean([one["average_precision"] for one in curves]),
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
        made["confusion"] = np.bincount(labels * classes + found, minlength=classes**2).reshape(classes, -1).tolist()
    return made


def label_details(logits: np.ndarray, labels: np.ndarray, names: Sequence[str], sizes: np.ndarray) -> Details:
    """(N, C), (N, C) of 0 and 1 -> of labels any number of which may apply."""
    shares, wanted = probabilities("multilabel", logits), labels.astype(np.int64)
    found = (shares >= 0.5).astype(np.int64)
    each = [which.sum(0) for which in (wanted, found, wanted * found)]
    curves = [_areas(wanted[:, number] == 1, shares[:, number]) for number in range(len(names))]
    thresholds = [best_threshold(wanted[:, number], shares[:, number]) for number in range(len(names))]
    wrong = (found != wanted).sum(-1)
    return {
        "examples": len(labels),
        "classes": _by_name(names, each, curves),
        "macro_auroc": _mean([one["auroc"] for one in curves]),
        "mean_average_precision": _mean([one["average_precision"] for one in curves]),
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
    found = scores_of_labels(labels.astype(np.int64), (shares >= np.array(thresholds)).astype(np.int64))[0]
    return {f"tuned_{name}": found[name] for name in ("micro_f1", "macro_f1")}


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
    rows, columns, counts = cells(labels, found)
    drawn = np.random.default_rng(SEED).multinomial(len(labels), counts / len(labels), RESAMPLES)  # (R, cells)
    return {name: _percentiles(values) for name, values in scores_of_classes(by_class(rows, columns, drawn)).items()}


def label_intervals(wanted: np.ndarray, found: np.ndarray) -> dict[str, list[float]]:
    """Of F1, micro and macro, and of rows with all labels right."""
    scores = scores_of_labels(wanted, found, _resampled(len(wanted)))
    return {name: _percentiles(np.array([one[name] for one in scores])) for name in scores[0]}


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


def _by_name(names: Sequence[str], each: Sequence[np.ndarray], curves: Sequence[Details]) -> list[Details]:
    """`each`: (C,) examples of each class, examples that were given it, both."""
    return [
        {
            "label": name,
            "precision": float(ratio(right, predicted)),
            "recall": float(ratio(right, support)),
            "f1": float(ratio(2 * right, support + predicted)),
            "support": int(support),
            "predicted": int(predicted),
            **curve,
        }
        for name, support, predicted, right, curve in zip(names, *each, curves, strict=True)
    ]


def _areas(there: np.ndarray, shares: np.ndarray) -> Details:
    """The area under the receiver's curve, and average precision; null where the class is everywhere or nowhere."""
    both = areas(there, shares) if there.any() and not there.all() else (None, None)
    return {"auroc": both[0], "average_precision": both[1]}


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
