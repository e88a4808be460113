"""What the torch engine can do on any device, for the capabilities of the backends on it. It imports no torch."""

from __future__ import annotations

from bertkit.plugin import Extra, HeadKind

HEADS: tuple[HeadKind, ...] = (
    "classification", "multilabel", "regression", "choice", "tokens", "span", "pretraining", "encoder",
)  # fmt: skip
EXTRAS: tuple[Extra, ...] = (
    "class_weights", "label_smoothing", "focal_gamma", "layer_decay", "freeze", "teacher_logits", "teacher_states",
    "teacher_words",
)  # fmt: skip
