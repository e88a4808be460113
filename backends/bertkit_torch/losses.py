"""The heads' losses, each a sum over this micro-batch divided by the number of labels in the whole global batch.

So the sum over micro-batches and ranks is the mean over the global batch, however it was split.

Legend: T tokens, B sequences, M masked positions, C outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import PER_TOKEN, HeadKind, LossSpec
from bertkit_torch.bert import Outputs
from bertkit_torch.imitation import FAR, Stretches, divergence, divergence_of_each, states_loss

LEAST = 1e-6  # of 1 - p in the focal loss: below a gamma of 1 the slope at 0 has no end


@dataclass(frozen=True)
class Rule:
    """How a label's loss is counted; its tensors are made once, so that a captured graph can read them."""

    spec: LossSpec
    weights: Tensor | None = None  # (C,) of each class

    @staticmethod
    def of(spec: LossSpec, where: torch.device) -> Rule:
        weights = torch.from_numpy(np.array(spec.class_weights, np.float32)).to(where) if spec.class_weights else None
        return Rule(spec, weights)

    def classes(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy, as a sum over those that have a label; -100 is none."""
        logits, gamma = logits.float(), self.spec.focal_gamma
        if not gamma:
            smoothing = self.spec.label_smoothing
            return functional.cross_entropy(logits, labels, self.weights, reduction="sum", label_smoothing=smoothing)
        each = functional.cross_entropy(logits, labels, reduction="none")  # -log p
        weighted = each if self.weights is None else each * self.weights[labels.clamp_min(0)]
        return (weighted * (1 - torch.exp(-each)).clamp_min(LEAST) ** gamma).sum()

    def several(self, logits: Tensor, wanted: Tensor, counted: Tensor | None) -> Tensor:
        """Binary cross entropy, of each label by itself; `counted`: 0 for spare rows."""
        logits, gamma = logits.float(), self.spec.focal_gamma
        if not gamma:
            return functional.binary_cross_entropy_with_logits(
                logits, wanted, counted, reduction="sum", pos_weight=self.weights
            )
        each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")  # -log p
        weighted = each if self.weights is None else each * (1 + (self.weights - 1) * wanted)
        weighted = weighted * (1 - torch.exp(-each)).clamp_min(LEAST) ** gamma
        return (weighted if counted is None else weighted * counted).sum()


PLAIN = Rule(LossSpec())


@dataclass(frozen=True)
class LearnedStates:
    """What a loss by a teacher's states reads besides."""

    stretches: Stretches
    width: int  # of each of the student's states
    projection: tuple[Tensor, ...]  # weight and bias, of hidden states to the teacher's width; (): there is none


@dataclass(frozen=True)
class Labels:
    """What the losses read of a batch, on the device."""

    tensors: Mapping[str, Tensor]  # the head's labels; for spans also first, lengths (B,): where each sequence stands
    counts: Mapping[str, int] | Mapping[str, Tensor]  # labels in the whole global batch
    longest: int  # tokens of a sequence, at the most
    each: int = 1  # sequences of an example
    rule: Rule = PLAIN
    learned: LearnedStates | None = None


def masked_words(logits: Tensor, labels: Tensor, count: int | Tensor) -> Tensor:
    """Logits of spare positions may stand behind those that have labels."""
    return PLAIN.classes(logits[: len(labels)], labels) / count


def loss(
    kind: HeadKind, outputs: Outputs, labels: Labels, words: Callable[[Tensor, Tensor, Any], Tensor] = masked_words
) -> Tensor:
    """The scalar to differentiate. `words`: the masked words' part of pre-training's."""
    spec, teacher, of_states = labels.rule.spec, labels.rule.spec.teacher, None
    if spec.states is not None and labels.learned is not None:
        wanted, learned = labels.tensors["teacher_states"], labels.learned
        given = outputs["hidden"], wanted, learned.stretches, labels.counts, learned.width
        of_states = states_loss(spec.states, *given, learned.projection)
        if kind == "encoder":
            return of_states
    if teacher is None:
        found = hard_loss(kind, outputs, labels, words)
    else:
        found = teacher.soft * soft_loss(kind, outputs, labels, teacher.temperature)
        if teacher.hard:  # not by `words`, which may leave gradients where the logits were
            found = found + teacher.hard * hard_loss(kind, outputs, labels)
    return found if of_states is None else found + of_states


def hard_loss(
    kind: HeadKind, outputs: Outputs, labels: Labels, words: Callable[[Tensor, Tensor, Any], Tensor] = masked_words
) -> Tensor:
    """By labels."""
    batch, sequences = labels.tensors, labels.counts["sequences"]
    if kind == "classification":
        return labels.rule.classes(outputs["logits"], batch["labels"]) / sequences
    if kind == "regression":  # mean squared error
        wanted = batch["labels"].float()
        found = outputs["logits"] if wanted.dim() > 1 else outputs["logits"][:, 0]
        if "counted" in batch:
            counted = _counted(batch, wanted)
            found, wanted = found * counted, wanted * counted
        return functional.mse_loss(found, wanted, reduction="sum") / (sequences * _outputs(wanted))
    if kind == "multilabel":  # binary cross entropy, of each label by itself
        wanted = batch["labels"].float()
        real = _counted(batch, wanted) if "counted" in batch else None
        return labels.rule.several(outputs["logits"], wanted, real) / (sequences * _outputs(wanted))
    if kind == "choice":  # among the sequences of an example; what is over is spare
        examples = len(outputs["logits"]) // labels.each
        logits = outputs["logits"][: examples * labels.each].view(examples, labels.each)
        return labels.rule.classes(logits, batch["labels"][:examples]) / sequences
    if kind == "tokens":
        return labels.rule.classes(outputs["logits"], batch["token_labels"]) / labels.counts["tokens"]
    if kind == "span":  # mean of the start's and the end's
        start = PLAIN.classes(_by_sequence(outputs["start_logits"], labels), batch["start_positions"])
        end = PLAIN.classes(_by_sequence(outputs["end_logits"], labels), batch["end_positions"])
        return (start + end) / (2 * sequences)
    masked = words(outputs["masked_logits"], batch["masked_labels"], labels.counts["masked"])
    return masked + PLAIN.classes(outputs["logits"], batch["labels"]) / sequences


def soft_loss(kind: HeadKind, outputs: Outputs, labels: Labels, temperature: float) -> Tensor:
    """By the teacher's logits."""
    batch, sequences = labels.tensors, labels.counts["sequences"]
    if kind == "pretraining":
        wanted, known = batch["teacher_masked_logits"], batch["masked_labels"] >= 0
        each_word = divergence(outputs["masked_logits"][: len(wanted)], wanted, temperature)
        return (each_word * known).sum() / labels.counts["masked"]
    wanted = batch["teacher_token_logits" if kind in PER_TOKEN else "teacher_logits"]
    if kind == "span":  # mean of the start's and the end's
        names = ("start_logits", "end_logits")
        found = [_by_sequence(outputs[name], labels, FAR) for name in names]
        theirs = [_by_sequence(wanted[:, side], labels, FAR) for side in range(2)]
        each = [divergence(one, other, temperature) for one, other in zip(found, theirs, strict=True)]
        return torch.stack(each).sum() / (2 * sequences)
    if kind == "choice":
        examples = len(outputs["logits"]) // labels.each
        logits = outputs["logits"][: examples * labels.each].view(examples, labels.each)
        counted = batch["counted"].view(-1)[:: labels.each][:examples] if "counted" in batch else 1.0
        return (divergence(logits, wanted[:examples], temperature) * counted).sum() / sequences
    if kind == "tokens":
        counted = batch["token_labels"] >= 0
        return (divergence(outputs["logits"], wanted, temperature) * counted).sum() / labels.counts["tokens"]
    counted = batch.get("counted", 1.0)
    if kind == "classification":
        return (divergence(outputs["logits"], wanted, temperature) * counted).sum() / sequences
    if kind == "multilabel":
        each_label = divergence_of_each(outputs["logits"], wanted, temperature)
    else:
        each_label = (outputs["logits"].float() - wanted).square()
    return (each_label.mean(-1) * counted).sum() / sequences


def _outputs(labels: Tensor) -> int:
    """How many outputs have a label each."""
    return labels.shape[1] if labels.dim() > 1 else 1


def _counted(batch: Mapping[str, Tensor], labels: Tensor) -> Tensor:
    """1 for the sequences that have labels, 0 for spare ones; as `labels` is shaped."""
    return batch["counted"].view(-1, *(1,) * (labels.dim() - 1))


def _by_sequence(logits: Tensor, labels: Labels, behind: float = float("-inf")) -> Tensor:
    """(T,) -> (B, longest), minus infinity behind each sequence's end, or what is given."""
    first, lengths = labels.tensors["first"][:, None], labels.tensors["lengths"][:, None]
    columns = torch.arange(labels.longest, device=logits.device)
    real = columns < lengths
    return logits[(first + columns).where(real, first)].masked_fill(~real, behind)
