"""Which states a student learns of its teacher's: MiniLMv2's relations, TinyBERT's losses, or those of the last layer.

Wang et al. 2021, arXiv:2012.15828; Jiao et al. 2020, arXiv:1909.10351; the last layer's are those of
DeepLearningExamples' BERT for PyTorch (`distillation/`, the file for the backbone).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from bertkit.engine.interface import StatesLoss, StateTerm
from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig, StatePart
from bertkit.model.pruning import every_kth
from bertkit.recipes.sections import DistillSection

RELATION_HEADS = 48  # of BERT-base in MiniLMv2
State = tuple[StatePart, int]


@dataclass(frozen=True)
class LearnedStates:
    """The states of both models, and the losses between them."""

    student: Head
    teacher: Head
    loss: StatesLoss | None  # None: of masked words alone
    said: str  # in words


def learned_states(section: DistillSection, student: ModelConfig, teacher: ModelConfig) -> LearnedStates:
    """Raises UserError where the two models do not fit what is to be learned."""
    if section.learn == "relations":
        return _relations(section, student, teacher)
    if student.num_attention_heads != teacher.num_attention_heads:
        raise UserError(
            f"distill.learn={section.learn} compares attention head by head, but the model has "
            f"{student.num_attention_heads} heads and the teacher {teacher.num_attention_heads}",
            "set distill.learn=relations, which needs no equal number",
        )
    return _tinybert(student, teacher) if section.learn == "tinybert" else _last_layer(student, teacher)


def _relations(section: DistillSection, student: ModelConfig, teacher: ModelConfig) -> LearnedStates:
    layers = teacher.num_hidden_layers
    layer = section.teacher_layer or (21 if layers == 24 else layers)
    if layer > layers:
        raise UserError(
            f"distill.teacher_layer = {layer}, but the teacher has {layers} layers", f"set it to {layers} at the most"
        )
    common = math.gcd(student.hidden_size, teacher.hidden_size)
    heads = section.relation_heads or max(n for n in range(1, RELATION_HEADS + 1) if common % n == 0)
    if common % heads:
        raise UserError(
            f"distill.relation_heads = {heads} does not divide both hidden sizes, {student.hidden_size} and "
            f"{teacher.hidden_size}",
            "take a common divisor, or 0",
        )
    parts: tuple[StatePart, ...] = ("query", "key", "value")
    terms = tuple(StateTerm("relations", (n,), (n,), heads=heads) for n in range(3))
    last = student.num_hidden_layers
    said = f"relations of queries, keys and values in {heads} heads, layer {last} of the teacher's layer {layer}"
    return _made(student, teacher, [(p, last) for p in parts], [(p, layer) for p in parts], terms, said)


def _tinybert(student: ModelConfig, teacher: ModelConfig) -> LearnedStates:
    layers = every_kth(teacher.num_hidden_layers, student.num_hidden_layers)
    mine: list[State] = [("hidden", 0)]
    theirs: list[State] = [("hidden", 0)]
    terms = [StateTerm("mse", (0,), (0,))]
    for own, other in enumerate(layers, 1):
        place = len(mine)
        for states, layer in ((mine, own), (theirs, other + 1)):
            states += [("query", layer), ("key", layer), ("hidden", layer)]
        terms.append(
            StateTerm("attention_mse", (place, place + 1), (place, place + 1), heads=student.num_attention_heads)
        )
        terms.append(StateTerm("mse", (place + 2,), (place + 2,)))
    said = f"TinyBERT's: embeddings, attention and hidden states of the teacher's layers {_numbers(layers)}"
    return _made(student, teacher, mine, theirs, tuple(terms), said)


def _last_layer(student: ModelConfig, teacher: ModelConfig) -> LearnedStates:
    heads = student.num_attention_heads
    parts: tuple[StatePart, ...] = ("query", "key", "context", "hidden")
    terms = (
        StateTerm("attention_kl", (0, 1), (0, 1), heads=heads),
        StateTerm("relations", (2,), (2,), heads=heads),
        StateTerm("cosine", (3,), (3,)),
    )
    mine, theirs = student.num_hidden_layers, teacher.num_hidden_layers
    said = "attention, relations of what it gives, and hidden states of the last layer"
    return _made(student, teacher, [(p, mine) for p in parts], [(p, theirs) for p in parts], terms, said)


def learned_words(section: DistillSection, head: Head, student: ModelConfig, teacher: ModelConfig) -> LearnedStates:
    """Masked words' logits, labels beside them, and the last hidden states, as DistilBERT's (Sanh et al. 2019,
    arXiv:1910.01108); `head`: pre-training's."""
    said = f"masked words: logits at temperature {section.temperature:g}, weight {section.soft:g}"
    said += f"; labels, weight {section.hard:g}" if section.hard else ""
    if not section.cosine:
        return LearnedStates(head, head, None, said)
    projection = teacher.hidden_size if student.hidden_size != teacher.hidden_size else 0
    said += f"; 1 - cosine of the last hidden states, weight {section.cosine:g}"
    said += f", projected to {projection}" if projection else ""
    mine, theirs = (
        dataclasses.replace(head, states=(("hidden", config.num_hidden_layers),)) for config in (student, teacher)
    )
    terms = (StateTerm("cosine", (0,), (0,), weight=section.cosine),)
    loss = StatesLoss(terms, teacher.hidden_size)
    return LearnedStates(dataclasses.replace(mine, projection=projection), theirs, loss, said)


def _made(
    student: ModelConfig,
    teacher: ModelConfig,
    mine: list[State],
    theirs: list[State],
    terms: tuple[StateTerm, ...],
    said: str,
) -> LearnedStates:
    hidden = any(term.form in ("mse", "cosine") for term in terms)
    projection = teacher.hidden_size if hidden and student.hidden_size != teacher.hidden_size else 0
    said += f", projected to {projection}" if projection else ""
    return LearnedStates(
        _head(student, mine, projection), _head(teacher, theirs), StatesLoss(terms, teacher.hidden_size), said
    )


def _head(config: ModelConfig, states: list[State], projection: int = 0) -> Head:
    kind: Literal["encoder"] = "encoder"
    return Head(kind, len(states) * config.hidden_size, states=tuple(states), projection=projection)


def _numbers(layers: tuple[int, ...]) -> str:
    return ", ".join(str(layer + 1) for layer in layers)
