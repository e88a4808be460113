"""A model that takes padded rows in an engine's place: whatever answers by an engine's logits answers by its.

Legend: B sequences, S length that they are padded to, T tokens without padding, G sequences of a group.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

from bertkit.distributed.collectives import Joined
from bertkit.engine.answers_only import AnswersOnly
from bertkit.engine.exports import PaddedModel
from bertkit.engine.interface import OUTPUTS, Arrays, Batch, sequence_lengths
from bertkit.engine.layouts import Group, length_groups
from bertkit.model.config import PER_TOKEN, Head


class PaddedEngine(AnswersOnly):
    """Answers only: an `Engine` whose `predict` pads sequences to the longest of those computed together."""

    def __init__(
        self,
        compute: PaddedModel,
        head: Head,
        described: Mapping[str, str] | None = None,
        ranks: Joined | None = None,
        *,
        grouped: bool = True,
    ) -> None:
        """`ranks`: the others, where the processes share what is computed; not `grouped`: all sequences of a batch are
        padded to its longest."""
        self.compute, self.head, self.described, self.ranks = compute, head, dict(described or {}), ranks
        self.grouped = grouped

    def predict(self, batch: Batch) -> Arrays:
        """As `Engine.predict` has it."""
        bounds = batch["cu_seqlens"]
        found: Arrays = {}
        for group in self._groups(sequence_lengths(batch)):
            real = group.segments > 0
            outputs = self.compute(rows_at(batch, group.slots, real))
            for name in OUTPUTS[self.head.kind]:
                values = outputs[name]
                if self.head.kind in PER_TOKEN:
                    places, count, values = group.slots[real], int(bounds[-1]), values[real]
                else:  # a row begins with its sequence's first token
                    places, count = np.searchsorted(bounds, group.slots[:, 0]), len(bounds) - 1
                whole = found.setdefault(name, np.empty((count, *values.shape[1:]), np.float32))
                whole[places] = values
        return found

    def slots(self, lengths: np.ndarray) -> int:
        """Token places, padding included."""
        return sum(group.slots.size for group in self._groups(lengths))

    def _groups(self, lengths: np.ndarray) -> tuple[Group, ...]:
        if self.grouped:
            return length_groups(lengths)
        return length_groups(lengths, waste=1.0, most_tokens=sys.maxsize)

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.ranks.gather(rows) if self.ranks else rows

    def describe(self) -> Mapping[str, str]:
        return self.described

    def close(self) -> None:
        """Drop the model, and leave the ranks."""
        self.compute = _closed
        if self.ranks:
            self.ranks.close()


def rows_at(batch: Batch, slots: np.ndarray, real: np.ndarray) -> Arrays:
    """What a `PaddedModel` takes, each (G, S) int32: the tokens at `slots` (G, S) of the batch, 0 where not `real`."""
    made = {name: np.where(real, batch[name][slots], 0).astype(np.int32) for name in ("input_ids", "token_type_ids")}
    return made | {"attention_mask": real.astype(np.int32)}


def padded(batch: Batch) -> Arrays:
    """Flat tokens (T,) as rows (B, S), in their order, with a mask of what is real."""
    lengths, starts = sequence_lengths(batch), batch["cu_seqlens"][:-1]
    columns = np.arange(int(lengths.max()))
    real = columns < lengths[:, None]
    return rows_at(batch, starts[:, None] + np.where(real, columns, 0), real)


def _closed(inputs: Mapping[str, np.ndarray]) -> Arrays:
    raise RuntimeError("the engine is closed")  # a fault of bertkit's
