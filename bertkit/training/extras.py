"""What a recipe may ask of training beyond the plain loss and update: class weights, label smoothing, the focal loss,
learning rates that decay with depth, frozen layers.

Legend: N examples, C classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.own.rows import RowFormat
from bertkit.data.tasks.task import Task
from bertkit.engine.interface import NO_LABEL, Backend, Extra, LossSpec
from bertkit.errors import UserError, nearest
from bertkit.model.config import HeadKind, ModelConfig
from bertkit.model.parameters import frozen_names
from bertkit.recipes.recipe import Recipe

BALANCED = "balanced"
LARGEST = 1e6  # weight of a class
KEYS: dict[Extra, str] = {
    "class_weights": "loss.class_weights",
    "label_smoothing": "loss.label_smoothing",
    "focal_gamma": "loss.focal_gamma",
    "layer_decay": "optimizer.layer_decay",
    "freeze": "train.freeze",
    "teacher_logits": "distill.learn=logits",
    "teacher_states": "loss by a teacher's states",
    "teacher_words": "loss by a teacher's masked words",
}
# Which parts of the loss a head has.
OF_HEAD: dict[HeadKind, tuple[Extra, ...]] = {
    "classification": ("class_weights", "label_smoothing", "focal_gamma"),
    "multilabel": ("class_weights", "focal_gamma"),
    "choice": ("label_smoothing", "focal_gamma"),
    "tokens": ("class_weights", "label_smoothing", "focal_gamma"),
}


def asked(recipe: Recipe, task: Task) -> list[Extra]:
    """Those that the recipe changes."""
    logits = bool(recipe.distill.teacher) and recipe.distill.learn == "logits"
    words = task.head.kind == "pretraining"
    said: dict[Extra, bool] = {
        "class_weights": bool(recipe.loss.class_weights),
        "label_smoothing": recipe.loss.label_smoothing > 0,
        "focal_gamma": recipe.loss.focal_gamma > 0,
        "layer_decay": recipe.optimizer.layer_decay != 1,
        "freeze": bool(recipe.train.freeze),
        "teacher_logits": logits and not words,
        "teacher_words": logits and words,
        "teacher_states": bool(recipe.distill.teacher) and recipe.distill.learn != "logits",
    }
    return [extra for extra, wanted in said.items() if wanted]


def check_extras(backend: Backend, task: Task, recipe: Recipe) -> None:
    """Refuse early what this backend or this task's loss does not have."""
    for extra in asked(recipe, task):
        if extra not in backend.capabilities.extras:
            raise UserError(f"backend {backend.name} has no {KEYS[extra]}", "drop it, or choose another with --backend")
        if KEYS[extra].startswith("loss.") and extra not in OF_HEAD.get(task.head.kind, ()):
            raise UserError(f"{KEYS[extra]} is not for {task.name}: its labels are no classes", "drop it")
    if recipe.evaluation.calibrate and calibrated(task, {}) is None:
        raise UserError(f"evaluation.calibrate is for own data with classes, not for {task.name}", "drop it")
    if recipe.loss.label_smoothing and recipe.loss.focal_gamma:
        raise UserError("loss.label_smoothing and loss.focal_gamma exclude each other", "drop one of the two")


def loss_spec(recipe: Recipe, task: Task, features: Features) -> LossSpec:
    """`features`: of the training data, by which weights are balanced."""
    return LossSpec(
        class_weights=class_weights(recipe.loss.class_weights, task, features),
        label_smoothing=recipe.loss.label_smoothing,
        focal_gamma=recipe.loss.focal_gamma,
    )


def class_weights(said: str, task: Task, features: Features) -> tuple[float, ...]:
    """A weight for each of the task's labels; () where none is wanted. Raises UserError for what cannot be.

    Balanced: N / (C * n) for a class of n examples, as scikit-learn has it; (N - n) / n for one of several labels.
    A class that does not occur has 1.
    """
    if not said:
        return ()
    if said != BALANCED:
        return _given(said, task)
    labels = features.labels.get("token_labels", features.labels.get("labels", np.empty(0)))
    if task.head.kind == "multilabel":
        there = labels.sum(0)
        weights = (len(labels) - there) / np.maximum(there, 1)
    else:
        known = labels[labels != NO_LABEL]
        there = np.bincount(known, minlength=task.head.outputs)
        weights = len(known) / (np.count_nonzero(there) * np.maximum(there, 1))
    return tuple(float(weight) if count else 1.0 for weight, count in zip(weights, there, strict=True))


def _given(said: str, task: Task) -> tuple[float, ...]:
    found = dict.fromkeys(task.labels, 1.0)
    for part in said.split(","):
        name, sign, number = part.rpartition("=")
        if name.strip() not in found:
            cure = nearest(name.strip(), task.labels) if sign else f"write label=weight,…, or {BALANCED}"
            raise UserError(f"loss.class_weights: {part.strip()!r} names no label with a weight", cure)
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not 0 <= weight <= LARGEST:
            raise UserError(
                f"loss.class_weights: the weight of {name.strip()} is {number!r}", "give a number from 0 on"
            )
        found[name.strip()] = weight
    if not any(found.values()):
        raise UserError("loss.class_weights: all weights are 0", "leave one larger")
    return tuple(found.values())


def frozen(recipe: Recipe, config: ModelConfig, task: Task) -> tuple[str, ...]:
    """The parameters that `train.freeze` leaves as they are. Raises UserError where the model has fewer layers."""
    said, layers = recipe.train.freeze, config.num_hidden_layers
    if not said:
        return ()
    depth = {"embeddings": 0, "encoder": layers}.get(said)
    depth = int(said) if depth is None else depth
    if depth > layers:
        raise UserError(f"train.freeze = {depth}, but the model has {layers} layers", f"set it to {layers} at the most")
    return frozen_names(config, task.head, depth)


def calibrated(task: Task, details: Mapping[str, Any]) -> Task | None:
    """The task with what was fitted on the dev set; None where nothing is."""
    own = task.format
    if not isinstance(own, RowFormat) or own.kind == "regression":
        return None
    if own.kind == "classification":
        own = dataclasses.replace(own, temperature=details.get("temperature", 1.0))
    else:
        own = dataclasses.replace(own, thresholds=tuple(details.get("thresholds", ())))
    return dataclasses.replace(task, format=own)


def of_calibration(task: Task) -> tuple[str, ...]:
    """What was fitted on the dev set of the run that the task is of, in words; () where nothing was."""
    own = task.format
    if not isinstance(own, RowFormat):
        return ()
    said = [f"probabilities: at temperature {own.temperature:.3g}"] if own.temperature != 1 else []
    pairs = zip(task.labels, own.thresholds, strict=False)
    shown = ", ".join(f"{label[:20]} {value:.2f}" for label, value in [*pairs][:8])
    said += [f"labels: apply from these probabilities on: {shown}"] if shown else []
    return tuple(f"{one}, fitted on the run's dev set" for one in said)


def described(loss: LossSpec, task: Task) -> str:
    """What differs from the plain loss, in words; "" where nothing does."""
    said = []
    if loss.class_weights:
        pairs = zip(task.labels, loss.class_weights, strict=True)
        shown = [f"{label[:20]} {weight:.3g}" for label, weight in pairs]
        said.append(f"class weights {', '.join(shown[:8])}{', …' if len(shown) > 8 else ''}")
    said += [f"label smoothing {loss.label_smoothing:g}"] if loss.label_smoothing else []
    said += [f"focal loss, gamma {loss.focal_gamma:g}"] if loss.focal_gamma else []
    return "; ".join(said)
