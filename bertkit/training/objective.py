"""What a run learns from and how it is scored: what fine-tuning and pre-training do not have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from bertkit.console import Display
from bertkit.data.tasks.task import Answered
from bertkit.engine.interface import Arrays, Engine, Update
from bertkit.recipes.recipe import Recipe
from bertkit.training.loop import Plan
from bertkit.training.recipe_parts import UpdateSettings
from bertkit.training.setup import RunSetup


class Objective(Protocol):
    """One of them, made setup for this process."""

    @property
    def setup(self) -> RunSetup:
        """The model, the task and where it is computed."""

    @property
    def update_settings(self) -> UpdateSettings:
        """How updates are made; in the last phase, where there are several."""

    @property
    def plan(self) -> Plan:
        """What happens when."""

    @property
    def saves_best(self) -> bool:
        """Whether a checkpoint is kept of each evaluation that is better than all before it."""

    def shape(self) -> Mapping[str, Any]:
        """The settings and data that a resumed run must share with the one that it goes on from."""

    def introduce(self, display: Display) -> None:
        """Say what is about to happen."""

    def updates(self, first: int, last: int) -> Iterator[Update]:
        """This rank's share of the updates `first` to `last`."""

    def place(self, step: int) -> str:
        """Where update `step` is, in words: "epoch 1.50"."""

    def samples(self, step: int) -> int:
        """Sequences that all ranks have trained on after update `step`."""

    def amounts(self) -> Mapping[str, int]:
        """Of the last phase: training_sequences, evaluation_sequences."""

    def target(self, step: int) -> float:
        """The `mlm_accuracy` that ends the run where it is reached after update `step`; 0: none does."""

    def score(self, engine: Engine, display: Display, step: int) -> tuple[dict[str, float], list[Answered]]:
        """(metrics, answers that the run's folder keeps) after update `step`. A collective."""

    def begin(self, engine: Engine, recipe: Recipe, display: Display) -> None:
        """What has to be computed before the first update. A collective."""

    def added(self) -> Mapping[str, Any]:
        """What the record has besides, each under a key of its own."""

    def weights(self, engine: Engine) -> Arrays:
        """The run's model, complete."""

    def describe(self) -> Mapping[str, Any]:
        """The record's `data`, `fairness` and `majority_class`."""

    def close(self) -> None:
        """Let go of what `begin` took; called in any case."""


class Derived:
    """An objective that leaves to another, its `base`, what it does not say itself."""

    base: Objective

    @property
    def update_settings(self) -> UpdateSettings:
        return self.base.update_settings

    @property
    def plan(self) -> Plan:
        return self.base.plan

    @property
    def saves_best(self) -> bool:
        return self.base.saves_best

    def updates(self, first: int, last: int) -> Iterator[Update]:
        return self.base.updates(first, last)

    def place(self, step: int) -> str:
        return self.base.place(step)

    def samples(self, step: int) -> int:
        return self.base.samples(step)

    def amounts(self) -> Mapping[str, int]:
        return self.base.amounts()

    def target(self, step: int) -> float:
        return self.base.target(step)

    def close(self) -> None:
        self.base.close()
