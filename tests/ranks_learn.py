"""What the ranks of tests/device/test_sharded.py run: `python ranks_learn.py FOLDER FIRST LAST [STATE]`.

Updates FIRST to LAST of one batch with LAMB, each rank accumulating over two micro-batches, first with the whole
optimizer on every rank and then with its own share; the states go to FOLDER/RANK-{whole,shard}.npz.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.conformance.fixtures import RATE, example_batch, job, part
from bertkit.distributed.world import World, from_env
from bertkit.engine.interface import Exchange, OptimizerSpec, Update, label_counts
from bertkit_cpu import CpuBackend

KIND = "pretraining"
ACCUMULATED = 2
LAMB = OptimizerSpec(algorithm="lamb", trust_ratio="all", clip_norm=0.1)


def learn(engine: Any, world: World, first: int, last: int, accumulated: int) -> list[float]:
    """The losses of these updates; micro-batch k of all goes to rank k // accumulated."""
    batch = example_batch(KIND)
    parts = np.array_split(np.arange(len(batch["cu_seqlens"]) - 1), accumulated * world.size)
    micro = tuple(part(batch, some) for some in parts[accumulated * world.rank :][:accumulated])
    counts = label_counts(KIND, [batch])
    return [float(engine.train_step(Update(n, micro, counts), RATE)["loss"]) for n in range(first, last + 1)]


def made(world: World, *, shard: bool) -> Any:
    settings = {name: setting.default for name, setting in CpuBackend.settings.items()} | {"threads": 1}
    spec, exchange = dataclasses.replace(LAMB, shard=shard), Exchange("gloo", timeout=60)
    wanted = dataclasses.replace(job(KIND), optimizer=spec, exchange=exchange, settings=settings)
    return CpuBackend().engine(wanted, world)


def main(folder: Path, first: int, last: int, state: Path | None) -> None:
    world = from_env()
    for name, shard in (("whole", False), ("shard", True)):
        engine = made(world, shard=shard)
        if state:
            engine.load_state_dict(dict(np.load(state)))
        losses = learn(engine, world, first, last, ACCUMULATED)
        arrays = engine.state_dict()
        inner = engine.optimizer.inner if shard else engine.optimizer
        kept = sum(tensor.numel() for tensor in inner.first.values())
        engine.close()
        np.savez(folder / f"{world.rank}-{name}.npz", **arrays, losses=np.array(losses), kept=np.array(kept))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None)
