"""Learning from a teacher: an engine's losses equal the formulas in NumPy and float64, however a batch is laid out or
split."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

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
from bertkit.conformance.tolerance import Skip, must_train
from bertkit.engine.interface import (
    NO_LABEL,
    Arrays,
    Backend,
    Batch,
    Job,
    LossSpec,
    SoftLabels,
    StatesLoss,
    StateTerm,
)
from bertkit.engine.teacher_losses import soft_loss, state_sums
from bertkit.model.config import PER_TOKEN, Head, HeadKind, StatePart
from bertkit.model.parameters import initial

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
SPEC = StatesLoss(TERMS, WIDTH)
COSINE = StatesLoss((StateTerm("cosine", (0,), (0,), weight=0.4),), WIDTH)


def check_teacher_logits(backend: Backend) -> str:
    """The loss by a teacher's logits and labels equals the formula, for every head, in one piece and in four."""
    must_train(backend)
    if "teacher_logits" not in backend.capabilities.extras:
        raise Skip("does not claim it")
    kinds = [kind for kind in trained_heads(backend) if kind != "pretraining"]
    worst = 0.0
    for kind in kinds:
        engine = with_settings(backend, _taught(kind, dataclasses.replace(SOFT, soft=1.0, hard=0.0)))
        batch = with_teacher(kind, example_batch(kind))
        wanted = soft_loss(HEADS[kind], engine.predict(batch), batch, SOFT.temperature)
        worst = max(worst, abs(train(engine, batch, kind, 1)[0] - wanted))
    worst = max(worst, _beside_labels(backend))
    assert worst <= LOSSES, f"losses differ from the formula's by {worst:.2e}"
    return f"losses of {len(kinds)} heads agree with the formula to {worst:.1e}"


def _beside_labels(backend: Backend) -> float:
    """How far the loss by labels and a teacher is from the sum of both, in one piece and in four."""
    batch = with_teacher("classification", example_batch("classification"))
    plain = with_settings(backend, job("classification"))
    soft = soft_loss(HEADS["classification"], plain.predict(batch), batch, SOFT.temperature)
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
    must_train(backend)
    if "teacher_states" not in backend.capabilities.extras:
        raise Skip("does not claim it")
    batch = dict(example_batch("encoder"))
    batch["teacher_states"] = _random((len(batch["input_ids"]), 3 * WIDTH), 7)

    def wanted(found: Arrays, weights: Arrays) -> float:
        return state_sums(SPEC, found["hidden"], MODEL.hidden_size, batch, weights).loss(SPEC)

    worst = _furthest(backend, "encoder", states_job(), batch, wanted)
    return f"{len(TERMS)} losses agree with the formulas to {worst:.1e} in {', '.join(backend.capabilities.layouts)}"


def check_teacher_words(backend: Backend) -> str:
    """The loss by a teacher's masked words, by labels and by its last hidden states, projected, equals the formulas, in
    every layout, in one piece and in four."""
    must_train(backend)
    if "teacher_words" not in backend.capabilities.extras:
        raise Skip("does not claim it")
    batch = words_batch()
    worst = _furthest(
        backend, "pretraining", words_job(), batch, lambda found, weights: words_loss(found, weights, batch)
    )
    return f"the loss agrees with the formulas to {worst:.1e} in {', '.join(backend.capabilities.layouts)}"


def _furthest(
    backend: Backend, kind: HeadKind, learned: Job, batch: Batch, wanted: Callable[[Arrays, Arrays], float]
) -> float:
    """How far the losses of all layouts, whole and in four, are from what is `wanted` of predictions and weights.

    Raises AssertionError where they, or the gradients of two of them, are too far apart.
    """
    worst = apart = 0.0
    first: Arrays | None = None
    for layout in backend.capabilities.layouts:
        for splits in (1, 4):
            engine = with_settings(backend, dataclasses.replace(learned, layout=layout))
            formula = wanted(engine.predict(batch), engine.weights())
            worst = max(worst, abs(train(engine, batch, kind, 1, splits)[0] - formula))
            moments = first_moments(engine)
            first = first or moments
            apart = max(apart, gap(first, moments))
    assert worst <= LOSSES, f"losses differ from the formulas' by {worst:.2e}"
    assert apart <= 2e-6, f"gradients of layouts and of 1 x 12 and 4 x 3 sequences differ by {apart:.2e}"
    return worst


def words_loss(found: Arrays, weights: Arrays, batch: Batch) -> float:
    """What `words_job` learns, by what the model predicts. Of the batch's sequences none has a label of its own."""
    rows = np.arange(len(batch["masked_labels"]))
    logits = found["masked_logits"].astype(np.float64)
    by_labels = np.mean(np.log(np.exp(logits).sum(1)) - logits[rows, batch["masked_labels"]])
    soft = soft_loss(HEADS["pretraining"], found, batch, SOFT.temperature)
    of_states = state_sums(COSINE, found["hidden"], MODEL.hidden_size, batch, weights).loss(COSINE)
    return SOFT.soft * soft + SOFT.hard * float(by_labels) + of_states


def words_batch() -> Batch:
    batch = dict(example_batch("pretraining"))
    batch["labels"] = np.full_like(batch["labels"], NO_LABEL)
    batch["teacher_masked_logits"] = _random((len(batch["masked_labels"]), MODEL.vocab_size), 5)
    return batch | {"teacher_states": _random((len(batch["input_ids"]), WIDTH), 7)}


def words_job() -> Job:
    last: tuple[tuple[StatePart, int], ...] = (("hidden", MODEL.num_hidden_layers),)
    head = dataclasses.replace(HEADS["pretraining"], states=last, projection=WIDTH)
    loss = LossSpec(teacher=SOFT, states=COSINE)
    return dataclasses.replace(job("pretraining"), head=head, weights=initial(MODEL, head, 1), loss=loss)


def states_job() -> Job:
    head = Head("encoder", len(PARTS) * MODEL.hidden_size, states=PARTS, projection=WIDTH)
    loss = LossSpec(states=SPEC)
    return dataclasses.replace(job("encoder"), head=head, weights=initial(MODEL, head, 1), loss=loss)


def with_teacher(kind: HeadKind, batch: Batch) -> Batch:
    """The batch with random logits of a teacher."""
    rows = len(batch["input_ids"]) if kind in PER_TOKEN else len(batch["example_ids"])
    name = "teacher_token_logits" if kind in PER_TOKEN else "teacher_logits"
    return {**batch, name: _random((rows, HEADS[kind].outputs), 5)}


def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
