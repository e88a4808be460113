"""Pre-training within the test's own process: small shards of two phases, runs on them, and what they left."""

from __future__ import annotations

from pathlib import Path

from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.recipes.recipe import Value
from bertkit.recipes.resolve import resolve
from bertkit.training.pretraining import Pretraining, pretraining
from bertkit.training.run import Run
from bertkit.training.trainer import Trainer
from pretraining_files import known_sequences, write_hdf5, write_parquet, write_vocabulary

SMALL: dict[str, Value] = {
    "backend": "null", "task": "pretrain", "precision": "fp32", "model.name": "tiny", "data.seq_length": 32,
    "train.batch_size": 16, "log.every": 1, "data.cache": "off",
}  # fmt: skip
TWO: dict[str, Value] = {
    "train.phases": "1,2", "train.steps": 9, "phase2.steps": 5, "phase2.batch_size": 8, "checkpoint.every": 2,
    "evaluation.every": 4, "optimizer.name": "lamb", "schedule.name": "polynomial", "schedule.power": 0.5,
    "phase2.learning_rate": 1e-3,
}  # fmt: skip


def write_phases(folder: Path) -> Path:
    """`phase1` in bins with dynamic masking and an evaluation set, `phase2` of HDF5 without; 110 and 60 sequences."""
    write_vocabulary(folder)
    for name in ("phase1", "phase1/eval", "phase2"):
        (folder / name).mkdir()
    for number in range(4):
        shard = folder / "phase1" / f"part.{number}.parquet_{number % 2}"
        write_parquet(shard, known_sequences(20 + 5 * number, seed=number), static=False, bin=number % 2)
    write_parquet(folder / "phase1" / "eval" / "part.0.parquet", known_sequences(30, seed=50), static=False)
    write_hdf5(folder / "phase2" / "a.hdf5", known_sequences(60, seed=70))
    return folder


def course(folder: Path, world: World | None = None, **settings: Value) -> Pretraining:
    values = SMALL | {"data.dir": str(folder)} | dotted(settings)
    return pretraining(resolve(values, env={}).recipe, world or World(), Display(quiet=True), dry_run=False)


def run(folder: Path, output: Path, resume: bool = False, **settings: Value) -> Run:
    values = SMALL | {"data.dir": str(folder), "output": str(output)} | dotted(settings)
    return Trainer.of(resolve(values, env={}), World(), Display(quiet=True), resume=resume).fit()


def dotted(settings: dict[str, Value]) -> dict[str, Value]:
    """`train__steps` -> `train.steps`."""
    return {name.replace("__", "."): value for name, value in settings.items()}
