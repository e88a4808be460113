"""TorchEngine: the neutral seam's Engine over any torch Device. One forward path, one backward path, one update."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import SupportsFloat

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import (
    Arrays,
    Batch,
    DeviceFacts,
    Int8Calibration,
    Job,
    Peak,
    Scalars,
    Update,
    UserError,
    World,
    out_of_memory,
    read_array,
)
from bertkit_torch.bert import Bert
from bertkit_torch.device import Device
from bertkit_torch.dropout import stream_key
from bertkit_torch.gradients import FlatGradients, Gradients
from bertkit_torch.optimizer import Optimizer
from bertkit_torch.ragged import RaggedPasses
from bertkit_torch.ranks import Ranks
from bertkit_torch.scaling import LossScaler
from bertkit_torch.sharded import Sharded
from bertkit_torch.static import StaticPasses
from bertkit_torch.waits import HostWaits
from bertkit_torch.weights import ComputeWeights


class TorchEngine:
    """Computes on one rank's device."""

    def __init__(self, device: Device, job: Job, world: World) -> None:
        self.device = device
        self.job = job
        self.world = world
        self.place = device.open(job, world)
        self.dtype = device.compute_dtype(job.precision)
        self.model = Bert(job.model, job.head, job.weights).to(self.place)
        self.parameters = dict(self.model.named_parameters())
        for name in job.frozen:
            self.parameters[name].requires_grad_(False)
        self.trained = {name: p for name, p in self.parameters.items() if p.requires_grad}
        self.gradients = FlatGradients(self.trained) if device.static else Gradients(self.trained)
        self.ranks = Ranks(world, device.collectives, self.place, self.gradients, job.exchange)
        self.scaler = LossScaler(job.loss_scaling, self.place) if job.precision == "fp16" else None
        self.total = torch.zeros((), device=self.place)  # the loss of an update's micro-batches so far
        self._inference: ComputeWeights | None = None
        self._exchanged = 0.0  # seconds
        device.settle(job, self.ranks)
        self._begin()

    def _begin(self) -> None:
        """The passes, here and not in the thread that stages updates: a compiler's settings are its thread's own."""
        self.passes = self._passes()
        self._warm: set[bool] = set()  # whether training, whether answers

    def _passes(self) -> RaggedPasses | StaticPasses:
        if self.device.static:
            return StaticPasses(self.device, self.job, self.place, self.parameters, self.gradients, self.total)
        return RaggedPasses(self.device, self.job, self.place, self.model, self.total)

    @functools.cached_property
    def optimizer(self) -> Optimizer:
        """Made when it is first needed: its moments are twice the weights, which no answer needs."""
        spec = self.job.optimizer
        if spec.shard and self.world.size > 1:
            share = None if self.place.type == "cpu" else self.ranks.share
            return Sharded(self.trained, spec, self.device.optimizer, self.world, self.ranks.gather, share)
        return self.device.optimizer(self.trained, spec)

    def stage(self, update: Update) -> Update:
        return self.passes.stage(update)

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        if self.job.precision == "int8":
            raise UserError("int8 is for inference, not for training", "train in another precision")
        if not self.job.head.trained:
            raise UserError("hidden states have no loss to train with", "train another head")
        self._inference = None
        self.ranks.begin(update.step)
        try:
            return self._train_step(update, learning_rate)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            reason = str(error)
        raise self.passes.does_not_fit_now(update, reason)

    def _train_step(self, update: Update, learning_rate: float) -> Scalars:
        weights = self.device.compute_weights(self.parameters, self.dtype, training=True)
        self._warm_up(weights, training=True)
        slots = 0
        for number, batch in enumerate(update.micro_batches):
            if len(batch["cu_seqlens"]) == 1:  # this rank has no sequence in this micro-batch
                continue
            key = stream_key(self.job.seed, update.step, self.world.rank, number)
            if number == len(update.micro_batches) - 1:
                self.ranks.arm()
            slots += self.passes.learn(weights, batch, update, key, self.scaler)
            self.device.step_boundary()
        total, norm = self._update(learning_rate)
        self.device.step_boundary()
        scalars: dict[str, SupportsFloat] = {"loss": total, "grad_norm": norm, "slots": slots}
        return scalars if self.scaler is None else scalars | {"loss_scale": self.scaler.factor}

    def _warm_up(self, weights: ComputeWeights, training: bool) -> None:
        """Once before the first update and once before the first answer, where batches have fixed sizes."""
        if training in self._warm or not isinstance(self.passes, StaticPasses):
            return
        self._warm.add(training)
        if training:
            self.optimizer  # noqa: B018  # made now: its moments take memory that the sizes must fit beside
        if self.passes.warm_up(weights, training, self.scaler) and training:
            self._clear()
            self.device.step_boundary()

    def _update(self, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Sum gradients and loss over the ranks, clip, step. Returns the loss and the norm before clipping."""
        self.gradients.complete()  # a rank without a sequence still meets the others
        start = time.perf_counter()
        total = self.ranks.sum_(self.total.clone())
        self._exchanged += time.perf_counter() - start
        most = 0.0 if self.optimizer.clips else self.job.optimizer.clip_norm
        if self.scaler is None:
            norm = self.device.clip(self.gradients, most)
            self.optimizer.step(learning_rate)
        else:
            norm, left_out = self.scaler.settle(self.gradients, most)
            self.optimizer.step(learning_rate, left_out)
        if isinstance(self.optimizer, Sharded):
            start = time.perf_counter()
            self.optimizer.spread()
            self._exchanged += time.perf_counter() - start
        self._clear()
        return total, norm

    def _clear(self) -> None:
        self.gradients.clear()
        self.total.zero_()

    def predict(self, batch: Batch) -> Arrays:
        with torch.no_grad():
            if self._inference is None:
                self._inference = self.device.compute_weights(self.parameters, self.dtype, training=False)
            self._warm_up(self._inference, training=False)
            return self.passes.predict(self._inference, batch)

    def wants_calibration(self) -> bool:
        return self.device.wants_calibration()

    def calibrate(self, batches: Sequence[Batch]) -> Int8Calibration:
        with torch.no_grad():
            found = self.device.calibrate(self.parameters, self.passes.predict, batches)
        self._inference = None
        return found

    def slots(self, lengths: np.ndarray) -> int:
        return self.passes.slots(lengths)

    def weights(self) -> Arrays:
        return {name: p.detach().cpu().numpy().copy() for name, p in self.parameters.items()}

    def state_dict(self) -> Arrays:
        scaler = self.scaler.state_dict() if self.scaler else {}
        model = {f"model.{name}": array for name, array in self.weights().items()}
        return model | self.optimizer.state_dict() | scaler | self.device.state_dict()

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        values = {n: read_array(arrays, f"model.{n}", tuple(p.shape)) for n, p in self.parameters.items()}
        self.optimizer.load_state_dict(arrays)
        if self.scaler:
            self.scaler.load_state_dict(arrays)
        if self.device.load_state_dict(arrays):
            self._begin()
        self._inference = None
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(values[name].copy()))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.ranks.gather(rows)

    def synchronize(self) -> None:
        with self.ranks.waiting("for the device"):
            self.device.synchronize()
        if self.scaler:
            self.scaler.check(self.gradients.names)

    def describe(self) -> Mapping[str, str]:
        return {
            "device": str(self.place),
            "torch": torch.__version__,
            "compute dtype": str(self.dtype).removeprefix("torch."),
            "optimizer": {"adamw": "fused AdamW", "lamb": "LAMB"}[self.job.optimizer.algorithm]
            + (f", shared by {self.world.size} ranks" if self.job.optimizer.shard and self.world.size > 1 else ""),
            **self.passes.describe(),
            **self.ranks.describe(),
            **self.device.describe(),
        }

    def peak(self) -> Peak:
        return self.device.peak(self.job.precision, self.place)

    def peak_memory(self) -> int | None:
        return self.device.peak_memory()

    def facts(self) -> DeviceFacts:
        return self.device.facts() or DeviceFacts("cpu" if self.place.type == "cpu" else "accelerator")

    def energy(self) -> float | None:
        return self.device.energy()

    def communication(self) -> float | None:
        return self._exchanged if self.place.type == "cpu" else None  # the host's clock sees only what is synchronous

    def programs(self) -> int | None:
        return self.device.programs()

    def host_waits(self, run: Callable[[], None]) -> int | None:
        if self.place.type == "cpu":
            return None
        waits = HostWaits(self.place.type)
        with waits:
            run()
        return waits.count

    def profile(self, trace: Path) -> AbstractContextManager[object]:
        return self.device.profile(trace)

    def close(self) -> None:
        self.ranks.close()
