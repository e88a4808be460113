"""What may follow a run: a class with a method for each point of it, all of which do nothing unless overridden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bertkit.training.run import Run, UpdateMetrics


class Callback:
    """Derive from it and override what you need; pass objects of it as `Trainer(callbacks=[…])`.

    Every process calls its own, in this order; `run.world.is_first` tells the one that writes.

        on_start
        for each update:
            on_update_start
            (the engine computes the update; its numbers may still be on the device)
            on_update_end
            every `log.every` updates, and before what follows:
                on_updates                 the numbers of all updates since the last call
            every `evaluation.every` updates, and at the last one:
                on_evaluation_start        the model is scored
                on_evaluation              its metrics are known
            every `checkpoint.every` updates, where the model is the best so far, and at the last one:
                on_checkpoint_start        the checkpoint is written
                on_checkpoint              it is whole on disk
        on_end                             the record is written; or
        on_interrupted                     a signal or `train.steps_this_run` ended the job, to be resumed
        on_close                           always, after an error too
    """

    def on_start(self, run: Run) -> None:
        """Everything is read, the engine is made, and a resumed run stands where it goes on."""

    def on_update_start(self, run: Run, step: int) -> None:
        """Update `step` is about to be computed."""

    def on_update_end(self, run: Run, step: int) -> None:
        """Update `step` was given to the device, which may still compute it."""

    def on_updates(self, run: Run, updates: Sequence[UpdateMetrics]) -> None:
        """The numbers of some updates were fetched from the device."""

    def on_evaluation_start(self, run: Run) -> None:
        """The model is about to be scored."""

    def on_evaluation(self, run: Run, metrics: Mapping[str, float]) -> None:
        """The model was scored. `run.stop(reason)` here ends the run with this model saved."""

    def on_checkpoint_start(self, run: Run) -> None:
        """A checkpoint is about to be written."""

    def on_checkpoint(self, run: Run, path: Path) -> None:
        """A checkpoint was written by the first process, and every process goes on only now."""

    def on_end(self, run: Run) -> None:
        """The run is over: `run.record` and `run.metrics` are its result."""

    def on_interrupted(self, run: Run) -> None:
        """The run was interrupted; `run.interrupted` says why. It is saved."""

    def on_close(self, run: Run) -> None:
        """Nothing more comes."""
