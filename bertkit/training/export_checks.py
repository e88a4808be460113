"""An exported model compared with the engine: on made sequences of the edges' lengths, and on examples of the run's.

Legend: B sequences, S length that they are padded to, T tokens of the batch without padding.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.tasks.reading import read_split
from bertkit.distributed.world import World
from bertkit.engine.exports import ExportedModel, PaddedModel
from bertkit.engine.interface import OUTPUTS, Arrays, Batch, BatchLimits, Engine, Limits, Precision
from bertkit.errors import UserError
from bertkit.model.config import PER_TOKEN, Head, ModelConfig
from bertkit.recipes.recipe import Recipe
from bertkit.training.inference import Ready
from bertkit.training.recipe_parts import cache_folder, dev_file, sequence_shape
from bertkit.training.run_task import read_task
from bertkit.training.setup import checked, inference_job
from bertkit.training.supply import data_only

logger = logging.getLogger(__name__)
AT_ONCE = 8  # examples of a batch
USUAL, ALL = 64, -1  # examples: where no number is named; as many as there are
# Of the largest logit: fp32 differs by the order of its sums, fp16 and bf16 by the 10 and 7 bits of their mantissas in
# each of up to 24 layers.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2}


class ExportDiffers(UserError):
    """What was written does not compute what the engine does; nothing is left of it."""

    exit_code = 1


def reference(recipe: Recipe, ready: Ready) -> Engine:
    """The engine that the export is compared with, ready for the model's longest sequences."""
    head, longest = ready.task.head, ready.source.config.max_position_embeddings
    job = inference_job(recipe, head, ready.target, ready.source, ready.fit)
    limits = Limits((), (BatchLimits(AT_ONCE * head.sequences_each, longest),))
    return ready.target.backend.engine(dataclasses.replace(job, limits=limits), World())


def edges(longest: int) -> dict[str, tuple[int, ...]]:
    """Lengths of a batch's sequences, by what they are, in tokens."""
    mixed = (1, longest, max(1, longest // 2), min(2, longest), min(7, longest))
    return {"1 token": (1,), f"{longest} tokens": (longest,), "mixed lengths": mixed}


def edge_batches(config: ModelConfig, head: Head) -> dict[str, list[Batch]]:
    """What the batches are -> random tokens of these lengths."""
    return {
        what: [made_batch(config, np.repeat(lengths, head.sequences_each), number)]
        for number, (what, lengths) in enumerate(edges(config.max_position_embeddings).items())
    }


def example_batches(recipe: Recipe, ready: Ready, count: int | None, display: Display) -> dict[str, list[Batch]]:
    """What the batches are -> the first `count` examples of the run's dev set, or `ALL`.

    None: `USUAL`, and {} with a warning where they are not to be had; with a number, UserError.
    """
    if count == 0:
        return {}
    try:
        return _example_batches(recipe, ready, USUAL if count is None else count, display)
    except UserError as error:
        if count is not None:
            raise
        logger.warning("no examples of the dev set are compared: %s", error.cause)
        return {}


def _example_batches(recipe: Recipe, ready: Ready, count: int, display: Display) -> dict[str, list[Batch]]:
    run, file = recipe.model.name, dev_file(recipe, ready.task)
    if read_task(Path(run).expanduser()) is None:
        raise UserError(f"{run} does not state how long its sequences are", "use --verify-examples 0")
    if not file:
        data_only(recipe, ready.task, display.say, "dev", may_fetch=False)
    shape = sequence_shape(recipe.data, max(count, 0))
    folder, cache = Path(recipe.data.dir).expanduser(), cache_folder(recipe.data)
    part = read_split(ready.task, folder, "dev", ready.source.vocabulary, shape, cache, display.follow(), file)[0]
    features = checked([part], ready.source)[0].features
    return {f"{part.examples:,} examples of {part.file.name}": in_order(features)}


def in_order(features: Features) -> list[Batch]:
    """In the file's order, so that lengths are mixed and rows padded."""
    numbers = np.arange(len(features))
    return [features.batch(numbers[start : start + AT_ONCE]) for start in range(0, len(features), AT_ONCE)]


def verify(
    exported: PaddedModel, engine: Engine, model: ExportedModel, batches: Mapping[str, Sequence[Batch]]
) -> dict[str, float]:
    """What the batches are -> the largest difference of a logit, as a share of the largest logit of any of them.

    Raises ExportDiffers where one is beyond the tolerance.
    """
    gaps, scale = {}, 0.0
    for what, several in batches.items():
        gaps[what] = 0.0
        for ragged in several:
            inputs = padded(ragged)
            made, wanted = exported(inputs), engine.predict(ragged)
            gap = difference(model.head, made, wanted, inputs["attention_mask"] > 0)
            gaps[what] = max(gaps[what], gap)
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


def difference(head: Head, made: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], real: np.ndarray) -> float:
    """The largest; infinity where shapes differ, or a number is not finite."""
    largest = 0.0
    for name in OUTPUTS[head.kind]:
        ours = made[name][real] if head.kind in PER_TOKEN else made[name]
        if ours.shape != wanted[name].shape or not np.isfinite(ours).all():
            return float("inf")
        largest = max(largest, float(np.abs(ours.astype(np.float64) - wanted[name]).max()))
    return largest
