"""Passes over batches of a few fixed sizes, for chips that compile, or capture, a program for each.

Every size is computed once on an empty batch before the first update, the largest first, so that nothing is compiled
later and what does not fit into memory fails at once; a batch that fits none is counted and warned about. The encoder
layer is one function of tensors, compiled once for all layers.

Legend: N slots, T tokens, B sequences, M masked positions.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from bertkit.plugin import (
    PER_TOKEN,
    Arrays,
    Batch,
    DoesNotFit,
    Job,
    ModelConfig,
    Sizes,
    Static,
    StaticPlan,
    Update,
    planned_does_not_fit,
    warm_up,
)
from bertkit_torch.allowance import Allowance
from bertkit_torch.bert import Outputs, encoder_layer, outputs, prefix
from bertkit_torch.device import Device
from bertkit_torch.dropout import DeviceDropout, Dropout, dropout_seed
from bertkit_torch.gradients import Gradients
from bertkit_torch.imitation import Stretches, groups, projection
from bertkit_torch.losses import Labels, LearnedStates, Rule, loss
from bertkit_torch.row_attention import allowed
from bertkit_torch.scaling import LossScaler, backward
from bertkit_torch.seen import Attention, Seen
from bertkit_torch.staged import Host, Program, Staged, views
from bertkit_torch.weights import ComputeWeights

Tensors = Mapping[str, Tensor]
UNPLANNED = 16  # sizes that are expected where a job does not say its limits


class StaticPasses:
    """Forward passes, and losses to differentiate, on one device."""

    def __init__(
        self, device: Device, job: Job, where: torch.device, masters: Tensors, gradients: Gradients, total: Tensor
    ) -> None:
        self.device, self.job, self.where, self.gradients, self.total = device, job, where, gradients, total
        self.dtype = device.compute_dtype(job.precision)
        self.rule = Rule.of(job.loss, where)
        self.flat = device.flat
        self.plan = StaticPlan(job, self.flat)
        self.masters = masters
        self.programs: dict[Sizes, Program] = {}  # of training
        self.layers = _layers(masters, job.model)
        self.layer = device.compile(self._layer)
        planned = sum(len(plan) if plan else UNPLANNED for plan in (self.plan.training, self.plan.answering))
        # Of each size the last layer is another graph than the rest.
        self.allowance = Allowance(2 * planned if self.layer != self._layer else 0)

    # ---- batches ----

    def stage(self, update: Update) -> Update:
        """Everything that the host does for an update."""
        staged = tuple(
            self._stage(batch, update.label_counts) if len(batch["cu_seqlens"]) > 1 else batch
            for batch in update.micro_batches
        )
        return Update(update.step, staged, update.label_counts)

    def _stage(self, batch: Batch, counts: Mapping[str, int] | None) -> Staged:
        made = self.plan.make(batch, counts)
        return Staged(batch, made, Host.of(made, self.device.pin))

    # ---- passes ----

    def learn(
        self,
        weights: ComputeWeights,
        batch: Batch,
        update: Update,
        key: np.random.SeedSequence,
        scaler: LossScaler | None,
    ) -> int:
        """Forward and backward; the loss is added to the total. Returns the slots."""
        staged = batch if isinstance(batch, Staged) else self._stage(batch, update.label_counts)
        self.plan.meet(staged.made.sizes, training=True)
        self._program(staged, scaler)(staged, dropout_seed(key))
        return staged.made.sizes.slots

    def _program(self, staged: Staged, scaler: LossScaler | None) -> Program:
        """What is run for batches of these sizes; made at the first of them."""
        sizes = staged.made.sizes
        if sizes not in self.programs:
            compute = functools.partial(self._learn, staged.made, scaler)
            before = self.total.clone()
            with self.gradients.kept():  # a capture computes some of its own first
                self.programs[sizes] = Program(self.device, self.where, compute, staged)
            self.total.copy_(before)
        return self.programs[sizes]

    def _learn(self, made: Static, scaler: LossScaler | None, whole: Tensor, real: Tensor) -> None:
        """One micro-batch from its arrays to its gradients; `made` only tells their places.

        Whatever it reads and writes is the same in every update, and so is the graph that a device makes of it.
        """
        weights = self.device.compute_weights(self.masters, self.dtype, training=True)
        tensors = views(made, whole, real)
        sequences, positions, *more = tensors["counts"].unbind()
        counts = {"sequences": sequences, "masked": positions, "tokens": positions}
        counts |= {"pairs" if self.job.head.kind == "encoder" else "tokens": more[0]} if more else {}
        learned = self._learned(made.sizes, tensors) if self.job.loss.states else None
        labels = Labels(tensors, counts, made.sizes.longest, self.job.head.sequences_each, self.rule, learned)
        with self.device.autocast(self.job.precision):
            found = self._outputs(weights, made.sizes, tensors, DeviceDropout())
            value = loss(self.job.head.kind, found, labels)
        backward(value, scaler)
        self.total.add_(value.detach())

    def _learned(self, sizes: Sizes, tensors: Tensors) -> LearnedStates:
        where = groups([sizes.longest] * sizes.sequences)
        stretches = Stretches(tensors["first"], tensors["lengths"], where, tensors["counted"])
        return LearnedStates(stretches, self.job.model.hidden_size, projection(self.masters))

    def predict(self, weights: ComputeWeights, batch: Batch) -> Arrays:
        staged = self._stage(batch, None)
        self.plan.meet(staged.made.sizes, training=False)
        return self._answers(weights, staged, batch)

    def _answers(self, weights: ComputeWeights, staged: Staged, batch: Batch) -> Arrays:
        made, host = staged.made, staged.host
        whole, real = (self.device.upload(part, self.where) for part in (host.whole, host.real))
        with self.device.autocast(self.job.precision):
            found = self._outputs(weights, made.sizes, views(made, whole, real), DeviceDropout(active=False))
        arrays = {name: tensor.float().cpu().numpy() for name, tensor in found.items()}
        return self.plan.real(made, arrays, batch)

    def _outputs(self, weights: ComputeWeights, sizes: Sizes, tensors: Tensors, drop: Dropout) -> Outputs:
        head, config = self.job.head, self.job.model
        attention = self._attention(sizes, tensors)
        ids = tensors["input_ids"], tensors["token_type_ids"], tensors["position_ids"]
        first = masked = torch.arange(sizes.sequences, device=self.where)
        asking = None if head.kind in PER_TOKEN else tensors["first"]
        if head.states:
            asking, first, masked = None, tensors["first"], tensors.get("masked", masked)
        elif head.kind == "pretraining":
            asking = torch.cat([tensors["first"], tensors["masked"]])
            masked = torch.arange(sizes.sequences, sizes.sequences + sizes.masked, device=self.where)
        seen = Seen(*ids, attention, attention, asking, first, masked, None)
        return outputs(weights, config, head, seen, drop, self._run_layer)

    def _attention(self, sizes: Sizes, tensors: Tensors) -> Attention:
        count = self.job.model.num_attention_heads
        if self.flat:
            return self.device.in_stretches(tensors["bounds"].int(), sizes.longest, count)
        return self.device.in_rows(allowed(tensors["segments"], sizes.rows), count)

    def _run_layer(
        self, prefix: str, config: ModelConfig, x: Tensor, attention: Attention, asking: Tensor | None, drop: Dropout
    ) -> Tensor:
        given = self.layers[prefix], config, x, attention, asking, drop
        if self.device.recompute and torch.is_grad_enabled():
            again: Tensor = checkpoint(self._allowed_layer, *given, use_reentrant=False)
            return again
        return self._allowed_layer(*given)

    def _allowed_layer(self, *given: Any) -> Tensor:
        """The layer's function as the device made it; backward calls it too where it recomputes, in another thread."""
        self.allowance.grant()
        return self.layer(*given)

    def _layer(
        self, own: Tensors, config: ModelConfig, x: Tensor, attention: Attention, asking: Tensor | None, drop: Dropout
    ) -> Tensor:
        """One encoder layer of its own parameters, under names without the layer's number: the same for all layers."""
        weights = self.device.compute_weights(own, self.dtype, training=torch.is_grad_enabled())
        return encoder_layer(weights, "", config, x, attention, asking, drop)

    # ---- warm-up ----

    def warm_up(self, weights: ComputeWeights, training: bool, scaler: LossScaler | None) -> bool:
        """Compute every planned size once on an empty batch. Returns whether any was planned."""

        def warm(sizes: Sizes) -> None:
            self._warm(weights, sizes, training, scaler)

        can_recompute = "recompute" in self.job.settings
        settled = {"free": self.device.free, "wait": self.device.synchronize}
        return warm_up(self.plan, training, warm, **settled, can_recompute=can_recompute)

    def _warm(self, weights: ComputeWeights, sizes: Sizes, training: bool, scaler: LossScaler | None) -> None:
        made = self.plan.empty(sizes, training)
        staged = Staged({}, made, Host.of(made, self.device.pin))
        if training:
            program = self._program(staged, scaler)
            self.device.step_boundary()  # so that its making is in no graph of its running
            program(staged, 0)
        else:
            self._answers(weights, staged, {})
        self.device.step_boundary()

    def does_not_fit_now(self, update: Update, reason: str) -> DoesNotFit:
        """The error for an update in the midst of training."""
        batches = [batch for batch in update.micro_batches if len(batch["cu_seqlens"]) > 1]
        sizes = [b.made.sizes if isinstance(b, Staged) else self.plan.sizes(b, training=True) for b in batches]
        largest = max(sizes, key=lambda each: each.slots)
        ran = [each for each in self.programs if each.slots < largest.slots]
        return self.does_not_fit(largest, max(ran, key=lambda each: each.slots, default=None), reason, training=True)

    def does_not_fit(self, sizes: Sizes, fits: Sizes | None, reason: str, training: bool) -> DoesNotFit:
        """The error for a batch of these sizes. `fits`: the largest known to fit."""
        return planned_does_not_fit(sizes, fits, reason, training, can_recompute="recompute" in self.job.settings)

    def slots(self, lengths: np.ndarray) -> int:
        return self.plan.slots(lengths)

    def describe(self) -> dict[str, str]:
        return {
            "layout": self.plan.describe(),
            "attention": self.device.kernel,
        }


def _layers(masters: Tensors, config: ModelConfig) -> dict[str, dict[str, Tensor]]:
    """Each encoder layer's parameters by its prefix, under the names that follow it."""
    prefixes = [prefix(number) for number in range(config.num_hidden_layers)]
    return {
        p: {name.removeprefix(p): tensor for name, tensor in masters.items() if name.startswith(p)} for p in prefixes
    }
