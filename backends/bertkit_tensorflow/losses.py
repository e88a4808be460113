"""The heads' losses, each a sum over this micro-batch divided by the number of labels in the whole global batch.

So the sum over micro-batches and ranks is the mean over the global batch, however it was split.

Legend: N slots, B sequences, M masked positions, C outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from bertkit.plugin import PER_TOKEN, Head, LossSpec
from bertkit_tensorflow.model import FAR

LEAST = 1e-6  # of 1 - p in the focal loss: below a gamma of 1 the slope at 0 has no end
PLAIN = LossSpec()
Tensors = Mapping[str, tf.Tensor]


def loss(head: Head, found: Tensors, whole: Tensors, real: Tensors, longest: int, spec: LossSpec) -> tf.Tensor:
    """The scalar to differentiate. `real`: counts (2,), and the labels that are real numbers."""
    teacher = spec.teacher
    if teacher is None:
        return hard_loss(head, found, whole, real, longest, spec)
    value = teacher.soft * soft_loss(head, found, whole, real, longest, teacher.temperature)
    return value + teacher.hard * hard_loss(head, found, whole, real, longest, spec) if teacher.hard else value


def hard_loss(head: Head, found: Tensors, whole: Tensors, real: Tensors, longest: int, spec: LossSpec) -> tf.Tensor:
    """By labels."""
    sequences, positions = real["counts"][0], real["counts"][1]
    if head.kind == "classification":
        return classes(found["logits"], whole["labels"], spec) / sequences
    if head.kind in ("regression", "multilabel"):
        return _real_labels(head, found["logits"], real, spec) / sequences
    if head.kind == "choice":  # among the sequences of an example; what is over is spare
        examples = found["logits"].shape[0] // head.sequences_each
        logits = tf.reshape(found["logits"][: examples * head.sequences_each], [examples, head.sequences_each])
        return classes(logits, whole["labels"][:examples], spec) / sequences
    if head.kind == "tokens":
        return classes(found["logits"], whole["token_labels"], spec) / positions
    if head.kind == "span":  # mean of the start's and the end's
        start = classes(_by_sequence(found["start_logits"], whole, longest), whole["start_positions"], PLAIN)
        end = classes(_by_sequence(found["end_logits"], whole, longest), whole["end_positions"], PLAIN)
        return (start + end) / (2 * sequences)
    masked = classes(found["masked_logits"], whole["masked_labels"], PLAIN) / positions
    return masked + classes(found["logits"], whole["labels"], PLAIN) / sequences


def soft_loss(head: Head, found: Tensors, whole: Tensors, real: Tensors, longest: int, temperature: float) -> tf.Tensor:
    """By the teacher's logits."""
    sequences, positions = real["counts"][0], real["counts"][1]
    wanted = real["teacher_token_logits" if head.kind in PER_TOKEN else "teacher_logits"]
    if head.kind == "span":  # mean of the start's and the end's
        total = 0.0
        for side, name in enumerate(("start_logits", "end_logits")):
            ours, theirs = (_by_sequence(one, whole, longest) for one in (found[name], wanted[:, side]))
            total += tf.reduce_sum(divergence(ours, theirs, temperature))
        return total / (2 * sequences)
    if head.kind == "tokens":
        counted = tf.cast(whole["token_labels"] >= 0, tf.float32)
        return tf.reduce_sum(divergence(found["logits"], wanted, temperature) * counted) / positions
    if head.kind == "choice":
        examples = found["logits"].shape[0] // head.sequences_each
        logits = tf.reshape(found["logits"][: examples * head.sequences_each], [examples, head.sequences_each])
        counted = real["counted"][:: head.sequences_each][:examples]
        return tf.reduce_sum(divergence(logits, wanted[:examples], temperature) * counted) / sequences
    if head.kind == "classification":
        each = divergence(found["logits"], wanted, temperature)
    elif head.kind == "multilabel":
        ours, theirs = (tf.stack([one, tf.zeros_like(one)], -1) for one in (found["logits"], wanted))
        each = tf.reduce_mean(divergence(ours, theirs, temperature), -1)
    else:
        each = tf.reduce_mean(tf.square(found["logits"] - wanted), -1)
    return tf.reduce_sum(each * real["counted"]) / sequences


def divergence(student: tf.Tensor, teacher: tf.Tensor, temperature: float) -> tf.Tensor:
    """(…, C) logits each -> (…,) KL(teacher || student) at the temperature, times its square."""
    ours, theirs = tf.nn.log_softmax(student / temperature), tf.nn.log_softmax(teacher / temperature)
    return tf.reduce_sum(tf.exp(theirs) * (theirs - ours), -1) * temperature**2


def classes(logits: tf.Tensor, labels: tf.Tensor, spec: LossSpec) -> tf.Tensor:
    """Cross entropy, as a sum over those that have a label; below 0 is none."""
    known = labels >= 0
    kept = tf.where(known, labels, 0)
    each = tf.nn.sparse_softmax_cross_entropy_with_logits(kept, logits)  # -log p
    weights = tf.constant(spec.class_weights or (1.0,) * logits.shape[-1], tf.float32)
    weighted = each * tf.gather(weights, kept) if spec.class_weights else each
    if spec.focal_gamma:
        weighted *= tf.maximum(1 - tf.exp(-each), LEAST) ** spec.focal_gamma
    elif spec.label_smoothing:
        spread = -tf.reduce_sum(tf.nn.log_softmax(logits) * weights, -1) / logits.shape[-1]
        weighted = (1 - spec.label_smoothing) * weighted + spec.label_smoothing * spread
    return tf.reduce_sum(tf.where(known, weighted, 0.0))


def _real_labels(head: Head, logits: tf.Tensor, real: Tensors, spec: LossSpec) -> tf.Tensor:
    """Squared errors, or binary cross entropy of each label by itself; the mean over a sequence's labels, summed."""
    wanted = real["labels"] if head.label_shape else real["labels"][:, None]  # (B, C)
    if head.kind == "regression":
        each = tf.square(logits - wanted)
    else:
        each = tf.nn.sigmoid_cross_entropy_with_logits(wanted, logits)  # -log p
        focal = tf.maximum(1 - tf.exp(-each), LEAST) ** spec.focal_gamma if spec.focal_gamma else 1.0
        if spec.class_weights:
            each = tf.nn.weighted_cross_entropy_with_logits(wanted, logits, tf.constant(spec.class_weights))
        each *= focal
    return tf.reduce_sum(each * real["counted"][:, None]) / wanted.shape[1]


def _by_sequence(logits: tf.Tensor, whole: Tensors, longest: int) -> tf.Tensor:
    """(N,) -> (B, longest), next to minus infinity behind each sequence's end."""
    columns = tf.range(longest, dtype=whole["first"].dtype)
    real = columns < whole["lengths"][:, None]
    return tf.where(real, tf.gather(logits, tf.where(real, whole["first"][:, None] + columns, 0)), FAR)
