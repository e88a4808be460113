"""One training run from a resolved recipe to its folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.distributed.consistency import agree
from bertkit.distributed.world import World
from bertkit.files.locks import alone_in
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import Resolved
from bertkit.records import collect as record
from bertkit.records.profiling import wanted
from bertkit.training.finetuning import fine_tuning
from bertkit.training.following import Training
from bertkit.training.objective import Course
from bertkit.training.preparation import task_of
from bertkit.training.pretraining import pretraining
from bertkit.training.run_folder import open_folder, refuse_hiding, refuse_taken

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


def open_course(recipe: Recipe, world: World, display: Display, dry_run: bool) -> Course:
    """What the recipe's task is learnt from. Raises UserError for whatever the user can put right."""
    make = pretraining if task_of(recipe).head.kind == "pretraining" else fine_tuning
    return make(recipe, world, display, dry_run)


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
    folder = output_folder(resolved.recipe)
    writes = world.is_first and not dry_run
    refuse_hiding(resolved.recipe.model.name, folder)
    with alone_in(folder, "a training", writes):
        if writes:
            refuse_taken(folder, resume, overwrite)
        return _train(resolved, world, display, folder, resume, overwrite, dry_run, compare)


def _train(
    resolved: Resolved,
    world: World,
    display: Display,
    folder: Path,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    compare: Compare | None,
) -> Outcome:
    recipe = resolved.recipe
    if recipe.log.profile:
        wanted(recipe.log.profile)
    course = open_course(recipe, world, display, dry_run)
    ready = course.ready
    display.say(f"backend: {ready.choice.backend.name} ({ready.choice.reason})")
    display.say(f"precision: {ready.precision} ({ready.precision_reason})")
    course.introduce(display)
    display.say(f"output: {folder}")
    if dry_run:
        return Outcome(folder, 0, None)
    engine = ready.choice.backend.engine(ready.job, world)
    try:
        shape = course.shape()
        (compare or functools.partial(agree, engine.gather, cure=SAME))({**record.versions(), **shape})
        training = Training(resolved, course, engine, world, display, folder)
        if world.is_first:
            open_folder(folder, overwrite)
        made, exit_code = training.run(shape, resume)
    finally:
        engine.close()
    return Outcome(folder, exit_code, made)
