"""A run: what callbacks are given while it goes on, and its result once it is over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.model.checkpoint import Progress
from bertkit.recipes.recipe import Value


@dataclass(frozen=True)
class UpdateMetrics:
    """One update's numbers, on the host."""

    step: int
    learning_rate: float
    loss: float
    grad_norm: float  # not finite where the update was left out for an overflow
    loss_scale: float | None = None  # where the loss is scaled

    def known(self) -> dict[str, Any]:
        """By name, without what is not known."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass
class Run:
    """A run of this process. What it is made of is set before its first update; callbacks read it, and may stop it."""

    folder: Path = Path()
    settings: Mapping[str, Value] = field(default_factory=dict)  # every setting by its dotted key
    world: World = field(default_factory=World)
    steps: int = 0  # updates of the whole run
    metric: str = ""  # the task's own, by which its best model is chosen
    environment: Mapping[str, Any] = field(default_factory=dict)  # the record's versions, hardware, git …
    progress: Progress = field(default_factory=lambda: Progress(0, {}))  # what a checkpoint keeps
    metrics: Mapping[str, float] = field(default_factory=dict)  # of the last evaluation; in the end, of the result
    record: Mapping[str, Any] | None = None  # in the end; None where the run was interrupted, and on a dry run
    exit_code: int = 0  # 0, or what the signal that interrupted the run asks for
    finished: str = ""  # why the run ends before its last update, with results
    interrupted: str = ""  # why it ends without results, to be resumed
    added: dict[str, Any] = field(default_factory=dict)  # what callbacks add to the record, by their own key
    keep: bool = False  # whether the model just evaluated is the best so far, and so to be saved
    # wall seconds until now, of the jobs before a resume too: of training alone, and with evaluations and checkpoints
    seconds: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0)

    @property
    def step(self) -> int:
        """Updates done, those before a resume included."""
        return self.progress.step

    @property
    def losses(self) -> tuple[float, ...]:
        """Of updates 1 to `step`, as far as they were fetched from the device."""
        return self.progress.losses

    @property
    def evaluations(self) -> Sequence[Mapping[str, Any]]:
        """Each: `step`, `training_seconds`, `wall_seconds`, `metrics`."""
        return self.progress.evaluations

    def stop(self, reason: str) -> None:
        """End the run after this update, as if it were its last: the model is saved and the record written.

        With several processes one asking is enough.
        """
        self.finished = self.finished or reason

    def add_to_record(self, key: str, value: Any) -> None:
        """Add `value`, which JSON can hold, to the record's `callbacks` under `key`.

        The first process's stand there. Raises UserError where JSON cannot hold it.
        """
        try:
            self.added[key] = json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{key} cannot be stored in the record: {error}", "give numbers, texts, lists and dicts of them"
            ) from None

    def advance(self, updates: Sequence[UpdateMetrics]) -> None:
        """Count updates whose numbers have been fetched."""
        losses = (*self.progress.losses, *(one.loss for one in updates))
        self.progress = dataclasses.replace(self.progress, step=updates[-1].step, losses=losses)
