"""Writing checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from bertkit.distributed.consistency import anybody
from bertkit.engine.interface import Engine
from bertkit.model.checkpoint import Checkpoints
from bertkit.training.callbacks.base import Callback
from bertkit.training.run import Run


class Checkpointing(Callback):
    """The first process writes; `followers` are told of each checkpoint that is whole."""

    def __init__(self, checkpoints: Checkpoints, engine: Engine, followers: Sequence[Callback]) -> None:
        self.checkpoints, self.engine, self.followers = checkpoints, engine, followers

    def on_checkpoint_start(self, run: Run) -> None:
        arrays = self.engine.state_dict()  # on every rank: a sharded optimizer gathers here
        if run.world.is_first:
            training, wall = run.seconds()
            run.progress = dataclasses.replace(run.progress, train_seconds=training, wall_seconds=wall)
            self.checkpoints.save(arrays, run.progress)
        anybody(self.engine.gather, True)  # no rank goes on, or reads it, before it is whole
        for callback in self.followers:
            callback.on_checkpoint(run, self.checkpoints.path(run.step))
