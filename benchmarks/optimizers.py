"""CPU time of one optimizer step on the CPU: LAMB in chunks beside multi-tensor LAMB, fused AdamW and clipping.

    OMP_WAIT_POLICY=passive python benchmarks/optimizers.py --threads 1 2 --json optimizers.json

All take turns in one process on the same weights and gradients, which are written anew before each step, so that no
step finds them in a cache. CPU time is the process's: it holds what idle threads spin unless the policy is passive.
The floor is memory's: AdamW moves 28 bytes a parameter (weight, gradient and moments read, all but the gradient
written), LAMB 40, as its update waits for its norm; so LAMB's floor is 40 / 28 of what AdamW takes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import bertkit_cpu.lamb
from bertkit.engine.interface import OptimizerSpec
from bertkit.files.disk import to_json, write_text
from bertkit.model.config import ARCHITECTURES, Head
from bertkit.model.parameters import shapes
from bertkit_cpu.device import CpuDevice
from bertkit_cpu.lamb import BlockedLamb
from bertkit_cpu.memory import keep_freed_memory
from bertkit_torch.gradients import Gradients
from bertkit_torch.lamb import Lamb
from bertkit_torch.optimizer import AdamW

RATE = 1e-4
ADAMW, LAMB = 28, 40  # bytes a parameter
Steps = dict[str, Callable[[], object]]


def blocked(optimizer: BlockedLamb, chunk: int) -> Callable[[], object]:
    def step() -> None:
        bertkit_cpu.lamb.CHUNK = chunk
        optimizer.step(RATE)

    return step


def competitors(parameters: dict[str, torch.nn.Parameter], chunks: Sequence[int]) -> Steps:
    spec = OptimizerSpec(algorithm="lamb", epsilon=1e-6)
    adamw, plain, ours = AdamW(parameters, OptimizerSpec()), Lamb(parameters, spec), BlockedLamb(parameters, spec)
    gathered, device = Gradients(parameters), CpuDevice()
    steps: Steps = {"AdamW, fused": lambda: adamw.step(RATE), "LAMB, multi-tensor": lambda: plain.step(RATE)}
    steps |= {f"LAMB, chunks of {chunk >> 10} Ki": blocked(ours, chunk) for chunk in chunks}
    return steps | {
        "norm and clipping": lambda: device.clip(gathered, 1e-3),
        "norm and clipping by torch": lambda: torch.nn.utils.clip_grad_norm_(gathered.parameters, 1e-3),
    }


def measure(model: str, threads: int, rounds: int, chunks: Sequence[int]) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    wanted = shapes(ARCHITECTURES[model], Head("classification", 2))
    parameters = {name: torch.nn.Parameter(torch.randn(shape) * 0.02) for name, shape in wanted.items()}
    kept = [torch.randn(shape) * 1e-3 for shape in wanted.values()]
    for parameter in parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    steps = competitors(parameters, chunks)
    cpu: dict[str, list[float]] = {name: [] for name in steps}
    wall: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):  # the first is not counted
        for name, step in steps.items():
            torch._foreach_copy_([parameter.grad for parameter in parameters.values()], kept)  # type: ignore[misc]
            started = time.perf_counter(), time.process_time()
            step()
            if number:
                wall[name].append(time.perf_counter() - started[0])
                cpu[name].append(time.process_time() - started[1])
    count = sum(parameter.numel() for parameter in parameters.values())
    return {"threads": threads, "parameters": count, "cpu": cpu, "wall": wall}


def table(found: dict[str, Any]) -> str:
    floor = statistics.median(found["cpu"]["AdamW, fused"]) * LAMB / ADAMW
    lines = [
        f"{found['parameters'] / 1e6:.1f} M parameters, {found['threads']} thread(s); LAMB's floor: {floor:.3f} CPU s",
        f"{'':<28} {'median CPU s':>12} {'least':>7} {'wall':>7} {'of multi-tensor':>15}",
    ]
    plain = found["cpu"]["LAMB, multi-tensor"]
    for name, seconds in found["cpu"].items():
        ratio = statistics.median(own / its for own, its in zip(seconds, plain, strict=True))
        median, wall = statistics.median(seconds), statistics.median(found["wall"][name])
        lines.append(f"{name:<28} {median:>12.3f} {min(seconds):>7.3f} {wall:>7.3f} {ratio:>15.2f}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--model", choices=sorted(ARCHITECTURES), default="base")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=9, help="steps of each that are counted")
    parser.add_argument("--chunks", type=int, nargs="+", default=[bertkit_cpu.lamb.CHUNK], help="elements, in turns")
    parser.add_argument("--json", type=Path, help="a file for every single time")
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for threads in options.threads:
        rows.append(measure(options.model, threads, options.rounds, options.chunks))
        print(table(rows[-1]), flush=True)
    if options.json:
        write_text(options.json, to_json({"torch": torch.__version__, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
