"""A distillation from its teacher to a student's folder: stages that learn states first, then one that learns logits.

Each stage is a run of its own, in a folder of its own; the next one starts from it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.tasks.pretrain import PRETRAIN
from bertkit.data.tasks.task import Task
from bertkit.distributed.world import World, from_env
from bertkit.errors import UserError
from bertkit.files.inputs import is_file
from bertkit.model.config import ARCHITECTURES
from bertkit.model.names import is_own_folder, published
from bertkit.recipes.keywords import from_keywords
from bertkit.recipes.recipe import Recipe, Value
from bertkit.recipes.resolve import Resolved, resolve
from bertkit.records.files import NAME
from bertkit.training.callbacks.base import Callback
from bertkit.training.inference import own_task, unstated
from bertkit.training.resume import restarted
from bertkit.training.run import Run
from bertkit.training.run_folder import output_folder
from bertkit.training.run_task import run_settings
from bertkit.training.setup import named, task_of
from bertkit.training.teacher import answering_fit, teacher_source
from bertkit.training.trainer import OPTIONS, Trainer, own_files

STATES = ("relations", "tinybert", "last_layer")
STAGES = (*STATES, "logits")
DEFAULT = ("relations", "logits")
GENERAL = ("relations",)  # of pre-training data, since few teachers have a head for masked words
KEPT = ("precision", "model.casing")  # what pre-training data takes from the teacher's run


@dataclass(frozen=True)
class Course:
    """What is asked for, save the settings that all stages share."""

    teacher: str
    layers: str = ""  # so many of the teacher's layers to start from, or their numbers; "": another model is named
    stages: tuple[str, ...] = ()  # (): as the data has it
    state_epochs: float = 1.0
    state_rate: float = 1e-4  # peak learning rate of the stages before the last


@dataclass(frozen=True)
class Stage:
    """One run."""

    learn: str
    resolved: Resolved

    @property
    def folder(self) -> Path:
        return output_folder(self.resolved.recipe)


def check(course: Course, model: Value) -> None:
    """Raises UserError where the stages, or what the student starts from, cannot be."""
    for stage in course.stages:
        if stage not in STAGES:
            raise UserError(f"there is no stage {stage!r}", f"stages: {', '.join(STAGES)}")
    if len(set(course.stages)) != len(course.stages) or "logits" in course.stages[:-1]:
        raise UserError(f"the stages {','.join(course.stages)} make no order", "name each once, logits last")
    if bool(model) == bool(course.layers):
        raise UserError(
            "the student starts from a model or from the teacher's layers" if model else "no student is named",
            "give -m MODEL, or --layers 3 for three layers of the teacher's",
        )


def make_stages(
    course: Course,
    options: Mapping[str, Value],
    sets: Sequence[str] = (),
    config: Path | None = None,
    recipe: str | None = None,
) -> list[Stage]:
    """The runs, in their order. What the options leave open is as the teacher's run has it."""
    check(course, options.get("model.name"))
    run = run_settings(course.teacher)
    shared = {**options, "distill.teacher": course.teacher}
    if resolve(shared, sets, config, recipe, run=run).recipe.task == PRETRAIN.name:
        run = {name: value for name, value in run.items() if name in KEPT}
        course = replace(course, stages=course.stages or GENERAL)
    course = replace(course, stages=course.stages or DEFAULT)
    shared["distill.learn"] = course.stages[-1]
    if course.layers:
        shared |= {"model.name": course.teacher, "model.layers": course.layers}
    elif options["model.name"] in ARCHITECTURES and _has_own_pieces(course.teacher, sets):
        shared = {"model.vocab": course.teacher, **shared}
    last = resolve(shared, sets, config, recipe, run=run).recipe
    if not last.task and not last.data.train_file:
        raise unstated(course.teacher)
    output = _folder(last, course)
    made: list[Stage] = []
    start: dict[str, Value] = {}
    for number, learn in enumerate(course.stages):
        final = number == len(course.stages) - 1
        mine = shared | start | {"distill.learn": learn, "output": str(output if final else _beside(output, learn))}
        if not final:
            mine |= {"train.epochs": course.state_epochs, "optimizer.learning_rate": course.state_rate}
        made.append(Stage(learn, resolve(mine, sets, config, recipe, run=run)))
        start = {"model.name": str(made[-1].folder), "model.layers": "", "model.vocab": ""}
    return made


def _has_own_pieces(teacher: str, sets: Sequence[str]) -> bool:
    """Whether a size takes its word pieces from the teacher's folder."""
    named = any(each.startswith("model.vocab=") for each in sets)
    return not named and (is_own_folder(teacher) or not published(teacher))


def _folder(recipe: Recipe, course: Course) -> Path:
    if recipe.output:
        return Path(recipe.output).expanduser()
    of_teacher = f"{Path(course.teacher).name}-{course.layers.replace(',', '-')}layers"
    return output_folder(replace(recipe, model=replace(recipe.model, name=of_teacher)) if course.layers else recipe)


def _beside(output: Path, learn: str) -> Path:
    return output.with_name(f"{output.name}-{learn}")


def _task_of_teacher(recipe: Recipe) -> Task | None:
    """The task over own data that the teacher was trained on, where it is the one to be learned."""
    return own_task(replace(recipe, model=replace(recipe.model, name=recipe.distill.teacher)))


def run_stages(
    made: Sequence[Stage],
    world: World,
    display: Display,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    task: Task | None = None,
    dry_run: bool = False,
) -> Run:
    """Run the stages one after another; those that are done are left as they are where the run is resumed.

    Returns the last run that was made: where a stage was interrupted, that one's.
    """
    resume = resume or restarted(os.environ)
    last = made[-1].resolved.recipe
    learns_answers = made[-1].learn == "logits" and last.task != PRETRAIN.name
    if learns_answers and len(made) > 1:  # else found when the stages before it are over
        of = task or _task_of_teacher(last) or task_of(last)
        answering_fit(last, of, teacher_source(last, of, display.say, may_fetch=not dry_run))
    for number, stage in enumerate(made, 1):
        recipe = stage.resolved.recipe
        final = number == len(made)
        if resume and not final and is_file(stage.folder / NAME):
            display.say(f"stage {number} of {len(made)}, {stage.learn}: done already, in {stage.folder}")
            continue
        display.say(f"stage {number} of {len(made)}: {stage.learn}")
        own = task or _task_of_teacher(recipe)
        trainer = Trainer.of(stage.resolved, world, display, callbacks, resume, overwrite and not resume, own)
        run = trainer.check() if dry_run else trainer.fit()
        if dry_run and not final:
            display.say(f"stage {number + 1} starts from {stage.folder}, so it is checked when that is there")
        if dry_run or final or run.record is None:
            return run
    raise UserError("there is no stage", "name one")


def distill(
    teacher: str | Path,
    model: str | Path | None = None,
    task: str | Task | None = None,
    *,
    layers: int | str = "",
    stages: Sequence[str] = (),
    state_epochs: float = 1.0,
    state_learning_rate: float = 1e-4,
    train: Any = None,
    dev: Any = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    settings: Mapping[str, Any] | None = None,
    world: World | None = None,
    quiet: bool = False,
    **keywords: Any,
) -> Run:
    """Train `model`, or `layers` of the teacher's layers, to answer as the trained model `teacher` does.

    `stages`: what is learned of it, one after another; (): relations, and of a task then the logits. `state_epochs` and
    `state_learning_rate` are of those before the last. What is left open is as the teacher's run has it; the rest is as
    for `train`.
    """
    course = Course(str(teacher), str(layers), tuple(stages), state_epochs, state_learning_rate)
    name, own = named(task)
    given = own_files({**keywords, "model": None if model is None else str(model), "task": name}, train, dev)
    made = make_stages(course, from_keywords(given, settings, OPTIONS))
    here = world or from_env()
    return run_stages(made, here, Display(quiet=quiet or not here.is_first), callbacks, resume, overwrite, own)
