"""Scores of pre-training: sums over all ranks divided once, so that neither batches nor ranks weigh anything.

Legend: M masked positions of a batch, V pieces of the vocabulary, B sequences, R ranks.
"""

from __future__ import annotations

import numpy as np

from bertkit.console import Display
from bertkit.data.pretraining.evaluation_set import EvaluationSet
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Batch
from bertkit.errors import UserError
from bertkit.training.evaluation import Predicts

ROWS = 8  # masked positions whose softmax is taken at a time: V of them as float32 are 1 MB


def score_set(
    engine: Predicts, found: EvaluationSet, size: int, unigram: np.ndarray, world: World, display: Display
) -> tuple[dict[str, float], dict[str, float]]:
    """(the model's metrics, those of the unigram baseline) on every rank. A collective.

    `unigram` (V,): how often each piece stands in text to learn from.
    """
    sums = np.zeros(8)
    pieces, classes = np.zeros(0, np.int64), np.zeros(2, np.int64)
    with display.progress("evaluating", len(found.examples)) as bar:
        for batch in found.batches(size, world.rank, world.size):
            outputs = engine.predict(batch)
            sums += _sums(batch, outputs)
            pieces = _add(pieces, np.bincount(batch["masked_labels"]))
            classes += np.bincount(_known(batch["labels"]), minlength=2)
            bar.add(len(batch["labels"]))
    total = engine.gather(sums[None]).sum(0)
    if round(total[0]) != len(found.examples):
        raise RuntimeError(f"{total[0]} scores for {len(found.examples)} sequences")  # a fault of bertkit's
    _check_finite(total)
    widest = int(engine.gather(np.array([len(pieces)])).max())
    pieces = engine.gather(_add(pieces, np.zeros(widest, np.int64))[None]).sum(0)
    return metrics(total), baseline(unigram, pieces, engine.gather(classes[None]).sum(0))


def _sums(batch: Batch, outputs: Arrays) -> np.ndarray:
    """(8,) sequences, masked positions, how many of them are right, their loss, labelled sequences, right ones;
    then of what outputs that are not finite were made: masked positions, and sequences.
    """
    labels, logits = batch["masked_labels"], outputs["masked_logits"]
    loss, unknown = 0.0, 0
    for start in range(0, len(labels), ROWS):
        part = logits[start : start + ROWS]
        top = part.max(1, keepdims=True)
        at_label = np.take_along_axis(part, labels[start : start + ROWS, None], 1)
        below = (top - at_label)[:, 0].astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity less infinity: counted, and refused by the caller
            losses = np.log(np.exp(part - top).sum(1, dtype=np.float64)) + below
        unknown += int((~np.isfinite(losses)).sum())
        loss += float(losses.sum())
    right = int((logits.argmax(1) == labels).sum()) if len(labels) else 0
    next_sentence = batch["labels"]
    told = next_sentence >= 0
    right_next = int((outputs["logits"].argmax(1) == next_sentence)[told].sum())
    unsure = int((~np.isfinite(outputs["logits"]).all(axis=1)).sum())
    counts = [len(next_sentence), len(labels), right, loss, told.sum(), right_next, unknown, unsure]
    return np.array(counts, np.float64)


def _check_finite(sums: np.ndarray) -> None:
    """Raises UserError where outputs are not finite: the largest of them would be no answer."""
    if sums[6:].any():
        raise UserError(
            f"{int(sums[6]):,} of {int(sums[1]):,} masked positions and {int(sums[7]):,} of {int(sums[0]):,} sequences "
            "of the evaluation set have logits that are not finite",
            "lower optimizer.learning_rate, or train with -d fp32",
        )


def metrics(sums: np.ndarray) -> dict[str, float]:
    """Accuracy and mean loss (nats) over masked positions; of next sentences where the data has them."""
    _, masked, right, loss, told, right_next = sums[:6].tolist()
    found = {"mlm_accuracy": right / max(1.0, masked), "mlm_loss": loss / max(1.0, masked)}
    return found | ({"nsp_accuracy": right_next / told} if told else {})


def baseline(unigram: np.ndarray, pieces: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """What the frequencies of the training text, each piece counted once more, score on the set's masked pieces.

    Of next sentences: what the set's own more frequent answer scores.
    """
    shares = (unigram + 1) / (unigram.sum() + len(unigram))
    masked = max(1, int(pieces.sum()))
    guess = int(unigram.argmax())
    right = int(pieces[guess]) if guess < len(pieces) else 0
    loss = -float((pieces * np.log(shares[: len(pieces)])).sum()) / masked
    found = {"mlm_accuracy": right / masked, "mlm_loss": loss}
    return found | ({"nsp_accuracy": float(classes.max() / classes.sum())} if classes.any() else {})


def _known(labels: np.ndarray) -> np.ndarray:
    known: np.ndarray = labels[labels >= 0]
    return known


def _add(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Counts of different widths, added up."""
    total = np.zeros(max(len(one), len(other)), np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total
