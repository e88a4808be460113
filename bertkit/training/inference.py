"""A trained model from its folder: scored on a labelled set, or asked about a file."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.sampler import by_length
from bertkit.data.tasks import Task, find_task
from bertkit.data.tasks.labels import to_answer
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.pretrain import refuse
from bertkit.data.tasks.reading import own_file, read_part, read_split
from bertkit.data.tasks.task import Part, SplitName
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Calibrates, Engine, Job
from bertkit.errors import UserError
from bertkit.files.inputs import exists, is_folder
from bertkit.model.config import ARCHITECTURES
from bertkit.model.loading import ModelSource, starting_weights
from bertkit.model.names import is_own_folder, published
from bertkit.model.weights import Fit
from bertkit.recipes.keywords import from_keywords
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import resolve
from bertkit.training import calibration
from bertkit.training.callbacks.profiling import EvaluationProfile, profiler_of, wanted
from bertkit.training.evaluation import Watch, answer
from bertkit.training.evaluation import evaluate as evaluate_parts
from bertkit.training.extras import of_calibration
from bertkit.training.recipe_parts import answer_rules, cache_folder, dev_file, sequence_shape
from bertkit.training.run_folder import EVALUATION_TRACE, refuse_hiding
from bertkit.training.run_task import check_task, differing, read_task, run_settings
from bertkit.training.setup import (
    ComputeTarget,
    check_segments,
    checked,
    choose_target,
    find_model,
    inference_job,
    named,
    warn_of,
)
from bertkit.training.supply import data_only

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ready:
    """A trained model, read and checked, and where it will be computed."""

    task: Task
    source: ModelSource
    target: ComputeTarget
    fit: Fit  # the rows of its head are in the task's order
    notes: tuple[str, ...] = ()  # to be said


@dataclass(frozen=True)
class Loaded:
    """A trained model on a device."""

    task: Task
    source: ModelSource
    engine: Engine
    precision: str
    backend: str  # its name


def recipe_of_run(
    run: str | Path, task: str | Task | None, keywords: Mapping[str, Any], settings: Mapping[str, Any] | None
) -> tuple[Recipe, Task | None]:
    """(the settings with which a call from Python uses the model in the folder `run`, the task if the caller made it).

    What the call leaves open is as the run itself had it.
    """
    name, own = named(task)
    chosen = from_keywords({**keywords, "model": str(run), "task": name}, settings)
    return resolve(chosen, run=run_settings(str(run), own)).recipe, own


def open_model(recipe: Recipe, dry_run: bool = False, force: bool = False, own: Task | None = None) -> Ready:
    """The model in the folder `recipe.model.name`, for the recipe's task. `dry_run`: the backend need not be ready;
    `own`: a task that the caller made, which the recipe names.

    Raises UserError where the folder has no head for the task: its answers would be random; and where it is a run on
    another task, unless `force` says that this is meant.
    """
    if not recipe.task:
        raise unstated(recipe.model.name)
    task = own or own_task(recipe) or find_task(recipe.task)
    if task.head.kind == "pretraining":
        refuse(task)
    target = choose_target(recipe, task.head, task.name, training=False, dry_run=dry_run)
    refuse_untrained(recipe.model.name)
    source = find_model(recipe)
    if task.head.kind == "span":
        check_segments(source, task.name)
    check_run(recipe, task, source, force)
    fit = starting_weights(source, task.head, recipe.seed)
    warn_of(fit)
    fit, notes, warnings = to_answer(fit, source.folder, recipe.model.name, task)
    for warning in warnings:
        logger.warning("%s", warning)
    return Ready(task, source, target, fit, (*notes, *of_calibration(task)))


def unstated(name: str) -> UserError:
    """Of a model whose task is not known: its folder does not state it, or is not there."""
    there = exists(Path(name).expanduser())
    cause = f"{name} does not state" if there else f"there is no folder {name} that states"
    cure = "name it with -t" if there else "check the path, or name the task with -t"
    return UserError(f"{cause} the task it was trained on", cure)


def own_task(recipe: Recipe) -> Task | None:
    """The task over own data that the recipe's run was trained on; None where it was trained on another.

    Where a dev file is named, no rows of the training file are held out.
    """
    if not is_folder(recipe.model.name):
        return None
    told = read_task(Path(recipe.model.name).expanduser())
    if told is None or told.own is None or told.task != recipe.task:
        return None
    task = told.own
    if recipe.data.dev_file and isinstance(task.format, OwnFormat):
        task = dataclasses.replace(task, format=dataclasses.replace(task.format, held_out=None))
    return task


def check_run(recipe: Recipe, task: Task, source: ModelSource, force: bool) -> None:
    """Compare what is asked with what the folder's run was trained on."""
    run = recipe.model.name
    told = read_task(source.folder) if source.folder else None
    warnings = [*check_task(told, task, run, force), *differing(told, task, recipe, source.vocabulary, run)]
    for warning in warnings:
        logger.warning("%s", warning)


def refuse_untrained(name: str) -> None:
    """Raises UserError for a published model, which has no head for any task, before one is fetched."""
    if name in ARCHITECTURES:
        raise UserError(f"{name!r} is a size, not a trained model", "give the folder of a run")
    if not is_own_folder(name) and published(name):
        raise UserError(f"{name!r} is a pre-trained model without a trained head", "give the folder of a run")


def load(recipe: Recipe, world: World, display: Display, force: bool = False, own: Task | None = None) -> Loaded:
    """The model in the folder `recipe.model.name` on its device, for the recipe's task."""
    ready = open_model(recipe, force=force, own=own)
    for note in ready.notes:
        display.say(note)
    job = inference_job(recipe, ready.task.head, ready.target, ready.source, ready.fit)
    backend = ready.target.backend
    if ready.target.precision != "int8":
        engine = backend.engine(job, world)
    else:
        engine = _in_int8(recipe, ready, job, world, display)
    return Loaded(ready.task, ready.source, engine, ready.target.precision, backend.name)


def _in_int8(recipe: Recipe, ready: Ready, job: Job, world: World, display: Display) -> Engine:
    """The engine with scales for its layers' inputs: those in the run's folder, or found now and kept there."""
    kept = _kept_scales(recipe, ready, display)
    engine = ready.target.backend.engine(dataclasses.replace(job, scales=kept), world)
    without = calibration.wanted(engine)
    if without is None:
        return engine
    try:
        _calibrated(without, recipe, ready, world.is_first, display)
    except UserError as error:
        logger.warning(
            "int8: no training data to find the scales of layers' inputs on (%s): each token has scales of its own, "
            "which is slower; name the data with --data-dir, or silence this with --set device.scales=dynamic",
            error.cause,
        )  # fmt: skip
    return engine


def int8_scales(recipe: Recipe, ready: Ready, display: Display) -> Arrays:
    """Those that the engine in int8 computes with: in the run's folder, or found now by `recipe.backend` and kept
    there. Raises UserError where they cannot be found."""
    if kept := _kept_scales(recipe, ready, display):
        return kept
    try:
        target = choose_target(
            dataclasses.replace(recipe, precision="int8"), ready.task.head, ready.task.name, training=False
        )
        job = inference_job(recipe, ready.task.head, target, ready.source, ready.fit)
        engine = target.backend.engine(job, World())
    except UserError as error:
        raise UserError(f"the scales of int8 cannot be found: {error.cause}", "name another with --backend") from None
    try:
        without = calibration.wanted(engine)
        if without is None:
            raise UserError("int8 has no scales found beforehand here", "drop --set device.scales")
        return _calibrated(without, recipe, ready, True, display)
    finally:
        engine.close()


def _kept_scales(recipe: Recipe, ready: Ready, display: Display) -> Arrays:
    folder = ready.source.folder
    return calibration.kept_scales(folder, _scales_key(recipe, ready), display) if folder else {}


def _scales_key(recipe: Recipe, ready: Ready) -> calibration.ScalesKey:
    return calibration.ScalesKey(ready.fit.digest or "", recipe.data.seq_length)


def _calibrated(engine: Calibrates, recipe: Recipe, ready: Ready, keep: bool, display: Display) -> Arrays:
    """Scales found on the training data, which the engine computes with from now on. Raises UserError without data."""
    (part, *_) = _split(ready, recipe, "train", calibration.EXAMPLES, display, recipe.data.train_file)
    found, what = calibration.calibrate(engine, part.features, display)
    if ready.source.folder and keep:
        calibration.keep_scales(ready.source.folder, _scales_key(recipe, ready), found, what)
    return found


def plan(recipe: Recipe, split: SplitName | None, file: Path | None, display: Display, force: bool = False) -> None:
    """Say what would be computed, everything read and checked. `split`, `file`: what is answered; None: neither."""
    if file is not None:
        own_file(str(file), folder_too=True)
    ready = open_model(recipe, dry_run=True, force=force)
    display.say(f"backend: {ready.target.backend.name} ({ready.target.choice.reason})")
    display.say(f"precision: {ready.target.precision} ({ready.target.reason})")
    display.say(f"model: {ready.source.folder}, for {ready.task.name}")
    for note in ready.notes:
        display.say(note)
    if file is not None:
        parts = [file_part(ready, recipe, file, display)]
    elif split is not None:
        dev = split == "dev"
        named = dev_file(recipe, ready.task) if dev else ""
        parts = _split(ready, recipe, split, recipe.data.eval_rows if dev else 0, display, named)
    else:
        parts = []
    for part in parts:
        display.say(f"file: {part.file}, {part.examples:,} examples in {len(part.features):,} sequences")


def evaluate(
    recipe: Recipe, world: World, display: Display, force: bool = False, own: Task | None = None, profile: str = ""
) -> dict[str, Any]:
    """Metrics on the task's dev set. `profile`: batches whose trace goes into the run's folder, as "2-3"."""
    trace = trace_file(recipe.model.name, profile) if profile else None
    loaded = load(recipe, world, display, force, own)
    profiler = profiler_of(loaded.engine, loaded.backend) if profile else None
    parts = _split(loaded, recipe, "dev", recipe.data.eval_rows, display, dev_file(recipe, loaded.task))
    size, rules = recipe.evaluation.batch_size, answer_rules(recipe)
    recording = EvaluationProfile(profiler, profile, trace, display) if profiler and trace else None
    if recording:
        recording.check(sum(1 for part in parts for _ in by_length(part.features.sizes, size, 0, world.size)))
    watch: Watch = recording.over if recording and world.is_first else iter
    try:
        metrics, _ = evaluate_parts(loaded.engine, loaded.task, parts, rules, size, world, display, watch)
    finally:
        if recording:
            recording.close()
    loaded.engine.close()
    found = {
        "model": str(loaded.source.folder),
        "task": loaded.task.name,
        "precision": loaded.precision,
        "examples": sum(part.examples for part in parts),
        "metrics": metrics,
    }
    if loaded.precision != "int8" or not loaded.source.folder:
        return found
    before = calibration.trained_scores(loaded.source.folder, parts)
    primary = loaded.task.primary
    trained = before.get("metrics", {}).get(primary)
    which = f"{before.get('precision')}, as trained"
    cure = "use -d bf16 or fp32, or try --set device.scales=dynamic"
    calibration.warn_of_loss(primary, metrics.get(primary, math.nan), trained, which, cure)
    return found | ({"as_trained": before} if before else {})


def trace_file(run: str, steps: str) -> Path:
    """Where the profile of an evaluation of the model `run` goes: into its folder.

    Raises UserError where `steps` names no batches, and where the model is no folder.
    """
    wanted(steps, "batches")
    if not is_folder(Path(run).expanduser()):
        raise UserError(f"{run} is not a folder that a trace can be written to", "check the path, or drop --profile")
    return Path(run).expanduser() / EVALUATION_TRACE


def answers_folder(run: str, output: Path | None) -> Path:
    """Where the answers of the model `run` go: `output`, or `predictions` in the run's own folder.

    Raises UserError where the answers' folder would stand in the model's place at the next command: a model that is no
    folder (a name on the hub, a weight file) has none to write into.
    """
    own = Path(run).expanduser()
    refuse_untrained(run)  # before -o is asked for, which would not help
    if output is not None:
        refuse_hiding(run, output)
        return output
    if not is_folder(own):
        raise UserError(f"{run} is not a folder that predictions can be written to", "check the path, or name -o")
    return own / "predictions"


def predict(
    recipe: Recipe, file: Path | None, output: Path, world: World, display: Display, force: bool = False
) -> list[dict[str, Any]]:
    """Answers for `file`, or for the task's test set, in the task's own format under `output`."""
    if file is not None:
        file = own_file(str(file), folder_too=True)  # refused before the model is loaded
    loaded = load(recipe, world, display, force)
    parts = [file_part(loaded, recipe, file, display)] if file else _split(loaded, recipe, "test", 0, display)
    made = []
    for part in parts:
        size = recipe.evaluation.batch_size
        answered = answer(loaded.engine, loaded.task, part, answer_rules(recipe), size, world, display)
        entry: dict[str, Any] = {"file": str(part.file), "examples": part.examples}
        if world.is_first:
            entry["predictions"] = str(answered.write(output, ""))
        made.append(entry | ({"metrics": answered.metrics} if answered.metrics else {}))
    loaded.engine.close()
    return made


def _split(
    loaded: Loaded | Ready, recipe: Recipe, split: SplitName, rows: int, display: Display, file: str = ""
) -> list[Part]:
    if not file:
        data_only(recipe, loaded.task, display.say, split, may_fetch=isinstance(loaded, Loaded))
    folder, shape = Path(recipe.data.dir).expanduser(), sequence_shape(recipe.data, rows)
    cache = cache_folder(recipe.data)
    parts = read_split(loaded.task, folder, split, loaded.source.vocabulary, shape, cache, display.follow(), file)
    return checked(parts, loaded.source)


def file_part(loaded: Loaded | Ready, recipe: Recipe, file: Path, display: Display) -> Part:
    """A file in the format of the task's test set, or of its dev set."""
    one = loaded.task.format.fitting(loaded.task, file, "test")
    shape = sequence_shape(recipe.data, 0)
    cache = cache_folder(recipe.data)
    part = read_part(loaded.task, file, "test", one, loaded.source.vocabulary, shape, cache, display.follow())
    return checked([part], loaded.source)[0]
