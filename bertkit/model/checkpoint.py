"""Checkpoints: whole or absent, each with a checksum; the newest few and the best are kept.

A checkpoint is `step-00000042.safetensors` (all arrays of the engine) and `step-00000042.json` (its SHA-256, the
step, the best score so far, the settings that shaped it), which is sealed itself, so that no bit of either can change
unseen. The small file is written last: without it there is no checkpoint.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, read_sealed, sha256_file, sweep, write_arrays, write_sealed
from bertkit.files.inputs import is_file
from bertkit.model.config import Arrays

FORMAT = 2
_MANIFEST = re.compile(r"step-([0-9]{8,18})\.json")
_CURE = "start anew with --overwrite, go on with the bertkit that wrote it, or remove it"
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
    train_seconds: float = 0.0  # wall time of all sessions of the run, without evaluation and checkpoints
    wall_seconds: float = 0.0  # with them
    processes: int = 0  # that computed the last update; 0: not known, of an earlier bertkit


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
        path = self.path(progress.step)
        sha256 = write_arrays(path, arrays, {"format": str(FORMAT), "step": str(progress.step)})
        try:
            write_sealed(self._manifest(progress.step), _to_json(progress, sha256))
        except UserError:
            path.unlink(missing_ok=True)
            raise
        self._prune(progress)
        return path

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending. Raises UserError where the folder cannot be read."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"{self.folder}: cannot be read: {error.strerror}", "see who may read it") from None
        return sorted(int(found[1]) for found in map(_MANIFEST.fullmatch, names) if found)

    def newest(self) -> tuple[Arrays, Progress] | None:
        """The newest checkpoint that is whole; one with anything wrong is passed over with a warning. None: none is.

        Raises UserError where there are checkpoints but something is wrong with all of them.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return self.load(step)
            except Exception as error:  # whatever it is: the one before may be whole
                said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
                logger.warning("checkpoint of step %d is passed over: %s", step, said)
        if steps:
            raise UserError(
                f"{self.folder}: all {len(steps)} checkpoints are damaged or of an earlier bertkit",
                "start anew with --overwrite, or copy the folder again",
            )
        return None

    def load(self, step: int) -> tuple[Arrays, Progress]:
        """One checkpoint. Raises UserError where a bit of it changed, where it is cut off or foreign."""
        manifest, path = self._manifest(step), self.path(step)
        values = read_sealed(manifest, _CURE)
        try:
            if values["format"] != FORMAT:
                raise UserError(f"{manifest}: format {values['format']}, not {FORMAT}", "use the bertkit that wrote it")
            progress = _from_json(values)
            if progress.step != step:
                raise UserError(f"{manifest}: is of step {progress.step}", "it was renamed or is damaged; remove it")
            if not is_file(path):
                raise UserError(f"{path} is missing", "copy the folder again")
            if sha256_file(path) != values["sha256"]:
                raise UserError(f"{path}: does not match its checksum", "it is damaged; copy it again or remove it")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise UserError(f"{manifest}: is no checkpoint of bertkit: {error!r}", "remove it") from None
        return read_arrays(path)[0], progress

    def _prune(self, progress: Progress) -> None:
        steps = self.steps()
        ours = [step for step in steps if step <= progress.step]  # later ones: damaged, of a session that is repeated
        kept = {*ours[-self.keep :], *((progress.best_step,) if self.keep_best else ())}
        for step in set(steps) - kept:
            self._manifest(step).unlink(missing_ok=True)  # first: a checkpoint without it does not count
            self.path(step).unlink(missing_ok=True)
        for orphan in self.folder.glob("step-*.safetensors"):  # left where a crash came between the two files
            if not orphan.with_suffix(".json").exists():
                orphan.unlink(missing_ok=True)
        sweep(self.folder)  # left where a kill came while writing

    def path(self, step: int) -> Path:
        """The file with the arrays of update `step`."""
        return self.folder / f"step-{step:08d}.safetensors"

    def _manifest(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}.json"


def check_tensors(path: Path) -> None:
    """Raises UserError where the tensors are not those that the manifest beside them, if there is one, tells of."""
    manifest = path.with_suffix(".json")
    if is_file(manifest) and read_sealed(manifest, _CURE).get("sha256") != sha256_file(path):
        raise UserError(f"{path}: does not match its checksum", "it is damaged; copy it again")


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
        evaluations=tuple(dict(entry) for entry in values["evaluations"]),
        train_seconds=float(values["train_seconds"]),
        wall_seconds=float(values["wall_seconds"]),
        processes=int(values.get("processes", 0)),
    )
