"""An engine without arithmetic: its state is a fingerprint of every batch that it was given, in order."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping

import numpy as np

from bertkit.plugin import Arrays, Batch, Job, Peak, Scalars, Update, World
from bertkit.plugin import add_sums as add
from bertkit.plugin import join_ranks as join

NUMBERS = 8  # that the ranks sum at every update


class NullEngine:
    """Weights are those it started from; `seen` folds in all token ids in order, so resumes can be compared."""

    def __init__(self, job: Job, world: World) -> None:
        self.job = job
        self.world = world
        self.ranks = join(world, job.exchange.collectives, job.exchange.timeout)
        self.flat = self.ranks.flat(NUMBERS, "fp32", add)
        self.seen = 0
        self.steps = 0

    def stage(self, update: Update) -> Update:
        return update

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        time.sleep(float(self.job.settings.get("step_seconds", 0.0)))
        for batch in update.micro_batches:
            self.seen = zlib.crc32(np.ascontiguousarray(batch["input_ids"]).data, self.seen)
        self.steps += 1
        self.ranks.at(f"at update {update.step}")
        self.flat.array[:] = 1
        self.flat.sum_(0, NUMBERS)
        if not np.array_equal(self.flat.array, np.full(NUMBERS, self.world.size)):
            raise RuntimeError(f"a sum of ones over {self.world.size} ranks gave {self.flat.array}")
        slots = sum(len(batch["input_ids"]) for batch in update.micro_batches)
        return {"loss": 1.0 / self.steps, "grad_norm": 1.0, "slots": slots}

    def predict(self, batch: Batch) -> Arrays:
        tokens, sequences = len(batch["input_ids"]), len(batch["cu_seqlens"]) - 1
        if self.job.head.kind == "span":
            return {name: np.zeros(tokens, np.float32) for name in ("start_logits", "end_logits")}
        if self.job.head.kind == "encoder":
            return {"hidden": np.zeros((tokens, self.job.head.outputs), np.float32)}
        rows = tokens if self.job.head.kind == "tokens" else sequences
        arrays = {"logits": np.zeros((rows, self.job.head.logits_each), np.float32)}
        if self.job.head.kind == "pretraining":
            masked = len(batch["masked_positions"])
            arrays["masked_logits"] = np.zeros((masked, self.job.model.vocab_size), np.float32)
        return arrays

    def slots(self, lengths: np.ndarray) -> int:
        return int(lengths.sum())

    def weights(self) -> Arrays:
        return {name: np.array(array) for name, array in self.job.weights.items()}

    def state_dict(self) -> Arrays:
        model = {f"model.{name}": array for name, array in self.weights().items()}
        return model | {"null.seen": np.array(self.seen), "null.steps": np.array(self.steps)}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.seen = int(arrays["null.seen"])
        self.steps = int(arrays["null.steps"])

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return self.ranks.gather(rows)

    def synchronize(self) -> None:
        pass

    def describe(self) -> Mapping[str, str]:
        alone = {"device": "none", "layout": "ragged"}
        return alone if self.world.size == 1 else alone | {"collectives": f"{self.ranks.name} ({self.ranks.reason})"}

    def peak(self) -> Peak:
        return Peak(float("nan"), "computes nothing")

    def peak_memory(self) -> int | None:
        return None

    def close(self) -> None:
        self.ranks.close()
