"""The losses by a teacher's logits and states, in NumPy and float64: what engines are held to, and a dev set's scores.

`SoftLabels` and `StateTerm` (`interface.py`) say what each is.

Legend: T tokens, C outputs of the head, or a student's states side by side, L tokens of one sequence, A heads.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.engine.interface import Arrays, Batch, StatesLoss, StateTerm
from bertkit.model.config import Head
from bertkit.model.parameters import PROJECTION


def soft_loss(head: Head, found: Mapping[str, np.ndarray], batch: Batch, temperature: float) -> float:
    """By a teacher's logits in the batch; `found`: what the student predicts."""
    if head.kind == "span":
        theirs = batch["teacher_token_logits"]
        sides = [(found["start_logits"], theirs[:, 0]), (found["end_logits"], theirs[:, 1])]
        each = [divergence(one[s], other[s], temperature) for one, other in sides for s in _stretches(batch)]
        return float(np.mean(each))
    if head.kind == "pretraining":
        return float(divergence(found["masked_logits"], batch["teacher_masked_logits"], temperature).mean())
    logits = found["logits"].reshape(-1, head.outputs)
    if head.kind == "tokens":
        each_token = divergence(logits, batch["teacher_token_logits"], temperature)
        return float(each_token[batch["token_labels"] >= 0].mean()) if "token_labels" in batch else each_token.mean()
    theirs = batch["teacher_logits"]
    if head.kind == "regression":
        return float(np.square(logits.astype(np.float64) - theirs).mean())
    if head.kind == "multilabel":
        logits, theirs = (np.stack([one, np.zeros_like(one)], -1) for one in (logits, theirs))
    return float(divergence(logits, theirs, temperature).mean())


def divergence(student: np.ndarray, teacher: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """(…, C) logits each -> (…) KL(teacher || student) at the temperature, times its square."""
    ours, theirs = (_log_softmax(one.astype(np.float64) / temperature) for one in (student, teacher))
    return np.asarray((np.exp(theirs) * (theirs - ours)).sum(-1) * temperature**2)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _stretches(batch: Batch) -> Iterator[slice]:
    yield from (slice(int(first), int(end)) for first, end in itertools.pairwise(batch["cu_seqlens"]))


@dataclass(frozen=True)
class StateSums:
    """The terms of some batches, to be divided by what all of them have."""

    terms: np.ndarray  # (number of terms,)
    tokens: int = 0
    pairs: int = 0  # of tokens of a sequence

    def __add__(self, other: StateSums) -> StateSums:
        return StateSums(self.terms + other.terms, self.tokens + other.tokens, self.pairs + other.pairs)

    def loss(self, spec: StatesLoss) -> float:
        counts = [self.pairs if term.form == "attention_mse" else self.tokens for term in spec.terms]
        means = self.terms / np.maximum(counts, 1)
        return float(sum(term.weight * mean for term, mean in zip(spec.terms, means, strict=True)))


def state_sums(spec: StatesLoss, found: np.ndarray, width: int, batch: Batch, weights: Arrays) -> StateSums:
    """Of one batch. `found` (T, C): the student's states, each `width` wide; `weights`: with the projection, if any."""
    ours = _cut(found, width)
    theirs = _cut(batch["teacher_states"], spec.width)
    terms = []
    for term in spec.terms:
        mine, wanted = [ours[n] for n in term.student], [theirs[n] for n in term.teacher]
        if term.form in ("mse", "cosine"):
            terms.append(_of_tokens(term, _projected(mine[0], weights), wanted[0]))
        else:
            terms.append(sum(_of_pairs(term, mine, wanted, where) for where in _stretches(batch)))
    lengths = np.diff(batch["cu_seqlens"]).astype(np.int64)
    return StateSums(np.array(terms), len(found), int(np.square(lengths).sum()))


def _cut(states: np.ndarray, width: int) -> list[np.ndarray]:
    return [np.asarray(one, np.float64) for one in np.split(states, range(width, states.shape[1], width), axis=1)]


def _projected(states: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    if f"{PROJECTION}.weight" not in weights:
        return states
    return np.asarray(states @ weights[f"{PROJECTION}.weight"].T.astype(np.float64) + weights[f"{PROJECTION}.bias"])


def _of_tokens(term: StateTerm, found: np.ndarray, wanted: np.ndarray) -> float:
    if term.form == "mse":
        return float(np.square(found - wanted).mean(1).sum())
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return float((1 - (found * wanted).sum(1) / norms).sum())


def _of_pairs(term: StateTerm, mine: Sequence[np.ndarray], wanted: Sequence[np.ndarray], where: slice) -> float:
    ours, theirs = (_scores(one, term.heads, where) for one in (mine, wanted))
    if term.form == "attention_mse":
        return float(np.square(ours - theirs).sum()) / term.heads
    return float(divergence(ours, theirs).sum()) / term.heads


def _scores(states: Sequence[np.ndarray], heads: int, where: slice) -> np.ndarray:
    """-> (A, L, L) of one sequence."""
    both = (one[where].reshape(where.stop - where.start, heads, -1) for one in (states[0], states[-1]))
    query, key = (one.swapaxes(0, 1) for one in both)
    return np.asarray(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]))
