"""int8: the scales of what enters the layers, found once on training sequences and kept in the run's folder; and what
int8 costs of the score.

A file of scales is used again where the weights and what was read are those it was made with, by whatever backend.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.data.features import Features
from bertkit.data.sampler import by_length
from bertkit.data.tasks.metrics import worth
from bertkit.data.tasks.task import Part
from bertkit.engine.interface import Arrays, Batch, Calibrates, Engine
from bertkit.errors import UserError
from bertkit.files.disk import read_sealed_arrays, write_sealed_arrays
from bertkit.files.inputs import is_file
from bertkit.records.files import NAME, load
from bertkit.training.run_folder import SCALES

logger = logging.getLogger(__name__)

EXAMPLES = 2048  # of the training file's first, of which the sequences are drawn
SEQUENCES = 256
BATCH = 32
SEED = 1
MOST_LOSS = 0.01  # share of the score as trained
VERSION = 2  # of what is found: 1 had no outliers kept apart
OTHER = {"weights": "other weights", "longest": "another maximum length", "version": "another version of bertkit"}


@dataclasses.dataclass(frozen=True)
class ScalesKey:
    """What scales belong to."""

    weights: str  # SHA-256
    longest: int  # tokens of a sequence
    version: int = VERSION

    def metadata(self) -> dict[str, str]:
        return {name: str(value) for name, value in dataclasses.asdict(self).items()}


def kept_scales(folder: Path, key: ScalesKey, display: Display) -> Arrays:
    """Those in the folder; none where there are none of this key, which is said, or they are damaged."""
    path = folder / SCALES
    if not is_file(path):
        return {}
    try:
        arrays, told = read_sealed_arrays(path)
    except UserError as error:
        logger.warning("%s; the scales of int8 are found anew", error.cause)
        return {}
    if other := [OTHER[name] for name, value in key.metadata().items() if told.get(name) != value]:
        display.say(f"int8: the scales in {path} are of {' and '.join(other)}; they are not used")
        return {}
    display.say(f"int8: {told.get('what', 'scales')}, from {path}")
    return arrays


def calibrate(engine: Calibrates, features: Features, display: Display) -> tuple[Arrays, str]:
    """(the scales found on some sequences of the training data, what was done in words). The engine uses them."""
    batches = calibration_batches(features)
    display.say(f"int8: finding scales on {sum(len(b['cu_seqlens']) - 1 for b in batches)} training sequences")
    found = engine.calibrate(batches)
    what = f"scales by {found.method}, logits within {found.difference:.1%} of those without int8 (root mean square)"
    display.say(f"int8: {what}")
    return found.scales, what


def calibration_batches(features: Features) -> list[Batch]:
    """Sequences drawn with a fixed seed, in batches of like lengths in random order."""
    rng = np.random.default_rng(SEED)
    drawn = np.sort(rng.permutation(len(features))[:SEQUENCES])
    groups = [drawn[group] for group in by_length(features.sizes[drawn], BATCH)]
    return [features.batch(groups[place]) for place in rng.permutation(len(groups))]


def keep_scales(folder: Path, key: ScalesKey, scales: Arrays, what: str) -> None:
    """Into the folder; where it cannot be written to, they are found again next time."""
    try:
        write_sealed_arrays(folder / SCALES, scales, {**key.metadata(), "what": what})
    except OSError as error:
        logger.warning("%s: the scales of int8 could not be kept: %s", folder, error.strerror)


def trained_scores(folder: Path, parts: Sequence[Part]) -> dict[str, Any]:
    """{"precision", "metrics"} that the run in the folder had on these very files at its end; {} where it did not."""
    if not is_file(folder / NAME):
        return {}
    try:
        run = load(folder).mapping
    except UserError:
        return {}
    seen = [(one["sha256"], one["examples"]) for one in run["data"]["evaluation"]]
    same = seen == [(part.sha256, part.examples) for part in parts]
    if not same or run["config"].get("checkpoint.result") != "last" or not run["metrics"]:
        return {}
    return {"precision": run["precision"]["name"], "metrics": run["metrics"]}


def warn_of_loss(metric: str, score: float, before: float | None, which: str, cure: str) -> None:
    """Where int8 costs more of the score than it should. `which`: the score before, in words."""
    if before and worth(metric, before) - worth(metric, score) > MOST_LOSS * abs(before):
        logger.warning(
            "int8 changes the dev set's %s from %.4f (%s) to %.4f, by more than %.0f %%; %s",
            metric, before, which, score, 100 * MOST_LOSS, cure,
        )  # fmt: skip


def wanted(engine: Engine) -> Calibrates | None:
    """The engine where scales would make it faster."""
    return engine if isinstance(engine, Calibrates) and engine.wants_calibration() else None
