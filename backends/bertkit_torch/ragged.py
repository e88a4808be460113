"""Passes over batches laid out as they come, for chips on which every batch may have shapes of its own."""

from __future__ import annotations

import contextlib

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import (
    LABELS,
    OF_TEACHER,
    Arrays,
    Batch,
    DoesNotFit,
    Job,
    Layout,
    LayoutKind,
    Update,
    does_not_fit,
    lay_out,
    sequence_lengths,
)
from bertkit_torch.attention import InGroups, OfOne, OneByOne, only, windows
from bertkit_torch.bert import Bert
from bertkit_torch.device import Device
from bertkit_torch.dropout import Dropout
from bertkit_torch.imitation import Stretches, groups, projection
from bertkit_torch.losses import Labels, LearnedStates, Rule, loss
from bertkit_torch.placement import as_it_comes, is_short_and_alone, place
from bertkit_torch.scaling import LossScaler, backward
from bertkit_torch.seen import Attention, Seen
from bertkit_torch.weights import ComputeWeights


class RaggedPasses:
    """Forward passes, and losses to differentiate, on one device."""

    def __init__(self, device: Device, job: Job, where: torch.device, model: Bert, total: Tensor) -> None:
        self.device, self.job, self.where, self.model, self.total = device, job, where, model, total
        self.dtype = device.compute_dtype(job.precision)
        self.rule = Rule.of(job.loss, where)
        self.layout: LayoutKind = device.layout if job.layout == "auto" else job.layout
        self.one_by_one = self.layout == "unpadded" and device.one_by_one(self.dtype)  # attention's way in inference

    def stage(self, update: Update) -> Update:
        return update

    def lay_out(self, batch: Batch, *, inference: bool = False) -> Layout:
        grain = self.device.inference_grain if inference else None
        return lay_out(batch, self.layout, grain=grain or self.device.grain)

    def lay_out_alone(self, batch: Batch) -> Layout:
        grain = self.device.inference_grain or self.device.grain
        tokens = len(batch["input_ids"])
        return as_it_comes(batch, self.layout, grain.tail(tokens) if 0 < grain.alone <= tokens else 0)

    def learn(
        self,
        weights: ComputeWeights,
        batch: Batch,
        update: Update,
        key: np.random.SeedSequence,
        scaler: LossScaler | None,
    ) -> int:
        """Forward and backward; the loss is added to the total. Returns the slots."""
        layout = self.lay_out(batch)
        outputs = self.model(weights, self.see(layout, batch), Dropout(self.device.masks(key, self.where)))
        value = loss(self.job.head.kind, outputs, self._labels(batch, update), self.device.masked_words)
        backward(value, scaler)
        self.total += value.detach()
        return layout.slots

    def predict(self, weights: ComputeWeights, batch: Batch) -> Arrays:
        layout = self.lay_out_alone(batch) if is_short_and_alone(batch) else self.lay_out(batch, inference=True)
        # Elsewhere no_grad is asked for already, and a vendor's plug-in may know no inference tensors.
        with torch.inference_mode() if self.where.type == "cpu" else contextlib.nullcontext():
            outputs = self.model(weights, self.see(layout, batch, weights), Dropout())
        held = {"masked_logits": len(batch.get("masked_positions", ()))}
        return {name: tensor[: held.get(name)].float().cpu().numpy() for name, tensor in outputs.items()}

    def does_not_fit_now(self, update: Update, reason: str) -> DoesNotFit:
        """The error for an update in the midst of training."""
        lengths = max((sequence_lengths(batch) for batch in update.micro_batches), key=lambda each: int(each.sum()))
        batch = f"{len(lengths):,} sequences with {int(lengths.sum()):,} tokens"
        return does_not_fit(batch, reason, len(lengths) // 2)

    def slots(self, lengths: np.ndarray) -> int:
        nothing = np.zeros(int(lengths.sum()), np.int32)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        batch = {"input_ids": nothing, "token_type_ids": nothing, "cu_seqlens": starts}
        return self.lay_out(batch, inference=True).slots

    def see(self, layout: Layout, batch: Batch, answering: ComputeWeights | None = None) -> Seen:
        """`answering`: the weights, where there is no gradient."""
        heads = self.job.model.num_attention_heads
        alone = layout.slots and not layout.groups
        singly = answering is not None and self.one_by_one
        rows = 0 if alone else heads
        placed = place(layout, batch, self.job.head, rows, self.where, self.dtype, last_only=singly)
        attention: Attention
        if placed.heads is not None:
            attention = InGroups(placed.heads)
        elif answering is not None and not alone:
            shown = windows(batch["cu_seqlens"].tolist(), layout.slots, self.dtype)
            attention = OneByOne(heads, shown, answering.attended_dtype)
        else:
            attention = OfOne(heads, self._shown(layout, answering))
        last = attention if placed.last is None else InGroups(placed.last)
        ids = placed.input_ids, placed.token_type_ids, placed.position_ids
        return Seen(*ids, attention, last, placed.asking, placed.first, placed.masked, placed.tokens)

    def _shown(self, layout: Layout, answering: ComputeWeights | None) -> Tensor | None:
        """The mask of one sequence."""
        tokens = len(layout.token_slots)
        if answering is None or tokens == layout.slots:
            return None
        return only(0, tokens, layout.slots, answering.of_short(layout.slots).short_dtype)

    def _labels(self, batch: Batch, update: Update) -> Labels:
        kind = self.job.head.kind
        arrays = {name: batch[name] for name in (*LABELS[kind], *OF_TEACHER) if name in batch}
        lengths = sequence_lengths(batch)
        first, order = batch["cu_seqlens"][:-1].astype(np.int64), np.argsort(-lengths, kind="stable")
        if kind == "span":
            arrays |= {"first": first, "lengths": lengths.astype(np.int64)}
        tensors = {name: torch.from_numpy(array).to(self.where) for name, array in arrays.items()}
        counts = {name: max(1, count) for name, count in update.label_counts.items()}
        learned = self._learned(first[order], lengths[order]) if self.job.loss.states else None
        longest = int(lengths.max(initial=1))
        return Labels(tensors, counts, longest, self.job.head.sequences_each, self.rule, learned)

    def _learned(self, first: np.ndarray, lengths: np.ndarray) -> LearnedStates:
        """Of sequences in an order of falling lengths."""
        starts, sizes = (torch.from_numpy(one.astype(np.int64)).to(self.where) for one in (first, lengths))
        stretches = Stretches(starts, sizes, groups(lengths))
        return LearnedStates(stretches, self.job.model.hidden_size, projection(dict(self.model.named_parameters())))

    def describe(self) -> dict[str, str]:
        inference = "; in inference torch's kernel, one sequence after another" if self.one_by_one else ""
        return {"layout": self.layout, "attention": f"grouped batched matmul{inference}"}
