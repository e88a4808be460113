"""A run that is served: loaded, warmed up and computed in one thread of its own, which alone touches its engine."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bertkit import Predictor
from bertkit.plugin import Arrays, Features, UserError
from bertkit_serve.batching import Batcher, BatchLimits, Computed
from bertkit_serve.faces import Face, IdsFace, TextFace

VERSION = "1"  # the only one of each model
TEXT_THREADS = 2  # that prepare long texts, beside the event loop
BATCH_SECONDS = 0.05  # that a full batch takes, where no number of tokens is set
LEAST, MOST = 512, 4096  # tokens of such a batch
TEXT = "-text"  # ends the name under which texts are taken
WATCHED = ("model.safetensors", "config.json", "vocab.txt", "task.json", "record.json")  # of a run's folder
Load = Callable[[], Predictor]
Signature = tuple[tuple[str, int, int], ...]
logger = logging.getLogger(__name__)


class ServedModel:
    """One run. `turns`: the lock of those who compute on this process's threads, which each engine uses all of."""

    def __init__(
        self,
        name: str,
        load: Load,
        limits: BatchLimits,
        turns: threading.Lock,
        computed: Callable[[Computed], None] = lambda batch: None,
        signature: Signature = (),
    ) -> None:
        self.name, self.load, self.turns, self.signature = name, load, turns, signature
        self.batcher = Batcher(limits, computed)
        self.predictor: Predictor | None = None
        self.faces: Mapping[str, Face] = {}
        self.failure: Exception | None = None
        self.loaded = threading.Event()  # or failed
        self.thread = threading.Thread(target=self._live, name=f"bertkit-{name}", daemon=True)

    def start(self) -> None:
        self.thread.start()

    @property
    def ready(self) -> bool:
        return self.loaded.is_set() and self.failure is None and self.thread.is_alive()

    def close(self) -> None:
        """Take no more; what waits is answered, then the device is freed."""
        self.batcher.close()

    def _live(self) -> None:
        try:
            predictor = self.load()
            self._warm_up(predictor)
            if not self.batcher.limits.tokens:
                self.batcher.limits = dataclasses.replace(self.batcher.limits, tokens=self._batch_tokens(predictor))
            self.faces = {self.name: IdsFace(predictor), self.name + TEXT: TextFace(predictor)}
            self.predictor = predictor
        except Exception as error:  # whoever waits for `loaded` raises it
            self.failure = error
            return
        finally:
            self.loaded.set()
        self.batcher.run(lambda parts: self._compute(predictor, parts))
        predictor.close()

    def _compute(self, predictor: Predictor, parts: Sequence[Features]) -> list[Arrays | UserError]:
        with self.turns:
            return predictor.compute(parts)

    def _warm_up(self, predictor: Predictor) -> None:
        """A short, a long, and mixed sequences, so that no request waits for what is made at first use."""
        predictor.keep_tokenizers(1 + TEXT_THREADS)
        longest = predictor.recipe.data.seq_length
        each = predictor.task.head.sequences_each
        for lengths in ([min(16, longest)], [longest], [1, longest, min(64, longest)]):
            rows = [np.zeros(length, np.int64) for length in lengths for _ in range(each)]
            self._compute(predictor, [predictor.sequences(rows, rows)])

    def _batch_tokens(self, predictor: Predictor) -> int:
        """Tokens of a batch that takes BATCH_SECONDS: whoever comes meanwhile waits for the whole of it."""
        longest = min(64, predictor.recipe.data.seq_length)
        each = predictor.task.head.sequences_each
        examples = min(-(-LEAST // (longest * each)), max(1, self.batcher.limits.sequences // each))
        rows = [np.zeros(longest, np.int64)] * (examples * each)
        features = predictor.sequences(rows, rows)
        times: list[float] = []
        while len(times) < 2 or (sum(times) < BATCH_SECONDS and len(times) < 5):  # the first may compile
            with self.turns:  # waiting for another model is not computing
                began = time.perf_counter()
                predictor.compute([features])
                times.append(time.perf_counter() - began)
        rate = len(features.input_ids) / max(min(times), 1e-9)
        tokens = int(min(max(rate * BATCH_SECONDS, LEAST), MOST))
        logger.info("%s: batches of up to %s tokens, at %s tokens/s", self.name, f"{tokens:,}", f"{rate:,.0f}")
        return tokens


def signature_of(run: str) -> Signature:
    """What a run's folder looks like now: names, times and sizes of its files; () where it is no folder."""
    found = []
    for name in WATCHED:
        try:
            told = (Path(run).expanduser() / name).stat()
        except OSError:
            continue
        found.append((name, told.st_mtime_ns, told.st_size))
    return tuple(found)
