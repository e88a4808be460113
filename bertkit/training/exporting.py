"""A trained model written in another program's format, verified there against the engine, whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.tasks.own.rows import RowFormat
from bertkit.data.tasks.squad.task import SquadFormat
from bertkit.data.tasks.task import Task
from bertkit.engine.exports import ExportedModel, ExportFormat, TextRules, find_format
from bertkit.engine.interface import Arrays, Precision
from bertkit.errors import UserError
from bertkit.files.disk import replace_folder, sha256_file, sweep, temporary_beside, write_json
from bertkit.files.inputs import exists, is_file, is_folder
from bertkit.model.config import to_mapping
from bertkit.model.saving import write_tokenizer
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import write_vocabulary
from bertkit.recipes.recipe import Recipe, Value
from bertkit.training.export_checks import TOLERANCES, edge_batches, example_batches, measure, reference, verify
from bertkit.training.export_scores import ExportScores, scores
from bertkit.training.inference import Ready, int8_scales, open_model
from bertkit.training.run_task import read_task
from bertkit.training.setup import own_settings
from bertkit.version import __version__

SHORTEST = 3  # tokens that a recipe's length may be
DESCRIPTION = "bertkit.json"  # what an export is of; a folder without it is no export


@dataclass(frozen=True)
class ExportRequest:
    """What is to be written, and where."""

    format: str
    precision: Precision
    output: Path
    settings: Mapping[str, Value]  # of the format, those that are named
    examples: int | None = None  # of the dev set, that it is compared on, as `example_batches` takes it
    overwrite: bool = False
    force: bool = False  # another task than the run was trained on


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it lies from the engine."""

    folder: str
    format: str
    task: str
    precision: str
    files: tuple[str, ...]
    difference: float  # the largest of a logit, as a share of the largest logit, or as `measure` has it for int8; 0
    # where it was read back alone
    tolerance: float
    verified_on: tuple[str, ...]  # (): there is no runtime here, what was written was read back
    scores: ExportScores | None = None  # int8: what it costs


def export(recipe: Recipe, asked: ExportRequest, display: Display) -> ExportReport:
    """Write the model in the folder `recipe.model.name` to `asked.output`; `recipe` says what it is compared with.

    Raises UserError, with nothing written, where it cannot be; ExportDiffers where it is not what the engine computes.
    """
    output = asked.output.expanduser()
    chosen = _usable(asked.format, asked.precision)
    settings = own_settings(chosen.settings, asked.settings, f"--format {chosen.name}", "--option ")
    refuse_place(output, asked.overwrite)
    ready = open_model(_without_length(recipe), force=asked.force)
    for note in ready.notes:
        display.say(note)
    if ready.task.head.kind not in chosen.heads:
        raise UserError(
            f"--format {chosen.name} has no {ready.task.head.kind} head", f"it has {', '.join(chosen.heads)}"
        )
    model = _model(recipe, ready, asked.precision, settings)
    if model.precision == "int8":
        model = dataclasses.replace(model, scales=_scales(recipe, ready, display))
    temporary = temporary_beside(output)
    try:
        temporary.mkdir(parents=True)
        sweep(output.parent)
        found, costs = _write_and_verify(chosen, recipe, ready, model, asked, temporary, display)
        report = _describe(chosen, ready, model, found, costs, output, temporary)
        replace_folder(temporary, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", "choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _write_and_verify(
    chosen: ExportFormat,
    recipe: Recipe,
    ready: Ready,
    model: ExportedModel,
    asked: ExportRequest,
    folder: Path,
    display: Display,
) -> tuple[dict[str, float], ExportScores | None]:
    """-> (the differences, by what it was compared on; {} where there is no runtime; of int8 also the scores)"""
    engine = reference(recipe, ready)  # first: a framework may be set up once in a process
    try:
        display.say(f"writing {asked.output}")
        chosen.write(model, folder)
        loaded = chosen.load(folder)
        if loaded is None:
            display.say("what was written was read back; nothing here computes it, so it was compared with no engine")
            return {}, None
        display.say(f"comparing with {ready.target.backend.name} in {ready.target.precision}")
        batches = edge_batches(model.config, model.head) | example_batches(recipe, ready, asked.examples, display)
        found = verify(loaded, engine, model, batches)
        costs = scores(recipe, ready, loaded, engine, asked.examples, display) if model.precision == "int8" else None
        return found, costs
    finally:
        engine.close()


def _scales(recipe: Recipe, ready: Ready, display: Display) -> Arrays:
    """Of int8. Raises UserError where there are none."""
    run = recipe.model.name
    if read_task(Path(run).expanduser()) is None:
        raise UserError(
            f"{run} does not state the data it was trained on, which int8 needs", "export another precision"
        )
    return int8_scales(recipe, ready, display)


def _usable(name: str, precision: Precision) -> ExportFormat:
    """Raises UserError where it is not known or not installed, or has not this precision."""
    chosen = find_format(name)
    chosen.check()
    if precision not in chosen.precisions:
        raise UserError(f"--format {name} has no {precision}", f"it has {', '.join(chosen.precisions)}: choose with -d")
    return chosen


def _without_length(recipe: Recipe) -> Recipe:
    """Only a run's own length matters: another model may have fewer positions than the usual."""
    if read_task(Path(recipe.model.name).expanduser()) is not None:
        return recipe
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, seq_length=SHORTEST))


def _model(
    recipe: Recipe, ready: Ready, precision: Precision, settings: Mapping[str, str | int | float | bool]
) -> ExportedModel:
    vocabulary = ready.source.vocabulary
    return ExportedModel(
        config=ready.source.config,
        head=ready.task.head,
        weights=ready.fit.weights,
        precision=precision,
        task=ready.task.name,
        labels=ready.task.labels,
        pad=vocabulary.special_ids["[PAD]"],
        texts=_texts(recipe, ready) if vocabulary.has_words else None,
        settings=settings,
    )


def _texts(recipe: Recipe, ready: Ready) -> TextRules:
    """A run's own length, or the most that the model can take."""
    run, own = read_task(Path(recipe.model.name).expanduser()) is not None, ready.task.format
    rows = own if isinstance(own, RowFormat) else None
    return TextRules(
        tokenizer=tokenizer(ready.source.vocabulary).to_str(),
        lower_case=ready.source.vocabulary.lower_case,
        seq_length=recipe.data.seq_length if run else ready.source.config.max_position_embeddings,
        doc_stride=recipe.data.doc_stride,
        query_length=recipe.data.query_length,
        n_best=recipe.answers.n_best,
        longest=recipe.answers.longest,
        null_threshold=recipe.answers.null_threshold if _may_be_silent(ready.task) else None,
        temperature=rows.temperature if rows else 1.0,
        thresholds=tuple(rows.thresholds or ()) if rows else (),
    )


def _may_be_silent(task: Task) -> bool:
    """Whether some of its questions have no answer."""
    return isinstance(task.format, SquadFormat) and task.format.version2


def refuse_place(output: Path, overwrite: bool) -> None:
    """Raises UserError where something stands there that is not to be written over."""
    if is_file(output):
        raise UserError(f"{output} is a file", "an export is a folder; choose another place with -o")
    if not exists(output) or (is_folder(output) and not os.listdir(output)):
        return
    if not is_file(output / DESCRIPTION):
        raise UserError(f"{output} is there already and is no export", "choose another folder with -o")
    if not overwrite:
        raise UserError(f"{output} holds an export already", "use --overwrite, or choose another folder with -o")


# ---- the description beside it ----


def _describe(
    form: ExportFormat,
    ready: Ready,
    model: ExportedModel,
    found: Mapping[str, float],
    costs: ExportScores | None,
    output: Path,
    folder: Path,
) -> ExportReport:
    """Write configuration, tokenizer and `bertkit.json`, and report."""
    vocabulary = ready.source.vocabulary
    if not exists(folder / "config.json"):
        write_json(folder / "config.json", to_mapping(model.config, model.head, model.labels, model.pad))
    if vocabulary.has_words:
        write_vocabulary(folder / "vocab.txt", vocabulary, added=False)
        write_tokenizer(folder, model.config, vocabulary)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    texts = {} if model.texts is None else dataclasses.asdict(model.texts)
    texts.pop("tokenizer", None)
    told: dict[str, Any] = {
        "bertkit": __version__,
        "versions": dict(form.versions()),
        "format": form.name,
        "options": dict(model.settings),
        "task": ready.task.name,
        "head": model.head.kind,
        "labels": list(ready.task.labels),
        "precision": model.precision,
        "max_sequence_length": model.config.max_position_embeddings,
        "texts": texts,
        "weights_sha256": ready.fit.digest,
        "compared_with": f"{ready.target.backend.name} in {ready.target.precision}" if found else None,
        "differences": found,
        "tolerance": TOLERANCES[model.precision],
        "measure": measure(model.precision),
        **({"dev_scores": dataclasses.asdict(costs)} if costs else {}),
        "sha256": {name: sha256_file(path) for name, path in zip(names, files, strict=True)},
    }
    write_json(folder / DESCRIPTION, told)
    return ExportReport(
        str(output), form.name, ready.task.name, model.precision, (*names, DESCRIPTION),
        max(found.values(), default=0.0), TOLERANCES[model.precision], tuple(found), costs,
    )  # fmt: skip
