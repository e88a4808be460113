"""The head's outputs for every example, each computed exactly once over all ranks; the answers and scores made of them.

Legend: N sequences, T tokens of them, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.sampler import by_length
from bertkit.data.tasks import Task
from bertkit.data.tasks.task import Answered, AnswerRules, Part
from bertkit.distributed.world import World
from bertkit.engine.interface import OUTPUTS, Arrays, Batch, Engine
from bertkit.errors import UserError
from bertkit.model.config import PER_TOKEN, Head


class Predicts(Protocol):
    """The parts of an engine that predictions need."""

    def predict(self, batch: Batch) -> Arrays:
        """As `Engine.predict`."""

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """As `Engine.gather`."""


Watch = Callable[[Iterable[np.ndarray]], Iterable[np.ndarray]]  # the batches, as they are; called between them


def predict(
    engine: Predicts,
    head: Head,
    features: Features,
    batch_size: int,
    world: World,
    progress: Callable[[int], object] = lambda done: None,
    watch: Watch = iter,
) -> Arrays:
    """The head's outputs for every example in the order of `features`, on every rank: (N, C), (T, C) for
    tokens, or (T,) for spans.

    Each is computed exactly once, beside others of its length.
    """
    numbers: list[np.ndarray] = [np.empty(0, np.int64)]
    empty = np.empty(0 if head.kind == "span" else (0, head.outputs), np.float32)
    found: dict[str, list[np.ndarray]] = {name: [empty] for name in OUTPUTS[head.kind]}
    for examples in watch(by_length(features.sizes, batch_size, world.rank, world.size)):
        outputs = engine.predict(features.batch(examples))
        for name, parts in found.items():
            parts.append(outputs[name].reshape(len(examples), -1) if head.sequences_each > 1 else outputs[name])
        numbers.append(examples)
        progress(len(examples))
    everyone = engine.gather(np.concatenate(numbers))
    if len(everyone) != len(features) or len(np.unique(everyone)) != len(features):
        raise RuntimeError(f"{len(everyone)} predictions for {len(features)} examples")  # a fault of bertkit's
    order = np.argsort(everyone)
    rows = _token_rows(features.lengths[everyone], order) if head.kind in PER_TOKEN else order
    return {name: engine.gather(np.concatenate(parts))[rows] for name, parts in found.items()}


def check_finite(outputs: Mapping[str, np.ndarray], features: Features, where: str) -> None:
    """Raises UserError where a sequence has outputs that are not finite: the largest of them would be no answer."""
    rows = np.zeros(len(features), bool)
    for values in outputs.values():
        bad = ~np.isfinite(values).all(axis=tuple(range(1, values.ndim)), keepdims=False).astype(bool)
        if len(bad) == len(features):
            rows |= bad
        else:  # of each token
            rows[np.searchsorted(features.cu_seqlens, np.flatnonzero(bad), side="right") - 1] = True
    if rows.any():
        what = "windows" if any(values.ndim == 1 for values in outputs.values()) else "examples"
        raise UserError(
            f"{where}: {int(rows.sum()):,} of {len(rows):,} {what} have logits that are not finite "
            f"(the first, from 0: {int(rows.argmax()):,})",
            "the weights are damaged, or the numbers too large for this precision: try -d fp32",
        )


def _token_rows(lengths: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(T,) where the tokens of sequences stand that have these lengths, taken in `order`."""
    starts = (np.cumsum(lengths) - lengths)[order]
    within = lengths[order]
    return np.repeat(starts - (np.cumsum(within) - within), within) + np.arange(int(within.sum()))


def answer(
    engine: Engine,
    task: Task,
    part: Part,
    rules: AnswerRules,
    batch_size: int,
    world: World,
    display: Display,
    what: str = "predicting",
    watch: Watch = iter,
) -> Answered:
    """The task's answers to one part, on every rank."""
    with display.progress(what, len(part.features)) as bar:
        outputs = predict(engine, task.head, part.features, batch_size, world, bar.add, watch)
    check_finite(outputs, part.features, str(part.file))
    return task.format.answer(task, part, outputs, rules)


def evaluate(
    engine: Engine,
    task: Task,
    parts: Sequence[Part],
    rules: AnswerRules,
    batch_size: int,
    world: World,
    display: Display,
    watch: Watch = iter,
) -> tuple[dict[str, float], list[Answered]]:
    """(metrics, each part's answers). The metrics of a second part, as of mnli's, carry its name."""
    metrics: dict[str, float] = {}
    answered: list[Answered] = []
    for part in parts:
        found = answer(engine, task, part, rules, batch_size, world, display, "evaluating", watch)
        check_scored(found, part)
        metrics |= labelled(found.metrics, part)
        answered.append(found)
    return metrics, answered


def check_scored(answered: Answered, part: Part) -> None:
    """Raises UserError where the file has no labels."""
    if not answered.metrics:
        raise UserError(f"{part.file} has no labels", "give a file with answers to score")


def labelled(metrics: Mapping[str, float], part: Part) -> dict[str, float]:
    """The metrics under names that say which part they are of."""
    return {f"{name}_{part.name}" if part.name else name: value for name, value in metrics.items()}
