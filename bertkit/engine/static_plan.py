"""The sizes that a run's batches are rounded up to, planned before its first update, and what was met of them.

For engines that make a program for each shape, in whatever framework: plan, fill up, compute every size once on an
empty batch, count what comes unforeseen, cut the answers back to what is real.

Legend: B sequences, T tokens, N slots, M masked positions.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping

import numpy as np

from bertkit.engine.interface import LABELS, Arrays, Batch, Job, Update, sequence_lengths
from bertkit.engine.static_shapes import Shapes, Sizes, Static, shapes, shapes_of, static
from bertkit.model.config import PER_TOKEN

logger = logging.getLogger("bertkit.engine")


class Filled(dict[str, np.ndarray]):
    """A batch whose arrays of fixed sizes are made already; it reads as the batch it was made of."""

    def __init__(self, batch: Batch, made: Static) -> None:
        super().__init__(batch)
        self.made = made


class StaticPlan:
    """Of one job. `alone`: each sequence in a row of its own (padded), and nothing is planned."""

    def __init__(self, job: Job, flat: bool = False, alone: bool = False) -> None:
        self.job, self.flat, self.alone = job, flat, alone
        self.training = self._plan(training=True)
        self.answering = self._plan(training=False)
        self.met: set[tuple[bool, Sizes]] = set()
        self.late = 0  # sizes met after the warm-up

    def _plan(self, training: bool) -> Shapes | None:
        limits = self.job.limits
        kinds = () if limits is None or self.alone else limits.training if training else limits.answers
        return shapes(kinds, int(self.job.settings.get("shapes", 8)), self.flat) if kinds else None

    def planned(self, training: bool) -> Iterator[Sizes]:
        """The sizes, the largest first: what does not fit into memory fails at once."""
        plan = self.training if training else self.answering
        yield from () if plan is None else reversed(plan.sizes)

    # ---- batches ----

    def stage(self, update: Update) -> Update:
        """Everything that the host does for an update."""
        filled = tuple(
            self.fill(batch, update.label_counts) if len(batch["cu_seqlens"]) > 1 else batch
            for batch in update.micro_batches
        )
        return dataclasses.replace(update, micro_batches=filled)

    def fill(self, batch: Batch, counts: Mapping[str, int] | None) -> Filled:
        """`counts`: what the losses are divided by; None: to be answered."""
        return batch if isinstance(batch, Filled) else Filled(batch, self.make(batch, counts))

    def make(self, batch: Batch, counts: Mapping[str, int] | None) -> Static:
        """The arrays of fixed sizes; `counts` as for `fill`."""
        sizes = self.sizes(batch, counts is not None)
        return static(batch, self.job.head.kind, sizes, counts, self.alone)

    def sizes(self, batch: Batch, training: bool) -> Sizes:
        plan = self.training if training else self.answering
        return self._fit(plan, sequence_lengths(batch), len(batch.get("masked_positions", ())))

    def _fit(self, plan: Shapes | None, lengths: np.ndarray, masked: int) -> Sizes:
        found = plan.fit(lengths, masked) if plan else None
        return found or next(iter(shapes_of(lengths, masked, self.flat, self.alone)))

    def slots(self, lengths: np.ndarray) -> int:
        return self.places(self._fit(self.answering, lengths, 0))

    def places(self, sizes: Sizes) -> int:
        """Token places of a batch of these sizes."""
        return sizes.slots

    def empty(self, sizes: Sizes, training: bool) -> Static:
        """A batch of nothing but filling."""
        head, nobody = self.job.head, np.empty(0, np.int64)
        batch = dict.fromkeys(("input_ids", "token_type_ids", "masked_positions"), nobody)
        batch["cu_seqlens"] = np.zeros(1, np.int64)
        batch |= dict.fromkeys(LABELS[head.kind], nobody)
        if head.label_shape:
            batch["labels"] = np.empty((0, *head.label_shape), np.float32)
        if self.job.loss.teacher and head.kind == "pretraining":
            batch["teacher_masked_logits"] = np.empty((0, self.job.model.vocab_size), np.float32)
        elif self.job.loss.teacher:
            name = "teacher_token_logits" if head.kind in PER_TOKEN else "teacher_logits"
            batch[name] = np.empty((0, head.outputs), np.float32)
        if self.job.loss.states:
            batch["teacher_states"] = np.empty((0, self.job.loss.states.teacher_columns), np.float32)
        counts = {"sequences": 1, "masked": 1, "tokens": 1, "pairs": 1} if training else None
        return static(batch, head.kind, sizes, counts, self.alone)

    # ---- what came of it ----

    def meet(self, sizes: Sizes, training: bool) -> None:
        """Count sizes that the warm-up did not know; without limits there was none."""
        if (training, sizes) in self.met:
            return
        self.met.add((training, sizes))
        if (self.training if training else self.answering) is not None:
            self.late += 1
            logger.warning("a batch of new sizes, %s, is compiled now: number %d since the warm-up", sizes, self.late)

    def real(self, made: Static, found: Mapping[str, np.ndarray], batch: Batch) -> Arrays:
        """A head's outputs for the filled-up batch -> those of what is real: (T, …), (B, …) or (M, …)."""
        if self.job.head.kind in PER_TOKEN:
            return {name: array[made.token_slots] for name, array in found.items()}
        held = {"masked_logits": len(batch.get("masked_positions", ()))}
        answers = {name: array[: held.get(name, made.sequences)] for name, array in found.items()}
        return answers | ({"hidden": found["hidden"][made.token_slots]} if "hidden" in found else {})

    def describe(self) -> str:
        if self.alone:
            return "padded"
        planned = f", sizes {self.training} (and {self.late} unforeseen)" if self.training else ""
        return f"{'one row of ragged stretches' if self.flat else 'packed rows'}{planned}"
