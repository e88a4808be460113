"""Learning from a teacher: losses equal those of this file, in NumPy and float64, however a batch is laid out or split.

Legend: B sequences, T tokens, C outputs of the head, L tokens of one sequence, A heads, W width of a state.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from bertkit.conformance.contract import must_compute
from bertkit.conformance.fixtures import (
    HEADS,
    MODEL,
    example_batch,
    first_moments,
    gap,
    job,
    train,
    trained_heads,
    with_settings,
)
from bertkit.conformance.tolerance import Skip
from bertkit.engine.interface import (
    Arrays,
    Backend,
    Batch,
    Job,
    LossSpec,
    SoftLabels,
    StatesLoss,
    StateTerm,
    sequence_lengths,
)
from bertkit.model.config import PER_TOKEN, Head, HeadKind, StatePart
from bertkit.model.parameters import PROJECTION, initial

LOSSES = 1e-5  # in fp32
SOFT = SoftLabels(temperature=2.0, soft=0.7, hard=0.3)
WIDTH = 96  # of the teacher's states
PARTS: tuple[tuple[StatePart, int], ...] = (
    ("query", 2), ("key", 2), ("value", 2), ("context", 2), ("hidden", 1),
)  # fmt: skip
TERMS = (
    StateTerm("relations", (0,), (0,), heads=8, weight=1.0),
    StateTerm("relations", (2,), (1,), heads=16, weight=0.5),
    StateTerm("relations", (3,), (2,), heads=4, weight=0.25),
    StateTerm("attention_kl", (0, 1), (0, 1), heads=4, weight=2.0),
    StateTerm("attention_mse", (0, 1), (1, 2), heads=4, weight=0.1),
    StateTerm("mse", (4,), (0,), weight=0.3),
    StateTerm("cosine", (4,), (2,), weight=0.6),
)


def check_teacher_logits(backend: Backend) -> str:
    """The loss by a teacher's logits and labels equals the formula, for every head, in one piece and in four."""
    must_compute(backend)
    if "teacher_logits" not in backend.capabilities.extras:
        raise Skip("does not claim it")
    kinds = [kind for kind in trained_heads(backend) if kind != "pretraining"]
    worst = 0.0
    for kind in kinds:
        engine = with_settings(backend, _taught(kind, dataclasses.replace(SOFT, soft=1.0, hard=0.0)))
        batch = with_teacher(kind, example_batch(kind))
        wanted = soft_loss(kind, engine.predict(batch), batch, SOFT.temperature)
        worst = max(worst, abs(train(engine, batch, kind, 1)[0] - wanted))
    worst = max(worst, _beside_labels(backend))
    assert worst <= LOSSES, f"losses differ from the formula's by {worst:.2e}"
    return f"losses of {len(kinds)} heads agree with the formula to {worst:.1e}"


def _beside_labels(backend: Backend) -> float:
    """How far the loss by labels and a teacher is from the sum of both, in one piece and in four."""
    batch = with_teacher("classification", example_batch("classification"))
    plain = with_settings(backend, job("classification"))
    soft = soft_loss("classification", plain.predict(batch), batch, SOFT.temperature)
    wanted = SOFT.soft * soft + SOFT.hard * train(plain, batch, "classification", 1)[0]
    whole, split = (with_settings(backend, _taught("classification", SOFT)) for _ in range(2))
    losses = train(whole, batch, "classification", 1)[0], train(split, batch, "classification", 1, splits=4)[0]
    apart = gap(first_moments(whole), first_moments(split))
    assert apart <= 2e-6, f"gradients of 1 x 12 and 4 x 3 sequences differ by {apart:.2e}"
    return max(abs(loss - wanted) for loss in losses)


def _taught(kind: HeadKind, soft: SoftLabels) -> Job:
    return dataclasses.replace(job(kind), loss=LossSpec(teacher=soft))


def check_teacher_states(backend: Backend) -> str:
    """The losses by a teacher's states equal the formulas, in every layout, in one piece and in four."""
    must_compute(backend)
    if "teacher_states" not in backend.capabilities.extras:
        raise Skip("does not claim it")
    batch = dict(example_batch("encoder"))
    batch["teacher_states"] = _random((len(batch["input_ids"]), 3 * WIDTH), 7)
    worst = apart = 0.0
    first: Arrays | None = None
    for layout in backend.capabilities.layouts:
        for splits in (1, 4):
            engine = with_settings(backend, dataclasses.replace(states_job(), layout=layout))
            found = engine.predict(batch)["hidden"]
            wanted = states_loss(TERMS, found, batch, engine.weights())
            worst = max(worst, abs(train(engine, batch, "encoder", 1, splits)[0] - wanted))
            moments = first_moments(engine)
            first = first or moments
            apart = max(apart, gap(first, moments))
    assert worst <= LOSSES, f"losses differ from the formulas' by {worst:.2e}"
    assert apart <= 2e-6, f"gradients of layouts and of 1 x 12 and 4 x 3 sequences differ by {apart:.2e}"
    return f"{len(TERMS)} losses agree with the formulas to {worst:.1e} in {', '.join(backend.capabilities.layouts)}"


def states_job() -> Job:
    head = Head("encoder", len(PARTS) * MODEL.hidden_size, states=PARTS, projection=WIDTH)
    loss = LossSpec(states=StatesLoss(TERMS, WIDTH))
    return dataclasses.replace(job("encoder"), head=head, weights=initial(MODEL, head, 1), loss=loss)


def with_teacher(kind: HeadKind, batch: Batch) -> Batch:
    """The batch with random logits of a teacher."""
    rows = len(batch["input_ids"]) if kind in PER_TOKEN else len(batch["example_ids"])
    name = "teacher_token_logits" if kind in PER_TOKEN else "teacher_logits"
    return {**batch, name: _random((rows, HEADS[kind].outputs), 5)}


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ---- the formulas ----


def soft_loss(kind: HeadKind, found: Arrays, batch: Batch, temperature: float) -> float:
    """By a teacher's logits; `found`: what the student predicts."""
    if kind == "span":
        theirs = batch["teacher_token_logits"]
        sides = [(found["start_logits"], theirs[:, 0]), (found["end_logits"], theirs[:, 1])]
        each = [divergence(one[s], other[s], temperature) for one, other in sides for s in _stretches(batch)]
        return float(np.mean(each))
    logits = found["logits"].reshape(-1, HEADS[kind].outputs)
    if kind == "tokens":
        return float(divergence(logits, batch["teacher_token_logits"], temperature)[batch["token_labels"] >= 0].mean())
    theirs = batch["teacher_logits"]
    if kind == "regression":
        return float(np.square(logits.astype(np.float64) - theirs).mean())
    if kind == "multilabel":
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
    starts = batch["cu_seqlens"]
    yield from (slice(int(first), int(end)) for first, end in itertools.pairwise(starts))


def states_loss(terms: tuple[StateTerm, ...], found: np.ndarray, batch: Batch, weights: Arrays) -> float:
    """By a teacher's states; `found` (T, C): the student's."""
    width, student = MODEL.hidden_size, found.astype(np.float64)
    teacher = batch["teacher_states"].astype(np.float64)
    total = 0.0
    for term in terms:
        ours = [student[:, n * width : (n + 1) * width] for n in term.student]
        theirs = [teacher[:, n * WIDTH : (n + 1) * WIDTH] for n in term.teacher]
        total += term.weight * FORMS[term.form](ours, theirs, term.heads, batch, weights)
    return total


def _scores(states: list[np.ndarray], heads: int, where: slice) -> np.ndarray:
    """-> (A, L, L) of one sequence."""
    both = (one[where].reshape(where.stop - where.start, heads, -1) for one in (states[0], states[-1]))
    query, key = (one.swapaxes(0, 1) for one in both)
    return np.asarray(query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1]))


def _kl(ours: list[np.ndarray], theirs: list[np.ndarray], heads: int, batch: Batch, weights: Arrays) -> float:
    each = (divergence(_scores(ours, heads, s), _scores(theirs, heads, s)).sum() for s in _stretches(batch))
    return float(sum(each)) / (heads * len(batch["input_ids"]))


def _mse_of_scores(ours: list[np.ndarray], theirs: list[np.ndarray], heads: int, batch: Batch, _: Arrays) -> float:
    each = (np.square(_scores(ours, heads, s) - _scores(theirs, heads, s)).sum() for s in _stretches(batch))
    return float(sum(each)) / (heads * int(np.square(sequence_lengths(batch), dtype=np.int64).sum()))


def _projected(states: np.ndarray, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.asarray(states @ weights[f"{PROJECTION}.weight"].T.astype(np.float64) + weights[f"{PROJECTION}.bias"])


def _mse(ours: list[np.ndarray], theirs: list[np.ndarray], heads: int, batch: Batch, weights: Arrays) -> float:
    return float(np.square(_projected(ours[0], weights) - theirs[0]).mean())


def _cosine(ours: list[np.ndarray], theirs: list[np.ndarray], heads: int, batch: Batch, weights: Arrays) -> float:
    found = _projected(ours[0], weights)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(theirs[0], axis=1)
    return float((1 - (found * theirs[0]).sum(1) / norms).mean())


FORMS: Mapping[str, Callable[[list[np.ndarray], list[np.ndarray], int, Batch, Arrays], float]] = {
    "relations": _kl,
    "attention_kl": _kl,
    "attention_mse": _mse_of_scores,
    "mse": _mse,
    "cosine": _cosine,
}
