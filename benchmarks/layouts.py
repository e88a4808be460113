"""CPU time of a training update of the same batches padded, packed in rows of one width, and unpadded.

    OMP_WAIT_POLICY=passive python benchmarks/layouts.py --model medium -b 64 --json layouts.json

An engine a layout, of one model, take turns in one process, batch by batch, so that what slows the machine slows all.
In the first round every batch has sizes that the kernels prepare for first; a long training pays that seldom, so the
rounds after it are what counts, and the first stands beside them. Ratios are taken within a turn, of the padded time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any, get_args

import torch

from bertkit.bench.workload import built_in
from bertkit.conformance.fixtures import with_settings
from bertkit.data.sampler import Sampler, updates
from bertkit.engine.interface import Engine, Job, LayoutKind, OptimizerSpec, Update
from bertkit.engine.registry import choose
from bertkit.files.disk import to_json, write_text
from bertkit.model.config import ARCHITECTURES
from bertkit.model.parameters import initial

RATE = 1e-4
Times = dict[str, list[float]]


def engines(model: str, head: Any, threads: int) -> dict[str, Engine]:
    backend = choose("cpu").backend
    weights = initial(ARCHITECTURES[model], head, seed=1)
    optimizer = OptimizerSpec(algorithm="lamb", epsilon=1e-6)

    def made(layout: LayoutKind) -> Engine:
        job = Job(ARCHITECTURES[model], head, weights, optimizer, "bf16", layout=layout)
        return with_settings(backend, job, threads=threads)

    return {layout: made(layout) for layout in get_args(LayoutKind)}


def turn(engine: Engine, update: Update) -> tuple[float, float, float]:
    """Wall and CPU seconds of one update, and its token places."""
    started = time.perf_counter(), time.process_time()
    scalars = engine.train_step(update, RATE)
    engine.synchronize()
    wall, cpu = time.perf_counter() - started[0], time.process_time() - started[1]
    return wall, cpu, float(scalars["slots"])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every single time, by round and layout, in the batches' order."""
    work = built_in(options.lengths, ARCHITECTURES[options.model], options.batch_size, 0, seed=1)
    sampler = Sampler(len(work.features), options.batch_size, seed=1)
    taken = list(updates(work.features, sampler, work.head.kind, 1, options.batches))
    tokens = sum(int(batch["cu_seqlens"][-1]) for update in taken for batch in update.micro_batches)
    made = engines(options.model, work.head, options.threads)
    rounds: list[dict[str, Times]] = []
    slots = dict.fromkeys(made, 0.0)
    for number in range(options.rounds + 1):
        one: dict[str, Times] = {"wall": {name: [] for name in made}, "cpu": {name: [] for name in made}}
        for update in taken:
            for name, engine in made.items():
                wall, cpu, places = turn(engine, update)
                one["wall"][name].append(wall)
                one["cpu"][name].append(cpu)
                slots[name] += places
        rounds.append(one)
        print(f"round {number}\n{table(**one)}", flush=True)
    filled = {name: tokens * len(rounds) / places for name, places in slots.items()}
    return {"torch": torch.__version__, "filled": filled, "rounds": rounds}


def _ratio(times: Times, name: str) -> float:
    return statistics.median(padded / own for padded, own in zip(times["padded"], times[name], strict=True))


def table(wall: Times, cpu: Times) -> str:
    lines = [f"{'':<10} {'CPU s':>8} {'wall s':>8} {'padded CPU':>11} {'padded wall':>12}"]
    for name in cpu:
        ratios = [_ratio(times, name) for times in (cpu, wall)]
        lines.append(f"{name:<10} {sum(cpu[name]):>8.2f} {sum(wall[name]):>8.2f} {ratios[0]:>11.3f} {ratios[1]:>12.3f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", choices=sorted(ARCHITECTURES), default="medium")
    parser.add_argument("--lengths", default="wiki512")
    parser.add_argument("-b", "--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2, help="that are counted, after the first")
    parser.add_argument("--json", type=Path, help="a file for every single time")
    options = parser.parse_args()
    found = measure(options)
    print("filled: " + "  ".join(f"{name} {share:.3f}" for name, share in found["filled"].items()))
    if options.json:
        write_text(options.json, to_json(found | {"options": vars(options) | {"json": str(options.json)}}) + "\n")


if __name__ == "__main__":
    main()
