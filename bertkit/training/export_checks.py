"""An exported model compared with the engine: on made sequences of the edges' lengths, and on examples of the run's.

Legend: B sequences, S length that they are padded to, T tokens of the batch without padding.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.task import Part
from bertkit.distributed.world import World
from bertkit.engine.exports import ExportedModel, PaddedModel
from bertkit.engine.interface import OUTPUTS, Arrays, Batch, BatchLimits, Engine, Limits, Precision
from bertkit.engine.padded_engine import padded
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
# each of up to 24 layers. int8: root mean square of the differences from fp32, as a share of that of the logits; .04 to
# .15 were seen, and a model that computes something else is 1 or more away.
TOLERANCES: Mapping[Precision, float] = {"fp32": 1e-4, "fp16": 1e-2, "bf16": 5e-2, "int8": 0.4}


class ExportDiffers(UserError):
    """What was written does not compute what the engine does; nothing is left of it."""

    exit_code = 1


def reference(recipe: Recipe, ready: Ready) -> Engine:
    """The engine that the export is compared with, ready for the model's longest sequences."""
    head, longest = ready.task.head, ready.source.config.max_position_embeddings
    backend = ready.target.backend
    if not backend.capabilities.trains:
        raise UserError(f"backend {backend.name} computes what is exported, not what it is compared with", "drop it")
    job = inference_job(recipe, head, ready.target, ready.source, ready.fit)
    limits = Limits((), (BatchLimits(AT_ONCE * head.sequences_each, longest),))
    return backend.engine(dataclasses.replace(job, limits=limits), World())


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
    part = dev_parts(recipe, ready, max(count, 0), display)[0]
    return {f"{part.examples:,} examples of {part.file.name}": in_order(part.features)}


def dev_parts(recipe: Recipe, ready: Ready, rows: int, display: Display) -> list[Part]:
    """The run's dev set, or the first `rows` examples of each of its files. Raises UserError where it is not here."""
    run, file = recipe.model.name, dev_file(recipe, ready.task)
    if read_task(Path(run).expanduser()) is None:
        raise UserError(f"{run} does not state how long its sequences are", "use --verify-examples 0")
    if not file:
        data_only(recipe, ready.task, display.say, "dev", may_fetch=False)
    shape = sequence_shape(recipe.data, rows)
    folder, cache = Path(recipe.data.dir).expanduser(), cache_folder(recipe.data)
    parts = read_split(ready.task, folder, "dev", ready.source.vocabulary, shape, cache, display.follow(), file)
    return checked(parts, ready.source)


def in_order(features: Features) -> list[Batch]:
    """In the file's order, so that lengths are mixed and rows padded."""
    numbers = np.arange(len(features))
    return [features.batch(numbers[start : start + AT_ONCE]) for start in range(0, len(features), AT_ONCE)]


def verify(
    exported: PaddedModel, engine: Engine, model: ExportedModel, batches: Mapping[str, Sequence[Batch]]
) -> dict[str, float]:
    """What the batches are -> how far the logits are apart, as `measure` has it.

    Raises ExportDiffers where they are beyond the tolerance.
    """
    quantised, whole = model.precision == "int8", Magnitude()
    gaps = {what: Magnitude() for what in batches}
    for what, several in batches.items():
        for ragged in several:
            inputs = padded(ragged)
            wanted = engine.predict(ragged)
            gap = differences(model.head, exported(inputs), wanted, inputs["attention_mask"] > 0)
            gaps[what].add(gap)
            whole.add(np.concatenate([wanted[name].reshape(-1) for name in OUTPUTS[model.head.kind]]))
    found = {what: gap.size(quantised) / (whole.size(quantised) or 1.0) for what, gap in gaps.items()}
    worst, tolerance = max(found, key=lambda what: found[what]), TOLERANCES[model.precision]
    if not found[worst] <= tolerance:
        raise ExportDiffers(
            f"the export differs from the engine by {found[worst]:.2g} of {measure(model.precision)} on {worst},"
            f" over {tolerance:g}",
            "nothing was written; please report it, with the versions of `pip list`",
        )
    return found


def measure(precision: str) -> str:
    """What a difference is a share of, in words."""
    return "the logits' root mean square" if precision == "int8" else "the largest logit"


@dataclass
class Magnitude:
    """How large some numbers are."""

    largest: float = 0.0
    squares: float = 0.0
    count: int = 0

    def add(self, numbers: np.ndarray) -> None:
        self.largest = max(self.largest, float(np.abs(numbers).max(initial=0.0)))
        self.squares += float(np.square(numbers, dtype=np.float64).sum())
        self.count += numbers.size

    def size(self, mean: bool) -> float:
        """The root mean square, or the largest."""
        return float(np.sqrt(self.squares / max(1, self.count))) if mean else self.largest


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


def differences(
    head: Head, made: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], real: np.ndarray
) -> np.ndarray:
    """Of each logit; infinity where shapes differ, or a number is not finite."""
    found = []
    for name in OUTPUTS[head.kind]:
        ours = made[name][real] if head.kind in PER_TOKEN else made[name]
        if ours.shape != wanted[name].shape or not np.isfinite(ours).all():
            return np.array([np.inf])
        found.append((ours.astype(np.float64) - wanted[name]).reshape(-1))
    return np.concatenate(found)
