"""A trained model written in another program's format, verified there against the engine, whole or not at all.

Legend: B sequences, S length that they are padded to, T tokens of the batch without padding.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.engine.exports import ExportedModel, ExportFormat, PaddedModel, find_format
from bertkit.engine.interface import OUTPUTS, Arrays, BatchLimits, Engine, Limits, Precision
from bertkit.errors import UserError
from bertkit.files.disk import sha256_file, sweep, sync_folder, temporary_beside, write_json
from bertkit.files.inputs import exists, is_file, is_folder
from bertkit.model.config import PER_TOKEN, Head, ModelConfig
from bertkit.model.saving import write_tokenizer
from bertkit.model.tokenizer_files import write_vocabulary
from bertkit.recipes.recipe import Recipe
from bertkit.training.inference import Ready, open_model
from bertkit.training.run_task import read_task
from bertkit.training.setup import inference_job
from bertkit.version import __version__

SHORTEST = 3  # tokens that a recipe's length may be
DESCRIPTION = "bertkit.json"  # what an export is of; a folder without it is no export
# Of the largest logit: fp32 differs by the order of its sums, bf16 by 7 bits of mantissa in each of up to 24 layers.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "bf16": 5e-2}


class ExportDiffers(UserError):
    """What was written does not compute what the engine does; nothing is left of it."""

    exit_code = 1


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it lies from the engine."""

    folder: str
    format: str
    task: str
    precision: str
    files: tuple[str, ...]
    difference: float  # the largest of a logit, as a share of the largest logit
    tolerance: float
    verified_on: tuple[str, ...]


def export(
    recipe: Recipe, form: str, precision: Precision, output: Path, overwrite: bool, display: Display,
    force: bool = False,
) -> ExportReport:  # fmt: skip
    """Write the model in the folder `recipe.model.name` to `output`; `recipe` says what it is compared with.

    Raises UserError, with nothing written, where it cannot be; ExportDiffers where it is not what the engine computes.
    """
    output = output.expanduser()
    chosen = _usable(form, precision)
    refuse_place(output, overwrite)
    ready = open_model(_without_length(recipe), force=force)
    for note in ready.notes:
        display.say(note)
    if ready.task.head.kind not in chosen.heads:
        raise UserError(f"--format {form} has no {ready.task.head.kind} head", f"it has {', '.join(chosen.heads)}")
    model = ExportedModel(ready.source.config, ready.task.head, ready.fit.weights, precision)
    engine = reference(recipe, ready)  # first: a framework may be set up once in a process
    temporary = temporary_beside(output)
    try:
        temporary.mkdir(parents=True)
        sweep(output.parent)
        display.say(f"writing {output}")
        chosen.write(model, temporary)
        display.say(f"comparing with {ready.target.backend.name} in {ready.target.precision}")
        found = verify(chosen.load(temporary), engine, model)
        report = _describe(chosen, ready, model, found, output, temporary)
        _move_in(temporary, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", "choose another place") from error
    finally:
        engine.close()
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _usable(name: str, precision: Precision) -> ExportFormat:
    """Raises UserError where it is not known or not installed, or has not this precision."""
    chosen = find_format(name)
    chosen.check()
    if precision not in chosen.precisions:
        raise UserError(f"--format {name} has no {precision}", f"it has {', '.join(chosen.precisions)}: choose with -d")
    return chosen


def _without_length(recipe: Recipe) -> Recipe:
    """No text is read, so only a run's own length matters: another model may have fewer positions than the usual."""
    if read_task(Path(recipe.model.name).expanduser()) is not None:
        return recipe
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, seq_length=SHORTEST))


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


def _move_in(temporary: Path, output: Path) -> None:
    """The finished folder takes its place; an older export goes only then."""
    old = temporary_beside(output)
    if exists(output):
        output.replace(old)
    temporary.replace(output)
    sync_folder(output.parent)
    shutil.rmtree(old, ignore_errors=True)


# ---- verification ----


def reference(recipe: Recipe, ready: Ready) -> Engine:
    """The engine that the export is compared with, ready for the model's longest sequences."""
    head, longest = ready.task.head, ready.source.config.max_position_embeddings
    job = inference_job(recipe, head, ready.target, ready.source, ready.fit)
    most = max(len(lengths) for lengths in edges(longest).values()) * head.sequences_each
    limits = Limits((), (BatchLimits(most, longest),))
    return ready.target.backend.engine(dataclasses.replace(job, limits=limits), World())


def edges(longest: int) -> dict[str, tuple[int, ...]]:
    """Lengths of a batch's sequences, by what they are, in tokens."""
    mixed = (1, longest, max(1, longest // 2), min(2, longest), min(7, longest))
    return {"1 token": (1,), f"{longest} tokens": (longest,), "mixed lengths": mixed}


def verify(exported: PaddedModel, engine: Engine, model: ExportedModel) -> dict[str, float]:
    """The largest difference of the logits on each of the edges, as a share of the largest logit on any of them.

    Raises ExportDiffers where one is beyond the tolerance.
    """
    gaps, scale = {}, 0.0
    for number, (what, lengths) in enumerate(edges(model.config.max_position_embeddings).items()):
        ragged = made_batch(model.config, np.repeat(lengths, model.head.sequences_each), number)
        inputs = padded(ragged)
        made, wanted = exported(inputs), engine.predict(ragged)
        gaps[what] = _difference(model.head, made, wanted, inputs["attention_mask"] > 0)
        scale = max(scale, *(float(np.abs(wanted[name]).max()) for name in OUTPUTS[model.head.kind]))
    found = {what: gap / (scale or 1.0) for what, gap in gaps.items()}
    worst, tolerance = max(found, key=lambda what: found[what]), TOLERANCES[model.precision]
    if not found[worst] <= tolerance:
        raise ExportDiffers(
            f"the export differs from the engine by {found[worst]:.2g} of the largest logit on {worst},"
            f" over {tolerance:g}",
            "nothing was written; please report it, with the versions of `pip list`",
        )
    return found


def made_batch(config: ModelConfig, lengths: np.ndarray, seed: int) -> Arrays:
    """A ragged batch of random tokens; the second half of each sequence is of the second text."""
    rng, tokens = np.random.default_rng(seed), int(lengths.sum())
    second = np.concatenate([np.arange(length) >= (length + 1) // 2 for length in lengths])
    return {
        "input_ids": rng.integers(0, config.vocab_size, tokens).astype(np.int32),
        "token_type_ids": (second & (config.type_vocab_size > 1)).astype(np.int32),
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
        "example_ids": np.arange(len(lengths), dtype=np.int64),
    }


def padded(ragged: Mapping[str, np.ndarray]) -> Arrays:
    """Flat tokens (T,) as rows (B, S), with a mask of what is real."""
    lengths = np.diff(ragged["cu_seqlens"])
    real = np.arange(int(lengths.max())) < lengths[:, None]
    made = {"attention_mask": real.astype(np.int32)}
    for name in ("input_ids", "token_type_ids"):
        made[name] = np.zeros(real.shape, np.int32)
        made[name][real] = ragged[name]
    return made


def _difference(
    head: Head, made: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], real: np.ndarray
) -> float:
    """The largest; infinity where shapes differ, or a number is not finite."""
    largest = 0.0
    for name in OUTPUTS[head.kind]:
        ours = made[name][real] if head.kind in PER_TOKEN else made[name]
        if ours.shape != wanted[name].shape or not np.isfinite(ours).all():
            return float("inf")
        largest = max(largest, float(np.abs(ours.astype(np.float64) - wanted[name]).max()))
    return largest


# ---- the description beside it ----


def _describe(
    form: ExportFormat, ready: Ready, model: ExportedModel, found: Mapping[str, float], output: Path, folder: Path
) -> ExportReport:
    """Write tokenizer and `bertkit.json`, and report."""
    vocabulary = ready.source.vocabulary
    if vocabulary.has_words:
        write_vocabulary(folder / "vocab.txt", vocabulary, added=False)
        write_tokenizer(folder, model.config, vocabulary)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    told: dict[str, Any] = {
        "bertkit": __version__,
        "format": form.name,
        "task": ready.task.name,
        "head": model.head.kind,
        "labels": list(ready.task.labels),
        "precision": model.precision,
        "max_sequence_length": model.config.max_position_embeddings,
        "compared_with": f"{ready.target.backend.name} in {ready.target.precision}",
        "differences": found,
        "tolerance": TOLERANCES[model.precision],
        "sha256": {name: sha256_file(path) for name, path in zip(names, files, strict=True)},
    }
    write_json(folder / DESCRIPTION, told)
    return ExportReport(
        str(output), form.name, ready.task.name, model.precision, (*names, DESCRIPTION), max(found.values()),
        TOLERANCES[model.precision], tuple(found),
    )  # fmt: skip
