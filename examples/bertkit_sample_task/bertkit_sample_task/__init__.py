"""Reviews as a task: `bertkit train -t reviews --data-dir FOLDER` reads FOLDER/reviews/train.tsv and dev.tsv."""

from __future__ import annotations

import numpy as np

from bertkit.plugin import Task, table_task


def reviews() -> Task:
    """The entry point."""
    return table_task(
        "reviews",
        title="reviews of films, good or bad",
        first="text",
        label="verdict",
        labels=("bad", "good"),
        metric="balanced_accuracy",
        score=balanced_accuracy,
        vocab="vocab.txt",  # of its own; leave it out to start from a published model
    )


def balanced_accuracy(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """(N, C), (N,) -> the mean over the classes of the share that is right, and the share over all."""
    right = logits.argmax(-1) == labels
    of_each = [float(right[labels == number].mean()) for number in np.unique(labels)]
    return {"balanced_accuracy": float(np.mean(of_each)), "accuracy": float(right.mean())}
