"""Distillation on pre-training data as a course: a student learns states of a teacher's layers, or how it fills in
masked words.

Both read the same masked text of the shards. The teacher is asked for each micro-batch as it comes: what it gives of so
much text is too much to be kept. Sanh et al. 2019, arXiv:1910.01108 (masked words); Jiao et al. 2020,
arXiv:1909.10351 (states).

Legend: T tokens, M masked positions, V vocabulary, D width of the states side by side.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bertkit.console import Display
from bertkit.data.pretraining.evaluation_set import EvaluationSet
from bertkit.data.tasks.task import Answered
from bertkit.distributed.world import World
from bertkit.engine.interface import (
    NO_LABEL,
    Arrays,
    Batch,
    Engine,
    Job,
    Limits,
    LossSpec,
    SoftLabels,
    Update,
    sequence_lengths,
)
from bertkit.engine.teacher_losses import StateSums, divergence, state_sums
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.model.loading import ModelSource, starting_weights
from bertkit.model.parameters import count, initial_value, shapes
from bertkit.recipes.recipe import Recipe
from bertkit.training.evaluation import Predicts
from bertkit.training.learning_states import SCORED_TOKENS, STATE_LOSS, learning_states, with_projection
from bertkit.training.loop import Plan
from bertkit.training.objective import Derived, Objective
from bertkit.training.prefetch import ahead
from bertkit.training.setup import ComputeTarget, RunSetup, warn_of
from bertkit.training.teacher import (
    Teacher,
    asking,
    check_vocabulary,
    encoding_teacher,
    teacher_source,
    teacher_target,
)
from bertkit.training.teacher_terms import LearnedStates, learned_states, learned_words

TEXT = ("input_ids", "token_type_ids", "cu_seqlens", "example_ids")  # of a batch, without what was masked
AT_ONCE = 64  # masked positions that are compared at a time: V of them as float64 are 16 MB
UNLEARNED = ("bert.pooler.", "cls.seq_relationship.")  # what masked words do not depend on


class OnShards(Objective, Protocol):
    """Pre-training's objective."""

    @property
    def world(self) -> World: ...

    def scored_on(self, step: int) -> EvaluationSet:
        """What it is scored on after update `step`."""

    def score(self, engine: Predicts, display: Display, step: int) -> tuple[dict[str, float], list[Answered]]:
        """As `Objective.score`, of whatever predicts."""

    def changed(self, setup: RunSetup, plan: Plan, scored_on: Callable[[EvaluationSet], EvaluationSet]) -> OnShards:
        """The same with these; `scored_on`: of each phase's set what is scored."""


@dataclass
class GeneralDistillation(Derived):
    """The course of one process."""

    base: OnShards  # its job is the student's
    teacher: Teacher
    recipe: Recipe
    learned: LearnedStates
    asked: Predicts | None = None  # the teacher, from `begin` to `close`
    passes: int = 0  # sequences of updates that this rank's teacher computed
    seconds: float = 0.0  # that this took
    facts: dict[str, Any] = field(default_factory=dict)  # for the record
    held: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def setup(self) -> RunSetup:
        return self.base.setup

    @property
    def of_words(self) -> bool:
        return self.setup.job.head.kind == "pretraining"

    def shape(self) -> dict[str, Any]:
        return dict(self.base.shape()) | {"teacher": self.teacher.digest, "learned": self.learned.said}

    def introduce(self, display: Display) -> None:
        self.base.introduce(display)
        display.say(f"{self.teacher.said}; learned: {self.learned.said}")

    def begin(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        limits = self.setup.job.limits
        answers = Limits((), (*limits.training, *limits.answers)) if limits else None
        self.asked = self.held.enter_context(asking(self.teacher, recipe, self.base.world, engine.gather, answers))

    def close(self) -> None:
        self.held.close()
        self.asked = None

    def updates(self, first: int, last: int) -> Iterator[Update]:
        with contextlib.closing(ahead(self.base.updates(first, last))) as plain:
            for update in plain:
                counts = dict(update.label_counts)
                if not self.of_words:
                    del counts["masked"]
                taught = tuple(self._taught(batch) for batch in update.micro_batches)
                yield Update(update.step, taught, counts)

    def _taught(self, batch: Batch) -> Batch:
        """The batch with what the teacher gives of it."""
        mine = dict(unpaired(batch)) if self.of_words else {name: batch[name] for name in TEXT}
        if len(sequence_lengths(batch)):
            start = time.perf_counter()
            mine |= self._given(batch)
            self.seconds += time.perf_counter() - start
            self.passes += len(sequence_lengths(batch))
        return mine

    def _given(self, batch: Batch) -> Arrays:
        if self.asked is None:
            raise RuntimeError("the teacher is asked before the run begins")  # a fault of bertkit's
        if not self.of_words:
            return {"teacher_states": self.asked.predict({name: batch[name] for name in TEXT})["hidden"]}
        found = self.asked.predict(batch)
        given = {"teacher_masked_logits": found["masked_logits"]}
        return given | ({"teacher_states": found["hidden"]} if self.learned.loss else {})

    def score(self, engine: Engine, display: Display, step: int) -> tuple[dict[str, float], list[Answered]]:
        passes, seconds = engine.gather(np.array([[self.passes, self.seconds]])).T
        self.facts |= {"teacher_forward_passes": int(passes.sum()), "teacher_seconds": float(seconds.max())}
        if not self.of_words:
            return {STATE_LOSS: self._state_loss(engine, display, step)}, []
        if self.asked is None:
            raise RuntimeError("the teacher is asked before the run begins")  # a fault of bertkit's
        both = _BothAnswer(engine, self.asked)
        metrics, answered = self.base.score(both, display, step)
        masked, same, far, right, mine, theirs = engine.gather(both.sums[None]).sum(0).tolist()
        self.facts |= {"teacher_metrics": {"mlm_accuracy": right / max(1.0, masked)}}
        self.facts |= {"dev_seconds": mine, "teacher_dev_seconds": theirs}
        return metrics | {"agreement": same / max(1.0, masked), "teacher_kl": far / max(1.0, masked)}, answered

    def _state_loss(self, engine: Engine, display: Display, step: int) -> float:
        job, found, world = self.setup.job, self.base.scored_on(step), self.base.world
        spec, weights = self.learned.loss, engine.weights()
        if spec is None:
            raise RuntimeError("no states are learned")  # a fault of bertkit's
        sums = StateSums(np.zeros(len(spec.terms)))
        with display.progress("evaluating", len(found.examples)) as bar:
            for batch in found.batches(self.setup.scored_at_once, world.rank, world.size):
                text = {name: batch[name] for name in TEXT} | self._given(batch)
                states = engine.predict(text)["hidden"]
                sums += state_sums(spec, states, job.model.hidden_size, text, weights)
                bar.add(len(sequence_lengths(batch)))
        total = engine.gather(np.array([[*sums.terms, sums.tokens, sums.pairs]])).sum(0)
        return StateSums(total[:-2], int(total[-2]), int(total[-1])).loss(spec)

    def added(self) -> dict[str, Any]:
        config, student, head = self.teacher.source.config, self.setup.job.model, self.setup.task.head
        told = {
            "teacher": self.teacher.name,
            "teacher_sha256": self.teacher.digest,
            "learned": self.recipe.distill.learn,
            "layers": {"teacher": config.num_hidden_layers, "student": student.num_hidden_layers},
            "parameters": {"teacher": count(config, head), "student": count(student, head)},
        }
        return {"distillation": told | self.facts}

    def weights(self, engine: Engine) -> Arrays:
        """What is not learned is as it was."""
        found = engine.weights()
        return {name: found.get(name, array) for name, array in self.setup.fit.weights.items()}

    def describe(self) -> dict[str, Any]:
        told = dict(self.base.describe())
        fairness = told["fairness"]
        said = f"{fairness['loss_scale']}; teacher {self.teacher.digest[:12]}, {self.learned.said}"
        return told | {"fairness": fairness | {"loss_scale": said}}


@dataclass
class _BothAnswer:
    """A student's engine, whose answers are compared with its teacher's as they are asked for."""

    student: Engine
    teacher: Predicts
    # masked positions, of both alike, KL, those that the teacher has right; seconds of the student and of the teacher
    sums: np.ndarray = field(default_factory=lambda: np.zeros(6))

    def predict(self, batch: Batch) -> Arrays:
        times = [time.perf_counter()]
        found = self.student.predict(batch)
        times.append(time.perf_counter())
        ours, theirs = found["masked_logits"], self.teacher.predict(batch)["masked_logits"]
        times.append(time.perf_counter())
        best = theirs.argmax(1)
        parts = range(0, len(ours), AT_ONCE)
        far = sum(float(divergence(ours[n : n + AT_ONCE], theirs[n : n + AT_ONCE]).sum()) for n in parts)
        same, right = (ours.argmax(1) == best).sum(), (best == batch["masked_labels"]).sum()
        self.sums += [len(ours), same, far, right, *np.diff(times)]
        return found

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.student.gather(rows)


class Unpaired(EvaluationSet):
    """A set of which no next sentences are scored."""

    def _made(self, size: int, rank: int, ranks: int) -> Iterator[Batch]:
        for batch in super()._made(size, rank, ranks):
            yield unpaired(batch)


def unpaired(batch: Batch) -> Batch:
    """The batch without labels of next sentences."""
    return {**batch, "labels": np.full_like(batch["labels"], NO_LABEL)}


def general_distillation(base: OnShards, recipe: Recipe, display: Display, dry_run: bool) -> GeneralDistillation:
    """`base`, pre-training on the same data, with a teacher. Raises UserError for whatever the user can put right."""
    setup, section = base.setup, recipe.distill
    source = teacher_source(recipe, setup.task, display.say, not dry_run)
    check_vocabulary(section.teacher, source, setup.source.vocabulary)
    plan = dataclasses.replace(base.plan, ahead=False)
    if section.learn == "logits":
        teacher, learned = _words(recipe, setup, source, dry_run)
        scored: type[EvaluationSet] = Unpaired
        job = _of_words(recipe, setup.job, learned)
    else:
        if recipe.evaluation.target_mlm_accuracy:
            raise UserError(
                f"evaluation.target_mlm_accuracy is of masked words, and distill.learn={section.learn} learns none",
                "drop it",
            )
        learned = learned_states(section, setup.source.config, source.config)
        target = teacher_target(recipe, learned.teacher, setup.target, dry_run)
        teacher = encoding_teacher(recipe, learned.teacher, target, source)
        start = with_projection(setup, learned, display.say)
        setup = learning_states(setup, learned, start)
        scored, job = EvaluationSet, dataclasses.replace(setup.job, limits=_without_masks(setup.job.limits))
    base = base.changed(
        dataclasses.replace(setup, job=job), plan, lambda found: _scored(found, scored, section.learn != "logits")
    )
    return GeneralDistillation(base, teacher, recipe, learned)


def _words(recipe: Recipe, setup: RunSetup, source: ModelSource, dry_run: bool) -> tuple[Teacher, LearnedStates]:
    section, config = recipe.distill, source.config
    if config.vocab_size != setup.source.config.vocab_size:
        raise UserError(
            f"the teacher {section.teacher} has {config.vocab_size} rows of word embeddings and the model that learns "
            f"{setup.source.config.vocab_size}, so that their masked words are not the same",
            "start from the teacher's layers (--layers), or learn its states (--stages relations)",
        )
    learned = learned_words(section, setup.task.head, setup.source.config, config)
    target = teacher_target(recipe, learned.teacher, setup.target, dry_run)
    return _filling_teacher(recipe, learned.teacher, target, source), learned


def _filling_teacher(recipe: Recipe, head: Head, target: ComputeTarget, source: ModelSource) -> Teacher:
    """The teacher with its head for masked words. Raises UserError where it has none."""
    fit = starting_weights(source, head, recipe.seed)
    warn_of(fit)
    if lacking := [name for name in (*fit.missing, *fit.reshaped) if name.startswith("cls.predictions.")]:
        raise UserError(
            f"the teacher {recipe.distill.teacher} has no trained head for masked words: it lacks {lacking[0]}",
            "name a pre-trained model that has one, or learn its states (--stages relations)",
        )
    return Teacher(recipe.distill.teacher, source, head, fit, target)


def _of_words(recipe: Recipe, job: Job, learned: LearnedStates) -> Job:
    """The student's job with what is learned of masked words, and of its last hidden states."""
    section, head = recipe.distill, learned.student
    weights = {
        name: job.weights[name] if name in job.weights else initial_value(name, shape, job.model, job.seed)
        for name, shape in shapes(job.model, head).items()
    }
    frozen = dict.fromkeys((*job.frozen, *(name for name in weights if name.startswith(UNLEARNED))))
    soft = SoftLabels(section.temperature, section.soft, section.hard)
    loss = LossSpec(teacher=soft, states=learned.loss)
    return dataclasses.replace(job, head=head, weights=weights, loss=loss, frozen=tuple(frozen))


def _scored(found: EvaluationSet, kind: type[EvaluationSet], few: bool) -> EvaluationSet:
    """The evaluation set as this kind; `few`: no more of it than so many tokens, evenly spaced."""
    examples = found.examples
    if few and (whole := int(found.lengths.sum())) > SCORED_TOKENS:
        wanted = max(1, len(examples) * SCORED_TOKENS // whole)
        examples = examples[np.linspace(0, len(examples) - 1, wanted).round().astype(np.int64)]
    return kind(found.data, examples, found.kind, found.place)


def _without_masks(limits: Limits | None) -> Limits | None:
    """Of batches that bring no masked positions."""
    if limits is None:
        return None
    kinds = (limits.training, limits.answers)
    training, answers = (
        tuple(
            dataclasses.replace(one, masked=0, drawn=tuple(dataclasses.replace(each, masked=0) for each in one.drawn))
            for one in kind
        )
        for kind in kinds
    )
    return Limits(training, answers)
