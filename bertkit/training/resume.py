"""Where a run begins: at its beginning, after its newest checkpoint, or with another run's weights and moments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertkit.distributed.world import World
from bertkit.engine.interface import Engine
from bertkit.errors import UserError
from bertkit.launch.script import RESUME
from bertkit.model.checkpoint import Checkpoints, Progress
from bertkit.model.config import ModelConfig
from bertkit.recipes.recipe import KEYS


def restarted(env: Mapping[str, str]) -> bool:
    """Whether a launcher started the script again, whose trainings then go on."""
    return env.get(RESUME) == "1"


def resumed(checkpoints: Checkpoints, engine: Engine, shaped_by: Mapping[str, Any], folder: Path) -> Progress | None:
    """Load the newest whole checkpoint of the run in `folder`; None: it has none yet.

    `shaped_by`: the settings and data of now. Raises UserError where the checkpoint's differ.
    """
    found = checkpoints.newest()
    if found is None:
        return None
    arrays, progress = found
    # A setting that the checkpoint does not know is younger than it, and had its default.
    before = {key: known.default for key, known in KEYS.items()} | dict(progress.shaped_by)
    changed = [key for key, value in shaped_by.items() if before.get(key) != value]
    if changed:
        key = changed[0]
        others = f" (and {', '.join(changed[1:])})" if changed[1:] else ""
        raise UserError(
            f"{folder}: the run was started with {key} = {before.get(key)!r}, not {shaped_by[key]!r}{others}",
            "resume with the same settings and data, or start over with --overwrite",
        )
    engine.load_state_dict(arrays)
    return progress


def other_masks(progress: Progress, model: ModelConfig, world: World) -> str:
    """A remark where dropout draws other masks than it did before: they are keyed by (seed, update, rank, micro-batch).

    "" where the number of processes is that of the checkpoint, or not known, or there is no dropout.
    """
    rates = (model.hidden_dropout_prob, model.attention_probs_dropout_prob, model.classifier_dropout or 0.0)
    if progress.processes in (0, world.size) or not any(rates):
        return ""
    return (
        f"processes: {world.size}, {progress.processes} before: global batches are the same, dropout masks are not, "
        "so losses no longer follow the first session's to the last digit"
    )


def load_moments(run: Path, engine: Engine) -> int:
    """Load another run's weights and moments. Returns after which of its updates they are."""
    found = Checkpoints(run / "checkpoints").newest()
    if found is None:
        raise UserError(f"{run}: has no checkpoint to take moments from", "name a run's folder")
    engine.load_state_dict(found[0])
    return found[1].step
