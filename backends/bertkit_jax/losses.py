"""The heads' losses, each a sum over this micro-batch divided by the number of labels in the whole global batch.

So the sum over micro-batches, devices and ranks is the mean over the global batch, however it was split.

Legend: N slots, B sequences, M masked positions, C outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from bertkit.plugin import PER_TOKEN, Head, LossSpec
from bertkit_jax.model import FAR

LEAST = 1e-6  # of 1 - p in the focal loss: below a gamma of 1 the slope at 0 has no end
PLAIN = LossSpec()
Tensors = Mapping[str, jax.Array]


def loss(head: Head, found: Tensors, whole: Tensors, real: Tensors, longest: int, spec: LossSpec) -> jax.Array:
    """The scalar to differentiate. `real`: counts (2,), and the labels that are real numbers."""
    teacher = spec.teacher
    if teacher is None:
        return hard_loss(head, found, whole, real, longest, spec)
    value = teacher.soft * soft_loss(head, found, whole, real, longest, teacher.temperature)
    return value + teacher.hard * hard_loss(head, found, whole, real, longest, spec) if teacher.hard else value


def hard_loss(head: Head, found: Tensors, whole: Tensors, real: Tensors, longest: int, spec: LossSpec) -> jax.Array:
    """By labels."""
    sequences, positions = real["counts"]
    if head.kind == "classification":
        return classes(found["logits"], whole["labels"], spec) / sequences
    if head.kind in ("regression", "multilabel"):
        return _real_labels(head, found["logits"], real, spec) / sequences
    if head.kind == "choice":  # among the sequences of an example; what is over is spare
        examples = found["logits"].shape[0] // head.sequences_each
        logits = found["logits"][: examples * head.sequences_each].reshape(examples, head.sequences_each)
        return classes(logits, whole["labels"][:examples], spec) / sequences
    if head.kind == "tokens":
        return classes(found["logits"], whole["token_labels"], spec) / positions
    if head.kind == "span":  # mean of the start's and the end's
        start = classes(_by_sequence(found["start_logits"], whole, longest), whole["start_positions"], PLAIN)
        end = classes(_by_sequence(found["end_logits"], whole, longest), whole["end_positions"], PLAIN)
        return (start + end) / (2 * sequences)
    masked = classes(found["masked_logits"], whole["masked_labels"], PLAIN) / positions
    return masked + classes(found["logits"], whole["labels"], PLAIN) / sequences


def soft_loss(head: Head, found: Tensors, whole: Tensors, real: Tensors, longest: int, temperature: float) -> jax.Array:
    """By the teacher's logits."""
    sequences, positions = real["counts"][0], real["counts"][1]
    wanted = real["teacher_token_logits" if head.kind in PER_TOKEN else "teacher_logits"]
    if head.kind == "span":  # mean of the start's and the end's
        total = 0.0
        for side, name in enumerate(("start_logits", "end_logits")):
            ours, theirs = (_by_sequence(one, whole, longest) for one in (found[name], wanted[:, side]))
            total += jnp.sum(divergence(ours, theirs, temperature))
        return total / (2 * sequences)
    if head.kind == "tokens":
        counted = whole["token_labels"] >= 0
        return jnp.sum(divergence(found["logits"], wanted, temperature) * counted) / positions
    if head.kind == "choice":
        examples = found["logits"].shape[0] // head.sequences_each
        logits = found["logits"][: examples * head.sequences_each].reshape(examples, head.sequences_each)
        counted = real["counted"][:: head.sequences_each][:examples]
        return jnp.sum(divergence(logits, wanted[:examples], temperature) * counted) / sequences
    if head.kind == "classification":
        each = divergence(found["logits"], wanted, temperature)
    elif head.kind == "multilabel":
        ours, theirs = (jnp.stack([one, jnp.zeros_like(one)], -1) for one in (found["logits"], wanted))
        each = jnp.mean(divergence(ours, theirs, temperature), -1)
    else:
        each = jnp.mean(jnp.square(found["logits"] - wanted), -1)
    return jnp.sum(each * real["counted"]) / sequences


def divergence(student: jax.Array, teacher: jax.Array, temperature: float) -> jax.Array:
    """(…, C) logits each -> (…,) KL(teacher || student) at the temperature, times its square."""
    ours, theirs = jax.nn.log_softmax(student / temperature), jax.nn.log_softmax(teacher / temperature)
    return jnp.sum(jnp.exp(theirs) * (theirs - ours), -1) * temperature**2


def classes(logits: jax.Array, labels: jax.Array, spec: LossSpec) -> jax.Array:
    """Cross entropy, as a sum over those that have a label; below 0 is none."""
    known = labels >= 0
    kept = jnp.where(known, labels, 0)
    chances = jax.nn.log_softmax(logits)
    each = -jnp.take_along_axis(chances, kept[:, None], -1)[:, 0]
    weights = jnp.array(spec.class_weights or (1.0,) * logits.shape[-1], jnp.float32)
    weighted = each * weights[kept] if spec.class_weights else each
    if spec.focal_gamma:
        weighted *= jnp.maximum(1 - jnp.exp(-each), LEAST) ** spec.focal_gamma
    elif spec.label_smoothing:
        spread = -jnp.sum(chances * weights, -1) / logits.shape[-1]
        weighted = (1 - spec.label_smoothing) * weighted + spec.label_smoothing * spread
    return jnp.sum(jnp.where(known, weighted, 0.0))


def _real_labels(head: Head, logits: jax.Array, real: Tensors, spec: LossSpec) -> jax.Array:
    """Squared errors, or binary cross entropy of each label by itself; the mean over a sequence's labels, summed."""
    wanted = real["labels"] if head.label_shape else real["labels"][:, None]  # (B, C)
    if head.kind == "regression":
        each = jnp.square(logits - wanted)
    else:
        yes, no = -jax.nn.log_sigmoid(logits) * wanted, -jax.nn.log_sigmoid(-logits) * (1 - wanted)
        focal = jnp.maximum(1 - jnp.exp(-(yes + no)), LEAST) ** spec.focal_gamma if spec.focal_gamma else 1.0
        each = (yes * jnp.array(spec.class_weights or (1.0,), jnp.float32) + no) * focal
    return jnp.sum(each * real["counted"][:, None]) / wanted.shape[1]


def _by_sequence(logits: jax.Array, whole: Tensors, longest: int) -> jax.Array:
    """(N,) -> (B, longest), next to minus infinity behind each sequence's end."""
    columns = jnp.arange(longest)
    real = columns < whole["lengths"][:, None]
    return jnp.where(real, logits[jnp.where(real, whole["first"][:, None] + columns, 0)], FAR)
