"""A model at a server in an engine's place: whatever answers by an engine's logits answers by the server's.

Legend: B sequences, S length that they are padded to, T tokens without padding, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from bertkit.engine.answers_only import AnswersOnly
from bertkit.engine.interface import OUTPUTS, Arrays, Batch, Peak
from bertkit.engine.remote import (
    InputSpecs,
    RemoteModel,
    infer,
    input_specs,
    output_names,
    outputs_of,
    padded_tensors,
    rows_of,
)
from bertkit.errors import UserError
from bertkit.model.config import PER_TOKEN, Head


@dataclass
class RemoteEngine(AnswersOnly):
    """Answers only: an `Engine` whose `predict` asks a server, several requests at a time."""

    model: RemoteModel
    head: Head
    size: int  # sequences of a request
    concurrency: int  # requests in flight
    patience: float = 60.0  # seconds for which a server is asked again whose queue is full
    specs: InputSpecs = field(init=False)
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Raises UserError where the model's tensors are not those of such a head."""
        if self.model.of_texts:
            raise UserError(f"the server's model {self.model.name} takes texts, not token ids", "leave out --run")
        self.specs = input_specs(self.model)
        self.names = output_names(self.model, OUTPUTS[self.head.kind])
        self.size = self.specs.batch or self.size * self.specs.each
        self._pool = ThreadPoolExecutor(self.concurrency, "request")

    def predict(self, batch: Batch) -> Arrays:
        """As `Engine.predict` has it."""
        bounds = batch["cu_seqlens"]
        ids, types = list(rows_of(batch["input_ids"], bounds)), list(rows_of(batch["token_type_ids"], bounds))
        starts = range(0, len(ids), self.size)
        found = list(self._pool.map(self._ask, *([one[at : at + self.size] for at in starts] for one in (ids, types))))
        return {name: np.concatenate([one[name] for one in found]) for name in self.names}

    def _ask(self, ids: Sequence[np.ndarray], types: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """One request; of what comes back only what is real."""
        inputs, length = padded_tensors(self.specs, ids, types)
        outputs = outputs_of(infer(self.model, inputs, self.patience), self.names, self.model)
        rows = self.specs.batch or len(ids)
        real = np.arange(length) < np.array([len(one) for one in ids])[:, None]
        for name, sent in outputs.items():
            values = sent.reshape(-1, 1) if self.specs.each > 1 else sent  # a logit for each choice
            wanted = (rows, length) if self.head.kind in PER_TOKEN else (rows,)
            last = () if self.head.kind == "span" else (self.head.outputs if self.head.sequences_each == 1 else 1,)
            if values.shape != (*wanted, *last):
                shape = list(values.shape)
                raise UserError(
                    f"the server's model {self.model.name} sent {self.names[name]} of shape {shape}, "
                    f"not {[*wanted, *last]}",
                    "check --model, -t and --run: it has another head",
                )
            outputs[name] = values[: len(ids)][real] if self.head.kind in PER_TOKEN else values[: len(ids)]
        return outputs

    def slots(self, lengths: np.ndarray) -> int:
        """Token places that are sent, padding included."""
        parts = [lengths[first : first + self.size] for first in range(0, len(lengths), self.size)]
        return sum((self.specs.batch or len(one)) * (self.specs.length or int(one.max())) for one in parts)

    def describe(self) -> Mapping[str, str]:
        return {"server": str(self.model.server.address), "model": self.model.name, "platform": self.model.platform}

    def peak(self) -> Peak:
        return Peak(float("nan"), "the server does not tell")

    def close(self) -> None:
        self._pool.shutdown()
        self.model.server.close()
