"""What every engine has that only answers: a model at a server, or in a runtime that does not train."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertkit.engine.interface import Arrays, Peak, Scalars, Update


class AnswersOnly:
    """The parts of an `Engine` that are not `predict`, `slots`, `describe` and `close`; alone unless `gather` says
    otherwise."""

    def stage(self, update: Update) -> Update:
        return update

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        raise _answers_only()

    def weights(self) -> Arrays:
        raise _answers_only()

    def state_dict(self) -> Arrays:
        raise _answers_only()

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        raise _answers_only()

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def synchronize(self) -> None:
        """Nothing runs when `predict` has returned."""

    def peak(self) -> Peak:
        return Peak(float("nan"), "not known")

    def peak_memory(self) -> int | None:
        return None


def _answers_only() -> RuntimeError:
    return RuntimeError("this engine answers only")  # a fault of bertkit's
