"""Distillation as a course: examples of a task, labelled by a trained model's logits, or by states of its layers.

Hinton et al. 2015, arXiv:1503.02531. A row's logits or states are computed once, whatever the number of epochs.

Legend: N examples, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.sampler import by_length
from bertkit.data.tasks.metrics import probabilities
from bertkit.data.tasks.task import Answered, Part, Task
from bertkit.distributed.consistency import everybody
from bertkit.distributed.world import World
from bertkit.engine.interface import NO_LABEL, Arrays, Engine, SoftLabels
from bertkit.engine.teacher_losses import StateSums, soft_loss, state_sums
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.model.parameters import count
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.sections import DistillSection
from bertkit.training.evaluation import check_scored, labelled
from bertkit.training.finetuning import FineTuning, fine_tuning
from bertkit.training.learning_states import SCORED_TOKENS, STATE_LOSS, learning_states, with_projection
from bertkit.training.objective import Derived
from bertkit.training.recipe_parts import cache_folder
from bertkit.training.setup import FineTuningSetup
from bertkit.training.teacher import (
    Teacher,
    TeacherAnswers,
    answering_fit,
    as_labels,
    ask_states,
    asking,
    check_room,
    check_vocabulary,
    encoding_teacher,
    keep_logits,
    kept_logits,
    logits_key,
    states_key,
    teacher_source,
    teacher_target,
    timed_outputs,
)
from bertkit.training.teacher_terms import LearnedStates, learned_states


@dataclass
class Distillation(Derived):
    """The course of one process."""

    base: FineTuning  # on the same rows, with what the teacher gave after `begin`; of states its job is the encoder's
    teacher: Teacher
    learned: LearnedStates | None  # None: logits
    dev: list[Mapping[str, np.ndarray]] = field(default_factory=list)  # what it gave for each dev set
    facts: dict[str, Any] = field(default_factory=dict)  # for the record

    @property
    def setup(self) -> FineTuningSetup:
        return self.base.setup

    def shape(self) -> dict[str, Any]:
        return self.base.shape() | {"teacher": self.teacher.digest}

    def introduce(self, display: Display) -> None:
        self.base.introduce(display)
        display.say(f"{self.teacher.said}; learned: {self.what}")

    @property
    def what(self) -> str:
        """What is learned, in words."""
        spec = self.setup.job.loss.teacher
        if self.learned:
            return self.learned.said
        if spec is None:
            return "labels alone"
        weights = f", weight {spec.soft:g}, and labels, weight {spec.hard:g}" if spec.hard else ""
        return f"logits at temperature {spec.temperature:g}{weights}"

    def begin(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        self.facts |= _facts(self.teacher, self.setup, recipe)
        if self.learned:
            self._ask_for_states(engine, recipe, display)
        else:
            self._ask_for_logits(engine, recipe, display)

    def _ask_for_logits(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        setup, world, head = self.setup, self.base.world, self.teacher.head
        size = setup.scored_at_once
        kept = self._kept_logits(engine, recipe)
        with asking(self.teacher, recipe, world, engine.gather) as asked:
            if setup.job.loss.teacher is None:
                told = TeacherAnswers({}, 0, 0.0)  # labels alone: it is asked for the dev set's
            elif kept is None:
                told = timed_outputs(asked, head, setup.train.features, size, world, display)
                if world.is_first:
                    keep_logits(*self._logits_place(recipe), told.arrays)
            else:
                told = TeacherAnswers(kept, 0, 0.0)
                display.say("teacher: its logits are kept from an earlier run")
            metrics: dict[str, float] = {}
            seconds = 0.0
            for part in setup.dev:
                found = timed_outputs(asked, head, part.features, size, world, display)
                answered = setup.task.format.answer(setup.task, part, found.arrays, setup.rules)
                metrics |= labelled(answered.metrics, part)
                self.dev.append(found.arrays)
                seconds += found.seconds
        if told.arrays:
            self._learn(as_labels(head, told.arrays))
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        display.say(f"teacher on the dev set: {shown}")
        self.facts |= _counts(told) | {"teacher_metrics": metrics, "teacher_dev_seconds": seconds}
        sure = {"rows": confidence(head, told.arrays), "dev": confidence(head, self.dev[0])}
        if sure["rows"] is not None:
            display.say(
                f"teacher's probability of its own answer, on average: {sure['rows']:.3f} on the rows to learn from, "
                f"{sure['dev']:.3f} on the dev set"
            )
            self.facts |= {"teacher_confidence": sure}

    def _logits_place(self, recipe: Recipe) -> tuple[Path | None, str]:
        return cache_folder(recipe.data), logits_key(self.teacher, self.setup.task, self.setup.train.features)

    def _kept_logits(self, engine: Engine, recipe: Recipe) -> Mapping[str, np.ndarray] | None:
        """Where every process has them."""
        kept = kept_logits(*self._logits_place(recipe))
        return kept if everybody(engine.gather, kept is not None) else None

    def _ask_for_states(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        setup, world, head = self.setup, self.base.world, self.teacher.head
        features, cache = setup.train.features, cache_folder(recipe.data)
        folder = check_room(cache, head, features, recipe.distill.cache_gb)
        with asking(self.teacher, recipe, world, engine.gather) as asked:
            key = states_key(self.teacher, features)
            told = ask_states(asked, key, head, features, folder, setup.scored_at_once, world, display)
            scored = _scored(setup.dev[0])
            self.dev.append({"teacher_states": _states_of(asked.engine, setup.dev[0].features, scored)})
        if not told.computed:
            display.say("teacher: its states are kept from an earlier run")
        self._learn(told.arrays)
        self.facts |= _counts(told) | {"dev_sequences_scored": sum(map(len, scored))}

    def _learn(self, labels: Mapping[str, np.ndarray]) -> None:
        """The training set with these labels besides."""
        train = self.setup.train
        features = dataclasses.replace(train.features, labels={**train.features.labels, **labels})
        setup = dataclasses.replace(self.setup, train=dataclasses.replace(train, features=features))
        self.base = dataclasses.replace(self.base, setup=setup)

    def score(self, engine: Engine, display: Display, step: int) -> tuple[dict[str, float], list[Answered]]:
        if self.learned:
            return {STATE_LOSS: self._state_loss(engine)}, []
        setup, world = self.setup, self.base.world
        metrics: dict[str, float] = {}
        answered = []
        seconds = 0.0
        for part, theirs in zip(setup.dev, self.dev, strict=True):
            head, where, size = setup.task.head, str(part.file), setup.scored_at_once
            told = timed_outputs(engine, head, part.features, size, world, display, "evaluating", where)
            answers = setup.task.format.answer(setup.task, part, told.arrays, setup.rules)
            check_scored(answers, part)
            metrics |= labelled(answers.metrics, part)
            metrics |= labelled(compared(setup.task.head, told.arrays, theirs, part.features), part)
            answered.append(answers)
            seconds += told.seconds
        self.facts["dev_seconds"] = seconds
        return metrics, answered

    def _state_loss(self, engine: Engine) -> float:
        """On some of the first dev set, each rank computing all of it."""
        job, part = self.setup.job, self.setup.dev[0]
        spec, weights, start = job.loss.states, engine.weights(), 0
        if spec is None:
            raise RuntimeError("no states are learned")  # a fault of bertkit's
        sums = StateSums(np.zeros(len(spec.terms)))
        for examples in _scored(part):
            batch = dict(part.features.batch(examples))
            end = start + len(batch["input_ids"])
            batch["teacher_states"] = self.dev[0]["teacher_states"][start:end]
            sums += state_sums(spec, engine.predict(batch)["hidden"], job.model.hidden_size, batch, weights)
            start = end
        return sums.loss(spec)

    def added(self) -> dict[str, Any]:
        return {"distillation": dict(self.facts)}

    def weights(self, engine: Engine) -> Arrays:
        """Where states are learned, what stands above them is as it was."""
        start, found = self.setup.fit.weights, engine.weights()
        return {name: found.get(name, array) for name, array in start.items()} if self.learned else found

    def describe(self) -> dict[str, Any]:
        told = self.base.describe()
        fairness = told["fairness"]
        said = f"{fairness['loss_scale']}; teacher {self.teacher.digest[:12]}, {self.what}"
        return told | {"fairness": fairness | {"loss_scale": said}}


def check_section(section: DistillSection, head: Head) -> None:
    """Raises UserError for settings of distillation that have no effect here, or exclude one another."""
    blank = DistillSection()
    given = [name for name, value in dataclasses.asdict(section).items() if value != getattr(blank, name)]
    if given and not section.teacher:
        raise UserError(
            f"distill.{given[0]} is set, but no teacher is named",
            "use `bertkit distill TEACHER`, or set distill.teacher",
        )
    for name in ("transfer", "cache_gb"):
        if name in given and head.kind == "pretraining":
            raise UserError(f"distill.{name} is for a task's rows, not for pre-training data", "drop it")
    if section.cosine and head.kind != "pretraining":
        raise UserError("distill.cosine goes with the masked words of pre-training data (-t pretrain)", "drop it")
    if section.learn == "logits" and not section.soft and section.hard != 1 and head.kind != "pretraining":
        raise UserError(
            f"distill.soft=0 leaves the labels' loss alone, whose weight, distill.hard, is {section.hard:g}",
            "set distill.hard=1, or leave distill.soft",
        )
    if section.learn == "logits" and section.hard and section.transfer:
        raise UserError("distill.hard needs labels, and distill.transfer has none", "set distill.hard=0, or drop it")


def distillation(
    recipe: Recipe, world: World, display: Display, dry_run: bool, own: Task | None = None
) -> Distillation:
    """Everything read and checked. Raises UserError for whatever the user can put right."""
    base = fine_tuning(recipe, world, display, dry_run, own)
    setup, section = base.setup, recipe.distill
    source = teacher_source(recipe, setup.task, display.say, not dry_run)
    check_vocabulary(section.teacher, source, setup.source.vocabulary)
    if section.learn == "logits":
        fit = answering_fit(recipe, setup.task, source)
        target = teacher_target(recipe, setup.task.head, setup.target, dry_run)
        teacher = Teacher(section.teacher, source, setup.task.head, fit, target)
        soft = SoftLabels(section.temperature, section.soft, section.hard) if section.soft else None
        job = dataclasses.replace(setup.job, loss=dataclasses.replace(setup.job.loss, teacher=soft))
        return Distillation(dataclasses.replace(base, setup=dataclasses.replace(setup, job=job)), teacher, None)
    learned = learned_states(section, setup.source.config, source.config)
    target = teacher_target(recipe, learned.teacher, setup.target, dry_run)
    teacher = encoding_teacher(recipe, learned.teacher, target, source)
    setup = learning_states(setup, learned, with_projection(setup, learned, display.say))
    return Distillation(dataclasses.replace(base, setup=setup), teacher, learned)


def compared(
    head: Head, found: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], features: Features
) -> dict[str, float]:
    """How the student's answers differ from the teacher's: teacher_kl in nats (of targets teacher_mse), and agreement,
    the share of examples, tokens, labels or windows that both answer alike."""
    batch = {**features.labels, **as_labels(head, theirs), "cu_seqlens": features.cu_seqlens}
    far = soft_loss(head, found, batch, 1.0)
    if head.kind == "regression":
        return {"teacher_mse": far}
    if head.kind == "span":
        starts = features.cu_seqlens[:-1]
        best = [[_best(one[name], starts) for name in ("start_logits", "end_logits")] for one in (found, theirs)]
        same = (best[0][0] == best[1][0]) & (best[0][1] == best[1][1])
    elif head.kind == "multilabel":
        same = (found["logits"] > 0) == (theirs["logits"] > 0)
    else:
        same = found["logits"].argmax(-1) == theirs["logits"].argmax(-1)
        if head.kind == "tokens" and "token_labels" in features.labels:
            same = same[features.labels["token_labels"] != NO_LABEL]
    return {"agreement": float(same.mean()), "teacher_kl": far}


def confidence(head: Head, outputs: Mapping[str, np.ndarray]) -> float | None:
    """The mean probability of the likeliest class or choice; None for heads without, and where there are no logits."""
    if head.kind not in ("classification", "choice") or "logits" not in outputs:
        return None
    return float(probabilities(head.kind, outputs["logits"]).max(-1).mean())


def _best(logits: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(T,) -> (N,) where the largest of each sequence's stands."""
    ends = [*starts[1:], len(logits)]
    return np.array([logits[first:end].argmax() for first, end in zip(starts, ends, strict=True)])


def _scored(part: Part) -> list[np.ndarray]:
    """Some of a dev set's examples in batches, the same for every rank: the first ones, up to so many tokens."""
    sizes = part.features.sizes
    some = max(1, int(np.searchsorted(np.cumsum(sizes), SCORED_TOKENS)))
    return list(by_length(sizes[:some], 32))


def _states_of(engine: Engine, features: Features, batches: list[np.ndarray]) -> np.ndarray:
    """(T, D) float16 of the batches' tokens, one batch after another."""
    return np.concatenate([engine.predict(features.batch(one))["hidden"].astype(np.float16) for one in batches])


def _counts(told: TeacherAnswers) -> dict[str, Any]:
    return {"teacher_forward_passes": told.computed, "teacher_seconds": told.seconds}


def _facts(teacher: Teacher, setup: FineTuningSetup, recipe: Recipe) -> dict[str, Any]:
    config, student = teacher.source.config, setup.job.model
    return {
        "teacher": teacher.name,
        "teacher_sha256": teacher.digest,
        "learned": recipe.distill.learn,
        "rows": len(setup.train.features),
        "layers": {"teacher": config.num_hidden_layers, "student": student.num_hidden_layers},
        "parameters": {
            "teacher": count(config, setup.task.head),
            "student": count(student, setup.task.head),
        },
        "dev_used_for": "choosing the best checkpoint" if setup.result == "best" else "scores alone",
    }
