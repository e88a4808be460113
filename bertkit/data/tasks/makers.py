"""Tasks over tables for others to make: which columns, which labels, which metric."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np

from bertkit.data.tasks.metrics import METRICS
from bertkit.data.tasks.tabular import TableFormat
from bertkit.data.tasks.task import Columns, Metrics, Split, Task
from bertkit.errors import UserError, nearest
from bertkit.model.config import Head

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")  # a task's, which names folders and files too


def table_task(
    name: str,
    *,
    first: str | int,
    label: str | int,
    second: str | int | None = None,
    labels: Sequence[str] = (),
    metric: str = "",
    score: Callable[[np.ndarray, np.ndarray], Metrics] | None = None,
    title: str = "",
    folder: str = "",
    train: str = "train.tsv",
    dev: str = "dev.tsv",
    test: str = "test.tsv",
    header: bool = True,
    columns: int | None = None,
    vocab: str = "",
    recipe: str = "",
    version: int = 1,
) -> Task:
    r"""A task over tab-separated tables: a class where there are `labels`, else a number.

        reviews = table_task("reviews", first="text", label="stars", labels=("bad", "good"), metric="f1")
        pairs = table_task("pairs", first="text", second="other", label="likeness", metric="spearman")

    `first`, `second`, `label`: columns by the header's names, or by number from 0 where `header` is False, and then
    `columns` is how many a row has. `metric`: picks the best checkpoint: accuracy, f1 (of the second label), mcc;
    pearson, spearman for numbers. `score`: a metric of your own, (logits (N, C), labels (N,)) -> {`metric`: value, …}.
    `folder`: of the files, under the data folder. `vocab`: a vocabulary of the task's own, beside its files. `recipe`:
    its runs start from it. Raise `version` where the same files would give other features.

    Raises UserError for a metric that is not known, and for names and labels that cannot be.
    """
    metric = metric or ("accuracy" if labels else "pearson")
    check_name(name)
    if len(set(labels)) < len(labels) or len(labels) == 1:
        raise UserError(f"task {name}: its labels are {', '.join(labels)}", "name two or more, each once")
    known = {found: made for found, (made, of_classes) in METRICS.items() if of_classes == bool(labels)}
    if score is None and metric not in known:
        kind = "classes" if labels else "numbers"
        raise UserError(f"task {name}: there is no metric {metric!r} for {kind}", nearest(metric, known))
    where = Columns(first, second, label, header, columns)
    return Task(
        name=name,
        title=title or name,
        folder=folder or name,
        splits={"train": (Split(train, where),), "dev": (Split(dev, where),), "test": (Split(test, where),)},
        head=Head("classification", len(labels)) if labels else Head("regression", 1),
        primary=metric,
        format=TableFormat(score or known[metric], {"": f"{name}.tsv"}),
        labels=tuple(labels),
        version=version,
        recipe=recipe,
        vocab=vocab,
    )


def check_name(name: str) -> None:
    """Raises UserError for a name that is none for a task."""
    if not NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name for a task", "use small letters, digits and . _ -")
