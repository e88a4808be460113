"""One competitor in a process of its own: loads, then computes only what it is asked for on its standard input.

Started by side_by_side.py with the path of a JSON file. Commands, one a line: `warm N`, `round N`. Each answer is one
JSON line. What libraries print goes to standard error.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import workloads
from competitors import Competitor

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays
from bertkit.model.config import Head, ModelConfig

RATE = 1e-5  # any: the time of an update does not depend on it
PEAK_SECONDS = 0.5


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    _die_with_parent()
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    one = Competitor(**task["competitor"])

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    if one.engine == "peak":
        for _ in sys.stdin:
            answer(flops=peak(task["threads"]))
        return
    try:
        features, rounds = workloads.read(Path(task["workload"]))
        step, notes = build(one, task, features, rounds[0])
    except (UserError, ImportError) as error:
        answer(skipped=f"{type(error).__name__}: {error}")
        return
    answer(notes=notes)
    trimmed = False
    for line in sys.stdin:
        command, number = line.split()
        chosen = rounds[0 if command == "warm" else int(number)]
        batches = list(chosen.grouped if one.grouped else chosen.random)
        if command == "warm":  # begins with the same examples for all, whose results are kept and compared
            batches = [chosen.grouped[0], *batches[1 : int(number)]]
        untimed = cpu_seconds()
        if trimmed:  # the memory is fetched anew outside the measurement
            step(batches[0])
        before = time.perf_counter(), cpu_seconds()
        results = [step(batch) for batch in batches]
        wall, cpu = time.perf_counter() - before[0], cpu_seconds() - before[1]
        if command == "warm":
            np.save(Path(task["work"]) / f"{one.name}.npy", results[0])
        losses = [float(result) for result in results if result.ndim == 0]
        largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        trimmed = give_back_memory()
        answer(wall=wall, cpu=cpu, cpu_in_all=cpu_seconds() - untimed, steps=len(batches), losses=losses,
               peak_rss_mib=largest, trimmed=trimmed)  # fmt: skip


def build(one: Competitor, task: dict[str, Any], features: workloads.Features, warm: workloads.Round) -> Any:
    """(the step to be timed, notes for the record)."""
    config, head = ModelConfig(**task["config"]), Head(**task["head"])
    weights, _ = read_arrays(Path(task["weights"]))
    threads, training = task["threads"], task["mode"] == "train"
    if one.engine == "bertkit":
        import ours

        made, notes = ours.engine(one, config, head, weights, threads, features, warm.grouped)
        return (ours.trainer(made, features, RATE) if training else ours.predictor(made, features)), notes
    if one.engine == "onnxruntime":
        import runtimes

        return runtimes.onnxruntime(one, Path(task["onnx"]), config, head, features, threads)
    if one.engine == "openvino":
        import runtimes

        return runtimes.openvino(one, Path(task["onnx"]), head, features, threads, warm.grouped)
    return _hugging_face(one, task, features, config, head, weights)


def _hugging_face(one: Competitor, task: dict[str, Any], features: Any, config: Any, head: Any, weights: Any) -> Any:
    import hugging_face
    import torch

    torch.set_num_threads(task["threads"])
    network = hugging_face.model(one, config, head, weights)
    length, bf16 = task["limit"] if one.padding == "full" else 0, one.precision == "bf16"
    notes = {"attention": one.attention, "padding": one.padding, "torch": torch.__version__}
    if task["mode"] == "train":
        return hugging_face.trainer(network, features, length, bf16, RATE), notes
    return hugging_face.predictor(network, features, length, bf16), notes


def peak(threads: int) -> dict[str, float]:
    """FLOP/s of the best product of 2048 x 2048 matrices in half a second, for each precision."""
    import torch

    torch.set_num_threads(threads)
    best = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.ones(2048, 2048, dtype=dtype) for _ in range(2))
        seconds, until = float("inf"), time.perf_counter() + PEAK_SECONDS
        while time.perf_counter() < until:
            start = time.perf_counter()
            torch.matmul(a, b)
            seconds = min(seconds, time.perf_counter() - start)
        best[name] = 2 * 2048**3 / seconds
    return best


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def give_back_memory() -> bool:
    """Where less than half is left, give freed memory back, so that all find room; whether that was done."""
    try:
        table = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        left = int(table["MemAvailable"].split()[0]) / int(table["MemTotal"].split()[0])
    except (OSError, ValueError, KeyError):
        return False
    return left < 0.5 and bool(ctypes.CDLL(None).malloc_trim(0))


def _die_with_parent() -> None:
    """A stopped process would otherwise outlive a harness that was killed (Linux's prctl)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    main()
