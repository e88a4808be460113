"""What a device must not do while it trains: compile again, make the host wait, need more and more memory.

Legend: B sequences of a batch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import closing

import numpy as np

from bertkit.conformance.fixtures import HEADS, MODEL, RATE, job, part, with_settings
from bertkit.conformance.tolerance import WAITS, Skip, must_train
from bertkit.data.lengths import lengths
from bertkit.engine.interface import Backend, Batch, BatchLimits, Counters, Engine, Job, Limits, Update, label_counts
from bertkit.model.config import HeadKind
from bertkit.training.prefetch import ahead

SEQUENCES = 8  # B, of every batch but the last of an epoch
LONGEST = MODEL.max_position_embeddings
EPOCH = 25  # batches; the last has half of the sequences
KIND: HeadKind = "classification"


def check_static_shapes(backend: Backend) -> str:
    """Over an epoch of MRPC's lengths, with a smaller last batch, nothing is compiled after the first two updates."""
    must_train(backend)
    engine, sensors = _with_sensors(backend)
    if sensors.programs() is None:
        raise Skip("this device compiles no programs, or does not tell")
    batches = list(_epoch())
    _train(engine, batches[:2])
    engine.predict(batches[0])
    warm = sensors.programs() or 0
    assert warm > 0, "nothing was compiled, or it was not counted"
    _train(engine, batches[2:], first=3)
    for batch in batches:
        engine.predict(batch)
    after = (sensors.programs() or 0) - warm
    assert after == 0, f"{after} programs were compiled after the warm-up (which took {warm})"
    shapes = len({len(batch["input_ids"]) for batch in batches})
    return f"{warm} programs in the warm-up, 0 in an epoch of {EPOCH} batches with {shapes} different token counts"


def check_host_waits(backend: Backend) -> str:
    """An update gives the device its work and goes on: the host waits for nothing."""
    must_train(backend)
    engine, sensors = _with_sensors(backend)
    batches = list(_epoch())
    _train(engine, batches[:3])
    waits = sensors.host_waits(lambda: _train(engine, batches[3:13], first=4))
    if waits is None:
        raise Skip("this device is the host, or does not tell")
    assert waits <= WAITS, f"the host waited {waits} times in 10 updates"
    return f"{waits} waits in 10 updates"


def check_memory(backend: Backend) -> str:
    """What an epoch needs at the most is known, and a second epoch needs no more."""
    must_train(backend)
    engine, _ = _with_sensors(backend)
    batches = list(_epoch())
    peaks = []
    for epoch in range(2):
        _train(engine, batches, first=1 + epoch * EPOCH)
        engine.synchronize()
        peaks.append(engine.peak_memory())
    if peaks[0] is None or peaks[1] is None:
        raise Skip("this device does not tell its memory")
    assert peaks[0] > 0, "the peak is 0"
    # A peak of the process (a CPU's) also has what others in it allocated; 5 % is their play.
    assert peaks[1] <= 1.05 * peaks[0], f"the second epoch needed {peaks[1] - peaks[0]} bytes more"
    return f"peak {peaks[1] / 2**20:,.0f} MiB; the second epoch needed {(peaks[1] - peaks[0]) / 2**20:,.1f} MiB more"


def _with_sensors(backend: Backend) -> tuple[Engine, Counters]:
    most = BatchLimits(SEQUENCES, LONGEST)
    limits = Limits((most,), (most,))
    wanted: Job = dataclasses.replace(job(KIND, dropout=True), limits=limits)
    engine = with_settings(backend, wanted)
    if not isinstance(engine, Counters):
        raise Skip("this backend's engine tells nothing of its device")
    return engine, engine


def _epoch() -> Iterator[Batch]:
    """Batches of MRPC's lengths, cut to the model's positions."""
    found = lengths("mrpc", SEQUENCES * EPOCH, 1, LONGEST)
    stream = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(found)]).astype(np.int64)
    tokens = int(starts[-1])
    whole: dict[str, np.ndarray] = {
        "input_ids": stream.integers(0, MODEL.vocab_size, tokens).astype(np.int32),
        "token_type_ids": np.zeros(tokens, np.int32),
        "cu_seqlens": starts,
        "example_ids": np.arange(len(found)),
        "labels": stream.integers(0, HEADS[KIND].outputs, len(found)),
    }
    for number in range(EPOCH):
        count = SEQUENCES if number < EPOCH - 1 else SEQUENCES // 2
        yield part(whole, np.arange(number * SEQUENCES, number * SEQUENCES + count))


def _train(engine: Engine, batches: list[Batch], first: int = 1) -> None:
    """Updates whose numbers nobody reads, staged ahead in a thread of their own as in a run."""
    updates = (Update(number, (batch,), label_counts(KIND, [batch])) for number, batch in enumerate(batches, first))
    with closing(ahead(map(engine.stage, updates))) as staged:
        for update in staged:
            engine.train_step(update, RATE)
