"""Pre-training as a course: phases of shards, scored on sequences that it does not learn from."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.pretraining.evaluation_set import EvaluationSet
from bertkit.data.pretraining.formats.shards import find_shards
from bertkit.data.pretraining.sampler import updates
from bertkit.data.tasks.task import Answered
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Engine, Update
from bertkit.errors import UserError
from bertkit.model.formats.places import find_kind
from bertkit.model.loading import ModelSource, starting_weights
from bertkit.recipes.recipe import Recipe
from bertkit.training.evaluation import Predicts
from bertkit.training.extras import check_extras
from bertkit.training.finetuning import words_of
from bertkit.training.loop import Plan, When
from bertkit.training.phase_limits import of_phases as limits_of_phases
from bertkit.training.phases import Phase, open_phases, training_place
from bertkit.training.pretraining_evaluation import score_set
from bertkit.training.pretraining_record import of_phases
from bertkit.training.recipe_parts import UpdateSettings
from bertkit.training.setup import (
    RunSetup,
    choose_target,
    find_model,
    kept_layers,
    make_job,
    of_recipe,
    say_fit,
    task_of,
    with_layers,
)
from bertkit.training.supply import supply

logger = logging.getLogger(__name__)
FROM_DATA = "from-data"  # the model's name that stands for the checkpoint in the data's folder


@dataclass
class Pretraining:
    """The course of one process."""

    setup: RunSetup
    phases: tuple[Phase, ...]
    world: World
    plan: Plan
    target_accuracy: float  # the last phase's `mlm_accuracy` that ends the run; 0: none does
    baseline: dict[str, float] = field(default_factory=dict)  # of the set that was scored last
    _said: set[int] = field(default_factory=set)  # phases whose baseline was shown

    def phase(self, step: int) -> Phase:
        """The phase that update `step` belongs to."""
        return next(phase for phase in self.phases if step <= phase.end)

    def scored_on(self, step: int) -> EvaluationSet:
        """What it is scored on after update `step`."""
        return self.phase(step).scored_on

    def changed(self, setup: RunSetup, plan: Plan, scored_on: Callable[[EvaluationSet], EvaluationSet]) -> Pretraining:
        """The same with these; `scored_on`: of each phase's set what is scored."""
        phases = (dataclasses.replace(phase, scored_on=scored_on(phase.scored_on)) for phase in self.phases)
        return dataclasses.replace(self, setup=setup, plan=plan, phases=tuple(phases))

    def shape(self) -> dict[str, Any]:
        known = dict(self.setup.kept) | {"precision": self.setup.target.precision, "updates": self.plan.steps}
        for phase in self.phases:
            name = f"phase {phase.number}"
            known |= {
                f"{name}: learning rate": phase.update_settings.peak_rate,
                f"{name}: global batch": phase.sampler.batch_size,
                f"{name}: updates": phase.steps,
                f"{name}: training sequences": phase.sampler.examples,
                f"{name}: training data": phase.data.digest(),
            }
        return known

    def introduce(self, display: Display) -> None:
        for phase in self.phases:
            _introduce(phase, self.world, display)
        display.say(f"seed {self.setup.job.seed}")

    def updates(self, first: int, last: int) -> Iterator[Update]:
        for phase in self.phases:
            start, end = max(first, phase.before + 1) - phase.before, min(last, phase.end) - phase.before
            micro = phase.update_settings.micro_batch_size
            if start <= end:
                shares = updates(phase.data, phase.sampler, start, end, self.world.rank, self.world.size, micro)
                for update in shares:
                    yield dataclasses.replace(update, step=update.step + phase.before)

    def place(self, step: int) -> str:
        phase = self.phase(step)
        epoch = f"epoch {(step - phase.before) / phase.sampler.steps_per_epoch:.2f}"
        return f"phase {phase.number}, {epoch}" if len(self.phases) > 1 else epoch

    def samples(self, step: int) -> int:
        return sum(phase.samples(min(max(0, step - phase.before), phase.steps)) for phase in self.phases)

    @property
    def saves_best(self) -> bool:
        return self.setup.result == "best"

    @property
    def update_settings(self) -> UpdateSettings:
        return self.phases[-1].update_settings

    def amounts(self) -> dict[str, int]:
        last = self.phases[-1]
        return {
            "training_sequences": last.sampler.examples,
            "evaluation_sequences": len(last.scored_on.examples),
        }

    def target(self, step: int) -> float:
        return self.target_accuracy if self.phase(step) is self.phases[-1] else 0.0

    def score(self, engine: Predicts, display: Display, step: int) -> tuple[dict[str, float], list[Answered]]:
        phase, at_once = self.phase(step), self.setup.scored_at_once
        found, self.baseline = score_set(engine, phase.scored_on, at_once, phase.unigram, self.world, display)
        if phase.number not in self._said:
            self._said.add(phase.number)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in self.baseline.items())
            display.say(f"unigram baseline, what the training text's frequencies score: {shown}")
        return found, []

    def begin(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        """Nothing has to be."""

    def close(self) -> None:
        """Nothing is held."""

    def added(self) -> dict[str, Any]:
        return {}

    def weights(self, engine: Engine) -> Arrays:
        return engine.weights()

    def describe(self) -> dict[str, Any]:
        told = of_phases(self.setup, self.phases, self.plan.steps)
        return told | {"majority_class": self.baseline or None}


def pretraining(recipe: Recipe, world: World, display: Display, dry_run: bool) -> Pretraining:
    """Everything read and checked. Raises UserError for whatever the user can put right."""
    _refuse(recipe)
    task = task_of(recipe)
    target = choose_target(recipe, task.head, task.name, dry_run=dry_run, world=world)
    check_extras(target.backend, task, recipe)
    root = Path(recipe.data.dir).expanduser()
    source = _source(recipe, root, display, dry_run)
    phases = open_phases(recipe, source, world.size)
    fit = starting_weights(source, task.head, recipe.seed, recipe.model.allow_missing)
    say_fit(fit, source, display.say)
    source, fit = with_layers(source, fit, kept_layers(recipe.model.layers, source), display.say)
    job = make_job(
        recipe, task, target, source, fit, limits_of_phases(phases, world.size, recipe.evaluation.batch_size)
    )
    setup = RunSetup(target=target, task=task, source=source, fit=fit, job=job, **of_recipe(recipe))
    return Pretraining(setup, phases, world, make_plan(recipe, phases), recipe.evaluation.target_mlm_accuracy)


def _source(recipe: Recipe, root: Path, display: Display, dry_run: bool) -> ModelSource:
    """The model to begin with: the recipe's, or the checkpoint in the data's folder."""
    if recipe.model.name == FROM_DATA:
        _, path = find_kind(root)
        recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, name=str(path)))
    place = training_place(root, int(recipe.train.phases[0]))
    find_shards(place)  # missing ones are named before the vocabulary that would lie beside them
    beside = (root, place) if root.is_dir() else (root.parent,)
    own = next((path for top in beside if (path := top / "vocab.txt").exists()), None)
    start = supply(recipe, None, display.say, beside=own, shape=True, may_fetch=not dry_run)
    source = find_model(recipe, own, ids_only=True, start=start)
    if source.keys.get("tie_word_embeddings") is False:
        raise UserError(
            f"{source.folder}: tie_word_embeddings is false in its configuration",
            "bertkit pre-trains with one matrix for embeddings and decoder",
        )
    if not source.vocabulary.has_words:
        logger.warning(
            "%s has no vocab.txt, nor will this run's model have one; to fine-tune it, --set model.vocab=FILE",
            source.folder,
        )
    return source


def _refuse(recipe: Recipe) -> None:
    if recipe.data.shard:
        raise UserError("pre-training deals its sequences to all processes: it has no data.shard", "leave it empty")
    if recipe.checkpoint.result == "best" and "," in recipe.train.phases:
        raise UserError("two phases are scored on two sets, so neither is best", "use checkpoint.result=last")


def make_plan(recipe: Recipe, phases: tuple[Phase, ...]) -> Plan:
    """The phases one after the other; the last update of each is evaluated and saved."""

    def of(step: int) -> tuple[Phase, int]:
        phase = next(phase for phase in phases if step <= phase.end)
        return phase, step - phase.before

    def rate(step: int) -> float:
        phase, own = of(step)
        return phase.rate(own)

    def evaluates(step: int) -> bool:
        phase, own = of(step)
        return own == phase.steps or _evaluates(recipe, phase)(own)

    def saves(step: int) -> bool:
        phase, own = of(step)
        often = recipe.checkpoint.every
        return own == phase.steps or (step % often if often else own % phase.sampler.steps_per_epoch) == 0

    return Plan(phases[-1].end, rate, recipe.log.every, evaluates, saves)


def _evaluates(recipe: Recipe, phase: Phase) -> When:
    """Whether an update of the phase is followed by an evaluation; samples are counted in whole batches."""
    section, batch = recipe.evaluation, phase.sampler.batch_size
    if not section.every_samples:
        often = section.every or phase.sampler.steps_per_epoch
        return lambda own: own % often == 0

    def crosses(own: int) -> bool:
        seen, before = own * batch, (own - 1) * batch
        return seen >= section.start_samples and seen // section.every_samples > before // section.every_samples

    return crosses


def _introduce(phase: Phase, world: World, display: Display) -> None:
    data, scored_on, name = phase.data, phase.scored_on, f"phase {phase.number}"
    how = "masked anew in each epoch" if data.dynamic else "masked when they were made"
    how = "masked once, by the seed" if phase.masked_once else how
    bins = f" in {len(data.bins)} bins" if len(data.bins) > 1 else ""
    display.say(
        f"{name}: {phase.sampler.examples:,} training sequences{bins}, of up to {data.longest} tokens, {how}: "
        f"{len(data.shards):,} shards ({data.shards[0].file.format}) in {phase.place}"
    )
    count = f"{len(scored_on.examples):,} sequences"
    if scored_on.kind == "own":
        display.say(f"{name}: evaluated on {count} in {scored_on.place}")
    elif scored_on.kind == "set apart":
        display.say(
            f"{name}: no evaluation set: {count}, drawn by the seed, are held out of training; where the data "
            "repeats its text, some of theirs is"
        )
    else:
        display.warn(f"{name}: evaluated on {count} of the training data: its scores say nothing about new text")
    if len(data.shards) < world.size:
        display.warn(f"{name}: {len(data.shards)} shards for {world.size} processes: each reads all, none goes without")
    made = phase.update_settings
    at_once = f", {made.at_once} at once" if made.micro_batch_size else ""
    display.say(
        f"{name}: {words_of(made)}{at_once}, {made.schedule.name} after {made.warmup_updates:,} updates of warm-up"
    )
