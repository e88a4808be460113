"""Fine-tuning as a course: examples of a task, scored on its dev set."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.data.sampler import Sampler, sharded, updates
from bertkit.data.tasks.task import Answered, Part, Task
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Engine, Update
from bertkit.recipes.recipe import Recipe
from bertkit.records import collect
from bertkit.training.comparability import of_run
from bertkit.training.evaluation import evaluate
from bertkit.training.extras import described
from bertkit.training.loop import Plan, every
from bertkit.training.recipe_parts import UpdateSettings, make_update_settings, with_global_batch
from bertkit.training.setup import FineTuningSetup, prepare


@dataclass(frozen=True)
class FineTuning:
    """The course of one process."""

    setup: FineTuningSetup
    sampler: Sampler
    update_settings: UpdateSettings
    plan: Plan
    world: World
    saves_best: bool = True

    def shape(self) -> dict[str, Any]:
        return dict(self.setup.kept) | {
            "optimizer.learning_rate": self.update_settings.peak_rate,
            "precision": self.setup.target.precision,
            "global batch": self.sampler.batch_size,
            "updates": self.plan.steps,
            "training data": self.setup.train.features.digest(),
        }

    def introduce(self, display: Display) -> None:
        introduce(self.setup, self.update_settings, display)

    def updates(self, first: int, last: int) -> Iterator[Update]:
        kind, micro = self.setup.job.head.kind, self.update_settings.micro_batch_size
        features = self.setup.train.features
        return updates(features, self.sampler, kind, first, last, self.world.rank, self.world.size, micro)

    def place(self, step: int) -> str:
        return f"epoch {step / self.sampler.steps_per_epoch:.2f}"

    def samples(self, step: int) -> int:
        epochs, rest = divmod(step, self.sampler.steps_per_epoch)
        return epochs * self.sampler.examples + rest * self.sampler.batch_size

    def amounts(self) -> dict[str, int]:
        return {
            "training_sequences": self.sampler.examples,
            "evaluation_sequences": sum(len(part.features) for part in self.setup.dev),
        }

    def target(self, step: int) -> float:
        return 0.0

    def score(self, engine: Engine, display: Display, step: int) -> tuple[dict[str, float], list[Answered]]:
        setup = self.setup
        return evaluate(engine, setup.task, setup.dev, setup.rules, setup.scored_at_once, self.world, display)

    def begin(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        """Nothing has to be."""

    def close(self) -> None:
        """Nothing is held."""

    def added(self) -> dict[str, Any]:
        return {}

    def weights(self, engine: Engine) -> Arrays:
        return engine.weights()

    def describe(self) -> dict[str, Any]:
        setup = self.setup
        return {
            "data": {
                "task": setup.task.name,
                "train": _part("train", setup.train),
                "evaluation": [_part(_dev_name(part), part) for part in setup.dev],
            },
            "fairness": dataclasses.asdict(of_run(setup, self.update_settings)),
            "majority_class": _majority(setup),
        }


def fine_tuning(recipe: Recipe, world: World, display: Display, dry_run: bool, own: Task | None = None) -> FineTuning:
    """Everything read and checked. Raises UserError for whatever the user can put right."""
    recipe = with_global_batch(recipe, world.size)
    setup = prepare(recipe, display.say, display.follow(), dry_run, own, world)
    sampler = make_sampler(setup, recipe.train.batch_size * world.size)
    update_settings = make_update_settings(recipe, sampler.steps_per_epoch, world.size)
    return FineTuning(setup, sampler, update_settings, make_plan(recipe, sampler, update_settings), world)


def make_sampler(setup: FineTuningSetup, global_batch: int) -> Sampler:
    return sharded(len(setup.train.features), setup.shard, global_batch, setup.job.seed)


def make_plan(recipe: Recipe, sampler: Sampler, update_settings: UpdateSettings) -> Plan:
    """What happens when: once an epoch where nothing else is said."""
    epoch = sampler.steps_per_epoch
    samples = recipe.evaluation.every_samples // sampler.batch_size
    often = max(1, samples) if recipe.evaluation.every_samples else recipe.evaluation.every or epoch
    return Plan(
        steps=update_settings.updates,
        learning_rate=update_settings.rate(),
        log_every=recipe.log.every,
        evaluates=every(often),
        saves=every(recipe.checkpoint.every or epoch),
    )


def introduce(setup: FineTuningSetup, update_settings: UpdateSettings, display: Display) -> None:
    """Show what is about to happen."""
    features = setup.train.features
    dev = " + ".join(f"{part.examples:,}" for part in setup.dev)
    made = f" in {len(features):,} windows" if len(features) > setup.train.examples else ""
    display.say(
        f"task: {setup.task.name}, {setup.train.examples:,} training examples{made}, {dev} to evaluate on, "
        f"{features.lengths.mean():.1f} tokens each on average"
    )
    for part in (setup.train, *setup.dev):
        for fault in part.faults:
            display.warn(f"{part.file}: {fault}")
    for part in setup.dev:
        if part.held_out:
            display.say(f"evaluation: {part.held_out}")
        elif part.sha256 == setup.train.sha256:
            display.warn(f"{part.file} is the training file too: its scores say nothing about new data")
    if said := described(setup.job.loss, setup.task):
        display.say(f"loss: {said}")
    if setup.job.frozen:
        trained = sum(a.size for name, a in setup.job.weights.items() if name not in set(setup.job.frozen))
        display.say(f"frozen: {len(setup.job.frozen)} of {len(setup.job.weights)} tensors; {trained:,} numbers learn")
    display.say(f"plan: {words_of(update_settings)}, seed {setup.job.seed}")


def words_of(update_settings: UpdateSettings) -> str:
    """So many updates of so many sequences, in a line."""
    many, rule = update_settings.processes, update_settings.rate_scaling
    shares = f" ({update_settings.share} on each of {many} processes)" if many > 1 else ""
    scaling = f" ({update_settings.base_rate:g}, {rule} in {many} processes)" if rule != "none" else ""
    return (
        f"{update_settings.updates:,} updates of {update_settings.global_batch} sequences{shares}, "
        f"peak learning rate {update_settings.peak_rate:g}{scaling}"
    )


def _majority(setup: FineTuningSetup) -> dict[str, float] | None:
    """What always answering the first dev set's most frequent class or choice, or its labels on over half of the rows,
    scores on it; None for numbers and spans."""
    kind, labels = setup.task.head.kind, setup.dev[0].features.labels.get("labels")
    if kind not in ("classification", "choice", "multilabel") or labels is None:
        return None
    several = kind == "multilabel"
    answer = labels.mean(0) - 0.5 if several else np.bincount(labels, minlength=setup.task.head.outputs)
    guess = {"logits": np.tile(answer.astype(np.float32), (len(labels), 1))}
    return setup.task.format.answer(setup.task, setup.dev[0], guess, setup.rules).metrics


def _dev_name(part: Part) -> str:
    name = f"dev_{part.name}" if part.name else "dev"
    return f"{name}: {part.held_out}" if part.held_out else name


def _part(name: str, part: Part) -> Mapping[str, Any]:
    return {
        "name": name,
        "file": part.file.name,
        "sha256": part.sha256,
        "features_sha256": part.features.digest(),
        "examples": part.examples,
        "sequences": len(part.features),
        **collect.lengths(part.features.lengths),
        "mean_masked": None,
        "faults": list(part.faults),
    }
