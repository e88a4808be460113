"""TorchEngine: the neutral seam's Engine over any torch Device. One forward path, one backward path, one update."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from typing import SupportsFloat

import numpy as np
import torch
from torch import Tensor

from bertkit.backend import Arrays, Batch, DeviceFacts, Job, LayoutKind, Peak, Scalars, Update
from bertkit.errors import UserError
from bertkit.layouts import Layout, lay_out
from bertkit.world import World
from bertkit_torch.bert import Bert, Outputs
from bertkit_torch.device import Device
from bertkit_torch.dropout import Dropout, stream_key
from bertkit_torch.losses import loss
from bertkit_torch.optimizer import AdamW, read
from bertkit_torch.placement import place
from bertkit_torch.ranks import Ranks
from bertkit_torch.weights import ComputeWeights


class TorchEngine:
    """Computes on one rank's device."""

    def __init__(self, device: Device, job: Job, world: World) -> None:
        self.device = device
        self.job = job
        self.world = world
        self.place = device.open(job, world)
        self.dtype = device.compute_dtype(job.precision)
        self.layout: LayoutKind = device.layout if job.layout == "auto" else job.layout
        self.model = Bert(job.model, job.head, job.weights).to(self.place)
        self.parameters = dict(self.model.named_parameters())
        self.ranks = Ranks(world, device.collectives, self.place, list(self.parameters.values()), job.exchange)
        self._inference: ComputeWeights | None = None
        self._exchanged = 0.0  # seconds

    @functools.cached_property
    def optimizer(self) -> AdamW:
        """Made when it is first needed: torch's optimizers take two seconds to import, which no answer waits for."""
        return self.device.optimizer(self.parameters, self.job.optimizer)

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        if self.job.precision == "int8":
            raise UserError("int8 is for answers, not for training", "train in another precision")
        self._inference = None
        self.ranks.begin(update.step)
        weights = self.device.compute_weights(self.parameters, self.dtype, training=True)
        total = torch.zeros((), device=self.place)
        slots = 0
        for number, batch in enumerate(update.micro_batches):
            if len(batch["cu_seqlens"]) == 1:  # this rank has no sequence in this micro-batch
                continue
            layout = lay_out(batch, self.layout, grain=self.device.grain)
            slots += layout.slots
            value = self._loss(weights, batch, layout, update, number)
            if number == len(update.micro_batches) - 1:
                self.ranks.arm()
            value.backward()  # type: ignore[no-untyped-call]  # torch 2.13 leaves it untyped
            total += value.detach()
        self.device.step_boundary()
        total, norm = self._update(total, learning_rate)
        self.device.step_boundary()
        scalars: dict[str, SupportsFloat] = {"loss": total, "grad_norm": norm, "slots": slots}
        return scalars

    def _loss(self, weights: ComputeWeights, batch: Batch, layout: Layout, update: Update, number: int) -> Tensor:
        key = stream_key(self.job.seed, update.step, self.world.rank, number)
        outputs = self._forward(weights, batch, layout, Dropout(self.device.masks(key, self.place)))
        return loss(self.job.head.kind, outputs, self._tensors(batch), update.label_counts)

    def _update(self, total: Tensor, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Sum gradients and loss over the ranks, clip, step. Returns the loss and the norm before clipping."""
        parameters = list(self.parameters.values())
        for parameter in parameters:
            if parameter.grad is None:  # a rank without a sequence still meets the others
                parameter.grad = torch.zeros_like(parameter)
        start = time.perf_counter()
        total = self.ranks.sum_(total)
        self._exchanged += time.perf_counter() - start
        norm = self.device.clip_grad_norm(parameters, self.job.optimizer.clip_norm)
        self.optimizer.step(learning_rate)
        for parameter in parameters:
            parameter.grad = None
        return total, norm

    def predict(self, batch: Batch) -> Arrays:
        with torch.no_grad():
            if self._inference is None:
                self._inference = self.device.compute_weights(self.parameters, self.dtype, training=False)
            layout = lay_out(batch, self.layout, grain=self.device.grain)
            outputs = self._forward(self._inference, batch, layout, Dropout())
        return {name: tensor.float().cpu().numpy() for name, tensor in outputs.items()}

    def slots(self, lengths: np.ndarray) -> int:
        nothing = np.zeros(int(lengths.sum()), np.int32)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        batch = {"input_ids": nothing, "token_type_ids": nothing, "cu_seqlens": starts}
        return lay_out(batch, self.layout, grain=self.device.grain).slots

    def _forward(self, weights: ComputeWeights, batch: Batch, layout: Layout, drop: Dropout) -> Outputs:
        kind, heads = self.job.head.kind, self.job.model.num_attention_heads
        outputs: Outputs = self.model(weights, place(layout, batch, kind, heads, self.place, self.dtype), drop)
        return outputs

    def _tensors(self, batch: Batch) -> dict[str, Tensor]:
        """What the losses read of the batch, on the device."""
        skipped = ("input_ids", "token_type_ids", "example_ids")
        arrays = {name: array for name, array in batch.items() if name not in skipped}
        arrays["cu_seqlens"] = arrays["cu_seqlens"].astype(np.int64)
        return {name: torch.from_numpy(array).to(self.place) for name, array in arrays.items()}

    def weights(self) -> Arrays:
        return {name: p.detach().cpu().numpy().copy() for name, p in self.parameters.items()}

    def state_dict(self) -> Arrays:
        return {f"model.{name}": array for name, array in self.weights().items()} | self.optimizer.state_dict()

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        values = {n: read(arrays, f"model.{n}", tuple(p.shape)) for n, p in self.parameters.items()}
        self.optimizer.load_state_dict(arrays)
        self._inference = None
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(torch.from_numpy(values[name].copy()))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.ranks.gather(rows)

    def synchronize(self) -> None:
        self.device.synchronize()

    def describe(self) -> Mapping[str, str]:
        return {
            "device": str(self.place),
            "torch": torch.__version__,
            "compute dtype": str(self.dtype).removeprefix("torch."),
            "layout": self.layout,
            "attention": "grouped batched matmul",
            "optimizer": "fused AdamW",
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

    def close(self) -> None:
        self.ranks.close()
