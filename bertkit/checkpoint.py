"""Checkpoints: whole or absent, each with a checksum; the newest few and the best are kept.

A checkpoint is `step-00000042.safetensors` (all arrays of the engine) and `step-00000042.json` (its SHA-256, the
step, the best score so far, the settings that shaped it). The small file is written last:
without it there is no checkpoint.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.backend import Arrays
from bertkit.disk import read_arrays, sha256_file, write_arrays, write_json
from bertkit.errors import UserError

FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run stands after `step` updates; with the sampler's seed this fixes the place in the epoch."""

    step: int
    shaped_by: Mapping[str, Any]  # settings and data that shape the result; a resume must have the same
    best_step: int = 0  # 0: nothing evaluated yet
    best_score: float = float("-inf")
    losses: tuple[float, ...] = ()  # of updates 1 to `step`
    evaluations: tuple[Mapping[str, Any], ...] = ()  # each a record's Evaluation
    train_seconds: float = 0.0  # wall time of all legs of the run, without evaluation and checkpoints
    wall_seconds: float = 0.0  # with them


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run, in one folder."""

    folder: Path
    keep: int = 3
    keep_best: bool = True

    def save(self, arrays: Mapping[str, np.ndarray], progress: Progress) -> Path:
        """Write a checkpoint, then remove those beyond the newest `keep` and, with `keep_best`, the best.

        Raises UserError where the disk is full; earlier checkpoints are then untouched.
        """
        path = self._tensors(progress.step)
        write_arrays(path, arrays, {"format": str(FORMAT), "step": str(progress.step)})
        try:
            write_json(self._manifest(progress.step), _to_json(progress, sha256_file(path)))
        except UserError:
            path.unlink(missing_ok=True)
            raise
        self._prune(progress)
        return path

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        found = (path.stem.removeprefix("step-") for path in self.folder.glob("step-*.json"))
        return sorted(int(number) for number in found if number.isdigit())

    def newest(self) -> tuple[Arrays, Progress] | None:
        """The newest checkpoint that is whole; a damaged one is passed over with a warning. None: there is none.

        Raises UserError where there are checkpoints but all of them are damaged.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.load(step)
            except UserError as error:
                logger.warning("checkpoint of step %d is passed over: %s", step, error)
        if steps:
            raise UserError(
                f"{self.folder}: all {len(steps)} checkpoints are damaged",
                "start anew with --overwrite, or copy the folder again",
            )
        return None

    def load(self, step: int) -> tuple[Arrays, Progress]:
        """One checkpoint. Raises UserError where it is cut off, foreign or does not match its checksum."""
        manifest, path = self._manifest(step), self._tensors(step)
        try:
            values = json.loads(manifest.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise UserError(f"{manifest}: format {values['format']}, not {FORMAT}", "use the bertkit that wrote it")
            progress = _from_json(values)
            if progress.step != step:
                raise UserError(f"{manifest}: is of step {progress.step}", "it was renamed or is damaged; remove it")
            if not path.exists():
                raise UserError(f"{path} is missing", "copy the folder again")
            if sha256_file(path) != values["sha256"]:
                raise UserError(f"{path}: does not match its checksum", "it is damaged; copy it again or remove it")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{manifest}: is no checkpoint of bertkit: {error!r}", "remove it") from None
        return read_arrays(path)[0], progress

    def _prune(self, progress: Progress) -> None:
        steps = self.steps()
        ours = [step for step in steps if step <= progress.step]  # later ones: damaged, of a leg that is done again
        kept = {*ours[-self.keep :], *((progress.best_step,) if self.keep_best else ())}
        for step in set(steps) - kept:
            self._manifest(step).unlink(missing_ok=True)  # first: a checkpoint without it does not count
            self._tensors(step).unlink(missing_ok=True)
        for orphan in self.folder.glob("step-*.safetensors"):  # left where a crash came between the two files
            if not orphan.with_suffix(".json").exists():
                orphan.unlink(missing_ok=True)
        for part in self.folder.glob(".step-*.part"):  # left where a crash came while writing
            part.unlink(missing_ok=True)

    def _tensors(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.safetensors"

    def _manifest(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"


def _to_json(progress: Progress, sha256: str) -> dict[str, Any]:
    values = asdict(progress) | {"format": FORMAT, "sha256": sha256}
    values["losses"] = [loss if math.isfinite(loss) else str(loss) for loss in progress.losses]  # float() reads "nan"
    if progress.best_step == 0:
        values["best_score"] = None  # JSON knows no infinity
    return values


def _from_json(values: Mapping[str, Any]) -> Progress:
    best = values["best_score"]
    return Progress(
        step=int(values["step"]),
        shaped_by=dict(values["shaped_by"]),
        best_step=int(values["best_step"]),
        best_score=float("-inf") if best is None else float(best),
        losses=tuple(float(value) for value in values["losses"]),
        evaluations=tuple(_evaluation(entry) for entry in values["evaluations"]),
        train_seconds=float(values["train_seconds"]),
        wall_seconds=float(values.get("wall_seconds", 0.0)),
    )


def _evaluation(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Earlier checkpoints had the metrics beside the step, and no times."""
    if "metrics" in entry:
        return entry
    metrics = {name: value for name, value in entry.items() if name != "step"}
    return {"step": entry["step"], "training_seconds": None, "wall_seconds": None, "metrics": metrics}
