"""One training run from a resolved recipe to its folder."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit import record
from bertkit.agreement import agree
from bertkit.display import Display
from bertkit.preparation import Prepared, prepare, scaled_rate, warming_updates
from bertkit.recipe import Recipe, to_flat
from bertkit.resolve import Resolved
from bertkit.run_folder import open_folder, refuse_taken
from bertkit.sampler import Sampler, sharded
from bertkit.schedule import schedule
from bertkit.trainer import Plan
from bertkit.training import Training
from bertkit.world import World

# Settings that do not shape the trained weights, so a resume may change them.
FREE = (
    "backend", "output", "train.batch_size", "train.micro_batch_size", "data.dir", "data.cache", "data.train_file",
    "data.dev_file", "data.strict", "model.layout", "log.", "checkpoint.", "evaluation.", "answers.", "device.",
    "ranks.collectives", "ranks.overlap", "ranks.timeout", "ranks.synchronise", "ranks.shard_data",
    "ranks.learning_rate_scaling", "optimizer.shard",
)  # fmt: skip


SAME = "give every process the same versions, settings and files"
Compare = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    folder: Path
    exit_code: int  # 0, or what the signal that stopped it asks for
    record: Mapping[str, Any] | None  # None where the run was stopped


def output_folder(recipe: Recipe) -> Path:
    name = Path(recipe.model.name).name
    return (
        Path(recipe.output).expanduser() if recipe.output else Path("runs", f"{recipe.task}-{name}-seed{recipe.seed}")
    )


def make_sampler(ready: Prepared, world: World) -> Sampler:
    recipe = ready.recipe
    return sharded(len(ready.train.features), recipe.data.shard, recipe.train.batch_size * world.size, recipe.seed)


def make_plan(recipe: Recipe, sampler: Sampler, processes: int) -> Plan:
    """Counts of updates from epochs and shares."""
    epoch = sampler.steps_per_epoch
    steps = recipe.train.steps or math.ceil(recipe.train.epochs * epoch)
    course, warmup = recipe.schedule, warming_updates(recipe, steps)
    peak = scaled_rate(recipe, processes)
    rate = schedule(course.name, peak, warmup, steps, course.power, course.end_rate, course.start, course.decay)
    return Plan(steps, rate, recipe.log.every, recipe.evaluation.every or epoch, recipe.checkpoint.every or epoch)


def shaped_by(ready: Prepared, plan: Plan, sampler: Sampler, processes: int) -> dict[str, Any]:
    """The settings and data that a resumed run must share with the one that it goes on from."""
    kept = {key: value for key, value in to_flat(ready.recipe).items() if not key.startswith(FREE)}
    return kept | {
        "optimizer.learning_rate": scaled_rate(ready.recipe, processes),
        "precision": ready.precision,
        "global batch": sampler.batch_size,
        "updates": plan.steps,
        "training data": ready.train.features.digest(),
    }


def train(
    resolved: Resolved,
    world: World,
    display: Display,
    resume: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
    compare: Compare | None = None,
) -> Outcome:
    """Carry out a run. Raises UserError for whatever the user can put right, before anything is written if it can.

    `compare`: called with what shapes the run before its first update; by default it compares the ranks of `world`.
    """
    recipe = resolved.recipe
    folder = output_folder(recipe)
    if world.is_first and not dry_run:
        refuse_taken(folder, resume, overwrite)
    ready = prepare(recipe, display.say, display.follow(), dry_run)
    sampler = make_sampler(ready, world)
    plan = make_plan(recipe, sampler, world.size)
    introduce(ready, plan, sampler, world, folder, display)
    if dry_run:
        return Outcome(folder, 0, None)
    engine = ready.choice.backend.engine(ready.job, world)
    try:
        shape = shaped_by(ready, plan, sampler, world.size)
        (compare or functools.partial(agree, engine.gather, cure=SAME))(record.versions() | shape)
        if world.is_first:
            open_folder(folder, overwrite)
        training = Training(resolved, ready, engine, world, display, folder, sampler, plan)
        made, exit_code = training.run(shape, resume)
    finally:
        engine.close()
    return Outcome(folder, exit_code, made)


def introduce(ready: Prepared, plan: Plan, sampler: Sampler, world: World, folder: Path, display: Display) -> None:
    """Say what is about to happen."""
    recipe, features = ready.recipe, ready.train.features
    display.say(f"backend: {ready.choice.backend.name} ({ready.choice.reason})")
    display.say(f"precision: {ready.precision} ({ready.precision_reason})")
    dev = " + ".join(f"{part.examples:,}" for part in ready.dev)
    made = f" in {len(features):,} windows" if len(features) > ready.train.examples else ""
    display.say(
        f"task: {ready.task.name}, {ready.train.examples:,} examples to learn from{made}, {dev} to evaluate on, "
        f"{features.lengths.mean():.1f} tokens each on average"
    )
    for part in (ready.train, *ready.dev):
        for fault in part.faults:
            display.warn(f"{part.file}: {fault}")
    for part in ready.dev:
        if part.sha256 == ready.train.sha256:
            display.warn(f"{part.file} is the training file too: its scores say nothing about new data")
    shares = f" ({recipe.train.batch_size} on each of {world.size} processes)" if world.size > 1 else ""
    rate = scaled_rate(recipe, world.size)
    rule = recipe.ranks.learning_rate_scaling
    scaling = f" ({recipe.optimizer.learning_rate:g}, {rule} in {world.size} processes)" if rule != "none" else ""
    display.say(
        f"plan: {plan.steps:,} updates of {sampler.batch_size} sequences{shares}, "
        f"peak learning rate {rate:g}{scaling}, seed {recipe.seed}"
    )
    display.say(f"output: {folder}")
