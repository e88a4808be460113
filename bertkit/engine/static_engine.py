"""What every engine has whose framework makes a program for each size of a batch; the programs are the framework's.

It fills batches up, warms up, goes through an update's micro-batches, sums over ranks and cuts answers back to what
is real. Torch's engine has its own way: it also computes without padding, and overlaps its sums with backward.

Legend: B sequences, P trained parameters.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np

from bertkit.distributed.world import World
from bertkit.engine.gradient_sums import HostSums
from bertkit.engine.interface import Arrays, Batch, Job, Scalars, Update
from bertkit.engine.state import read
from bertkit.engine.static_plan import StaticPlan
from bertkit.engine.static_shapes import Sizes, Static
from bertkit.engine.warm_up import planned_does_not_fit, warm_up
from bertkit.errors import UserError, out_of_memory


class StaticEngine(ABC):
    """Of one rank; a framework's engine adds what stands first."""

    # ---- what a framework adds ----

    @abstractmethod
    def learn(self, made: Static, key: np.ndarray) -> None:
        """Forward and backward of one micro-batch; gradients and loss are added to what is there. `key`: (2,) uint32
        that dropout follows from."""

    @abstractmethod
    def apply(self, rate: float) -> tuple[SupportsFloat, SupportsFloat]:
        """The update, by gradients that are zeros afterwards. Returns the loss and the norm of the gradients."""

    @abstractmethod
    def answer(self, made: Static) -> Arrays:
        """The head's outputs, for spare places too."""

    @abstractmethod
    def summands(self) -> tuple[float, list[np.ndarray]]:
        """The loss and the gradients (P of them) of this rank, on the host."""

    @abstractmethod
    def take_sums(self, loss: float, gradients: list[np.ndarray]) -> None:
        """Their sums over the ranks, (P,) flat arrays, in their place."""

    @abstractmethod
    def clear(self) -> None:
        """Gradients and loss become zeros; the update's program is made where it is not yet."""

    @abstractmethod
    def loss_scale(self) -> SupportsFloat | None:
        """What the loss is multiplied by, which may still be on the device; None: it is not scaled."""

    @abstractmethod
    def weights(self) -> Arrays:
        """As `Engine.weights`."""

    @abstractmethod
    def optimizer_state(self) -> Arrays:
        """The optimizer's and the loss scaling's part of a checkpoint."""

    @abstractmethod
    def restore(self, weights: Arrays, state: Mapping[str, np.ndarray]) -> None:
        """Take back weights, whose shapes fit, and what `optimizer_state` gave."""

    @abstractmethod
    def synchronize(self) -> None:
        """As `Engine.synchronize`."""

    # ---- what all have ----

    def __init__(self, job: Job, world: World, plan: StaticPlan, sizes: Sequence[int]) -> None:
        """`sizes`: (P,) elements of each trained parameter."""
        self.job, self.world, self.plan = job, world, plan
        self.sums = HostSums(world, job.exchange, sizes)
        self._warm: set[bool] = set()  # whether training, whether answers

    def stage(self, update: Update) -> Update:
        return self.plan.stage(update)

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        if not self.job.head.trained:
            raise UserError("hidden states have no loss to train with", "train another head")
        self.sums.at(f"at update {update.step}")
        self._warm_up(training=True)
        slots = 0
        for number, batch in enumerate(update.micro_batches):
            if len(batch["cu_seqlens"]) == 1:  # this rank has no sequence in this micro-batch
                continue
            made = self.plan.fill(batch, update.label_counts).made
            self.plan.meet(made.sizes, training=True)
            key = self._key(update.step, number)
            self._guarded(made.sizes, True, functools.partial(self.learn, made, key))
            slots += self.plan.places(made.sizes)
        if self.world.size > 1:
            self.take_sums(*self.sums.sum_(*self.summands()))
        total, norm = self.apply(learning_rate)
        scalars: dict[str, SupportsFloat] = {"loss": total, "grad_norm": norm, "slots": slots}
        scale = self.loss_scale()
        return scalars if scale is None else scalars | {"loss_scale": scale}

    def _key(self, step: int, number: int) -> np.ndarray:
        return np.random.SeedSequence([self.job.seed, step, self.world.rank, number]).generate_state(2, np.uint32)

    def predict(self, batch: Batch) -> Arrays:
        self._warm_up(training=False)
        made = self.plan.fill(batch, None).made
        self.plan.meet(made.sizes, training=False)
        return self.plan.real(made, self._guarded(made.sizes, False, functools.partial(self.answer, made)), batch)

    def _warm_up(self, training: bool) -> None:
        if training in self._warm:
            return
        self._warm.add(training)
        key = self._key(0, 0)

        def compute(sizes: Sizes) -> None:
            made = self.plan.empty(sizes, training)
            if training:
                self.learn(made, key)
                self.synchronize()
            else:
                self.answer(made)

        warm_up(self.plan, training, compute)
        if training:
            self.clear()

    def _guarded(self, sizes: Sizes, training: bool, compute: Callable[[], Any]) -> Any:
        """`compute()`; what does not fit into memory is one line."""
        try:
            return compute()
        except Exception as error:
            if not out_of_memory(error):
                raise
            reason = str(error)
        fits = [each for kind, each in self.plan.met if kind == training and each.slots < sizes.slots]
        raise planned_does_not_fit(sizes, max(fits, key=lambda each: each.slots, default=None), reason, training)

    def slots(self, lengths: np.ndarray) -> int:
        return self.plan.slots(lengths)

    def state_dict(self) -> Arrays:
        return {f"model.{name}": array for name, array in self.weights().items()} | self.optimizer_state()

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        shapes = {name: array.shape for name, array in self.job.weights.items()}
        self.restore({name: read(arrays, f"model.{name}", shape) for name, shape in shapes.items()}, arrays)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.sums.gather(rows)

    def energy(self) -> float | None:
        return None

    def communication(self) -> float | None:
        return self.sums.seconds

    def close(self) -> None:
        self.sums.close()
