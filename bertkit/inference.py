"""A trained model from its folder: scored on a labelled set, or asked about a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.backend import Engine, Job
from bertkit.disk import write_json
from bertkit.display import Display
from bertkit.errors import UserError
from bertkit.model_config import ARCHITECTURES
from bertkit.preparation import cache_folder, choose_target, find_model
from bertkit.pretrained import Source, starting_weights
from bertkit.recipe import Recipe, Value
from bertkit.resolve import read_toml
from bertkit.run_folder import write_answers
from bertkit.tasks import Task, find_task
from bertkit.tasks.reading import read_file, read_split
from bertkit.tasks.task import split_files, task_folder
from bertkit.trainer import evaluate as evaluate_parts
from bertkit.trainer import predict as predict_features
from bertkit.world import World


@dataclass(frozen=True)
class Loaded:
    """A trained model on a device."""

    task: Task
    source: Source
    engine: Engine
    precision: str


# Settings of its training that a model is scored and asked with, where nothing else is said.
KEPT = ("task", "precision", "data.dir", "data.seq_length", "model.casing")


def run_settings(run: str) -> dict[str, Value]:
    """What the run's own recipe says of these; empty for a folder that is no run of bertkit's."""
    path = Path(run) / "recipe.toml"
    kept = read_toml(path) if path.exists() else {}
    return {key: kept[key] for key in KEPT if key in kept}


def load(recipe: Recipe, world: World) -> Loaded:
    """The model in the folder `recipe.model.name`, for the recipe's task.

    Raises UserError where the folder has no head for the task: its answers would be random.
    """
    if not recipe.task:
        raise UserError(f"{recipe.model.name} does not say which task it was trained on", "name it with -t")
    task = find_task(recipe.task)
    target = choose_target(recipe, task)
    if recipe.model.name in ARCHITECTURES:
        raise UserError(f"{recipe.model.name!r} is a size, not a trained model", "give the folder of a run")
    source = find_model(recipe)
    fit = starting_weights(source, task.head, recipe.seed)
    untrained = (*fit.missing, *fit.reshaped)
    if untrained:
        raise UserError(
            f"{source.folder} has no trained head for {task.name}: it lacks {', '.join(untrained)}",
            f"train it first: bertkit train -m {recipe.model.name} -t {task.name}",
        )
    job = Job(
        source.config,
        task.head,
        fit.weights,
        precision=target.precision,
        layout=recipe.model.layout,
        settings=target.settings,
    )
    return Loaded(task, source, target.choice.backend.engine(job, world), target.precision)


def evaluate(recipe: Recipe, world: World, display: Display) -> dict[str, Any]:
    """Metrics on the task's dev set."""
    loaded = load(recipe, world)
    data_dir = Path(recipe.data.dir).expanduser()
    vocabulary, length = loaded.source.vocabulary, recipe.data.seq_length
    cache = cache_folder(recipe.data)
    parts = read_split(loaded.task, data_dir, "dev", vocabulary, length, recipe.data.eval_rows, cache)
    size = recipe.evaluation.batch_size
    metrics, _ = evaluate_parts(loaded.engine, loaded.task, parts, size, world, display)
    loaded.engine.close()
    return {
        "model": str(loaded.source.folder),
        "task": loaded.task.name,
        "precision": loaded.precision,
        "examples": sum(len(part.features) for part in parts),
        "metrics": metrics,
    }


def predict(recipe: Recipe, file: Path | None, output: Path, world: World, display: Display) -> list[dict[str, Any]]:
    """Answers for `file`, or for the task's test set, in GLUE's submission format under `output`."""
    loaded = load(recipe, world)
    made = []
    for path, part in _files(loaded.task, recipe, file):
        examples, features = read_file(loaded.task, path, loaded.source.vocabulary, recipe.data.seq_length)
        with display.progress("predicting", len(features)) as bar:
            logits = predict_features(loaded.engine, features, recipe.evaluation.batch_size, world, bar.add)
        target = output / loaded.task.submission[part]
        entry = {"file": str(path), "examples": len(features), "predictions": str(target)}
        if examples.labels is not None:
            entry["metrics"] = loaded.task.score(logits, examples.labels)
        if world.is_first:
            write_answers(target, loaded.task.answers(logits))
            write_json(target.with_suffix(".logits.json"), _rounded(logits))
        made.append(entry)
    loaded.engine.close()
    return made


def _files(task: Task, recipe: Recipe, file: Path | None) -> list[tuple[Path, str]]:
    if file is not None:
        return [(file, next(iter(task.submission)))]
    folder = task_folder(task, Path(recipe.data.dir).expanduser())
    return [(folder / split.file, split.part) for split in split_files(task, "test")]


def _rounded(logits: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.7g}") for value in row] for row in logits]
