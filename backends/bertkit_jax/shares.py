"""A micro-batch cut into one share for each local device, all of one size, on a new first axis.

Legend: D devices, B sequences, T tokens, M masked positions.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from bertkit.plugin import (
    OF_TOKENS,
    Arrays,
    Batch,
    BatchLimits,
    Job,
    Limits,
    Shapes,
    Sizes,
    Static,
    StaticPlan,
    sequence_lengths,
    static_batch,
)


@dataclasses.dataclass(frozen=True)
class Stacked(Static):
    """Arrays (D, …) of D shares."""

    parts: tuple[Static, ...] = ()


class SharedPlan(StaticPlan):
    """The sizes are those of a share; whole numbers of examples, one after another, go to each device."""

    def __init__(self, job: Job, devices: int) -> None:
        self.devices = devices
        limits = job.limits and shared_limits(job.limits, devices, job.head.sequences_each)
        super().__init__(dataclasses.replace(job, limits=limits), alone=job.layout == "padded")

    def make(self, batch: Batch, counts: Mapping[str, int] | None) -> Static:
        parts = cut(batch, self.devices, self.job.head.sequences_each)
        sizes = self._common(parts, counts is not None)
        kind = self.job.head.kind
        return stacked([static_batch(part, kind, sizes, counts, self.alone) for part in parts])

    def sizes(self, batch: Batch, training: bool) -> Sizes:
        return self._common(cut(batch, self.devices, self.job.head.sequences_each), training)

    def _common(self, parts: list[Batch], training: bool) -> Sizes:
        """The smallest sizes that hold every share."""
        plan = self.training if training else self.answering
        lengths = [sequence_lengths(part) for part in parts]
        masked = [len(part.get("masked_positions", ())) for part in parts]
        if self.devices == 1:
            return self._fit(plan, lengths[0], masked[0])
        if plan:
            for sizes in plan:
                only = Shapes((sizes,))
                if all(only.fit(each, held) for each, held in zip(lengths, masked, strict=True)):
                    return sizes
        each = [self._fit(None, found, held) for found, held in zip(lengths, masked, strict=True)]
        return Sizes(**{f.name: max(getattr(s, f.name) for s in each) for f in dataclasses.fields(Sizes)})

    def empty(self, sizes: Sizes, training: bool) -> Static:
        return stacked([super().empty(sizes, training)] * self.devices)

    def slots(self, lengths: np.ndarray) -> int:
        each = np.concatenate([[0], np.cumsum(lengths)])
        nothing = np.empty(0, np.int64)
        batch = {"cu_seqlens": each, "input_ids": np.zeros(each[-1], np.int64), "token_type_ids": nothing}
        return self.places(self._common(cut(batch, self.devices, self.job.head.sequences_each), training=False))

    def places(self, sizes: Sizes) -> int:
        return self.devices * sizes.slots

    def real(self, made: Static, found: Mapping[str, np.ndarray], batch: Batch) -> Arrays:
        parts = made.parts if isinstance(made, Stacked) else (made,)
        shares = [{name: array[number] for name, array in found.items()} for number in range(self.devices)]
        cuts = cut(batch, self.devices, self.job.head.sequences_each)
        each = [super(SharedPlan, self).real(*given) for given in zip(parts, shares, cuts, strict=True)]
        return {name: np.concatenate([part[name] for part in each]) for name in found}


def stacked(parts: list[Static]) -> Stacked:
    """The shares' arrays side by side, int32 where they are whole numbers: JAX has no others by default."""
    whole = {name: np.stack([part.whole[name] for part in parts]).astype(np.int32) for name in parts[0].whole}
    real = {name: np.stack([part.real[name] for part in parts]) for name in parts[0].real}
    first = parts[0]
    return Stacked(first.sizes, sum(p.sequences for p in parts), first.token_slots, whole, real, tuple(parts))


def cut(batch: Batch, count: int, sequences_each: int) -> list[Batch]:
    """`count` consecutive parts of (nearly) as many examples each; the last may be without sequences."""
    if count == 1:
        return [batch]
    bounds = batch["cu_seqlens"].astype(np.int64)
    examples = (len(bounds) - 1) // sequences_each
    ends = [-(-examples * number // count) for number in range(count + 1)]
    return [_part(batch, bounds, first, last, sequences_each) for first, last in itertools.pairwise(ends)]


def _part(batch: Batch, bounds: np.ndarray, first: int, last: int, sequences_each: int) -> Batch:
    """Examples `first` to `last`."""
    edges = bounds[first * sequences_each : last * sequences_each + 1]
    start, end = int(edges[0]), int(edges[-1])
    made: dict[str, np.ndarray] = {"cu_seqlens": edges - start}
    for name in ("input_ids", "token_type_ids", *OF_TOKENS):
        if name in batch:
            made[name] = batch[name][start:end]
    for name in ("labels", "start_positions", "end_positions", "teacher_logits", "example_ids"):
        if name in batch:
            made[name] = batch[name][first:last]
    if "masked_positions" in batch:
        held = (batch["masked_positions"] >= start) & (batch["masked_positions"] < end)
        made["masked_positions"] = batch["masked_positions"][held] - start
        if "masked_labels" in batch:
            made["masked_labels"] = batch["masked_labels"][held]
    return made


def shared_limits(limits: Limits, devices: int, sequences_each: int) -> Limits:
    """What a share holds at the most; of the batches drawn, what the first devices would have had."""

    def of_share(whole: BatchLimits) -> BatchLimits:
        sequences = -(-whole.sequences // sequences_each // devices) * sequences_each
        drawn = []
        for each in whole.drawn:
            examples = len(each.lengths) // sequences_each
            ends = [-(-examples * number // devices) * sequences_each for number in range(devices + 1)]
            masked = -(-each.masked // devices)
            drawn += [
                dataclasses.replace(each, lengths=each.lengths[a:b], masked=masked) for a, b in itertools.pairwise(ends)
            ]
        tokens = min(whole.most_tokens, sequences * whole.longest)
        masked = min(whole.masked, -(-whole.masked // max(1, whole.sequences)) * sequences)
        return BatchLimits(sequences, whole.longest, masked, tokens, tuple(drawn))

    if devices == 1:
        return limits
    return Limits(tuple(map(of_share, limits.training)), tuple(map(of_share, limits.answers)))
