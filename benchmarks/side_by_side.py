"""bertkit and other ways to run BERT on a CPU, side by side in one run. By hand, never in CI; see README.md.

    python benchmarks/side_by_side.py train --workload mrpc --model base --json mrpc.json
    python benchmarks/side_by_side.py infer --workload squad --model base --batch-size 32
    python benchmarks/side_by_side.py infer --tokens 16 --batch-size 1 --threads 1 --steps 50 --rounds 8

Each competitor is a process with all threads; they take turns (A B C A B C ...), the others stopped. A training step
is forward with dropout, backward, clipping at 1.0 and AdamW; an inference step is a forward pass. Making the padded or
ragged batch is part of a step, reading data is not.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import competitors
import numpy as np
import report
import workloads
from competitors import Competitor
from processes import HERE, Failed, Machine, Worker, stamp

from bertkit.data.features import Features
from bertkit.engine.flops import forward_flops, training_flops
from bertkit.engine.registry import choose
from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_arrays, write_text
from bertkit.model.config import ARCHITECTURES, Head, ModelConfig
from bertkit.model.loading import find_source, starting_weights
from bertkit.model.parameters import initial

PACKAGES = ("bertkit", "torch", "transformers", "numpy", "onnx", "onnxruntime", "openvino", "nncf")


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("train", "infer"))
    parser.add_argument("--workload", choices=tuple(workloads.KINDS), default="mrpc")
    parser.add_argument("--tokens", type=int, help="in every example, instead of the workload's lengths")
    parser.add_argument("--model", default="base", help="a size (random weights) or a model's folder")
    parser.add_argument("--competitors", nargs="+", metavar="NAME", help="in this order; the first is the reference")
    parser.add_argument("--best-attention", choices=("eager", "sdpa"), help="of hf-best and hf-bf16-sorted")
    parser.add_argument("--batch-size", type=int, help="instead of the workload's (32 for MRPC, 8 for SQuAD)")
    parser.add_argument("--steps", type=int, default=4, help="K: batches a round")
    parser.add_argument("--rounds", type=int, default=3, help="R")
    parser.add_argument("--warm-up", type=int, default=2, help="W: steps of each competitor before the first round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--data-dir", type=Path, help="GLUE's folder: MRPC's own pairs instead of seeded lengths")
    parser.add_argument("--vocab", type=Path, help="vocabulary for --data-dir where --model is a size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one competitor's round")
    parser.add_argument("--json", type=Path, help="write everything there")
    chosen = parser.parse_args()
    if chosen.best_attention is None:  # as measured: eager is faster for short rows in training, SDPA otherwise
        chosen.best_attention = "eager" if (chosen.mode, chosen.workload) == ("train", "mrpc") else "sdpa"
    return chosen


def material(o: argparse.Namespace, kind: workloads.Kind) -> tuple[ModelConfig, dict[str, np.ndarray], Features]:
    """Sizes, starting weights and examples."""
    if o.model in ARCHITECTURES:
        config, vocab = ARCHITECTURES[o.model], o.vocab
        weights = initial(config, kind.head, o.seed)
    else:
        source = find_source(o.model)
        config, vocab = source.config, source.vocabulary.path
        weights = dict(starting_weights(source, kind.head, o.seed).weights)
    if o.data_dir is None or o.workload != "mrpc" or o.tokens:
        count = (workloads.MEGABATCH + 1) * kind.batch_size
        return config, weights, workloads.seeded_features(kind, count, config.vocab_size, o.seed)
    if vocab is None:
        raise SystemExit("--data-dir with a size by name needs --vocab")
    return config, weights, workloads.mrpc_features(o.data_dir / "MRPC" / "train.tsv", vocab, kind.lengths.limit)


class Comparison:
    """All that one run holds."""

    def __init__(self, o: argparse.Namespace, work: Path) -> None:
        kind = workloads.KINDS[o.workload]
        self.options, self.work = o, work
        lengths = workloads.same(o.tokens) if o.tokens else kind.lengths
        self.kind = dataclasses.replace(kind, batch_size=o.batch_size or kind.batch_size, lengths=lengths)
        self.config, weights, self.features = material(o, self.kind)
        self.plan = workloads.plan(self.features.lengths, self.kind.batch_size, o.steps, o.rounds, o.seed)
        workloads.write(work / "workload.safetensors", self.features, self.plan)
        write_arrays(work / "weights.safetensors", weights, {})
        names = o.competitors or list(competitors.USUAL[o.mode])
        self.asked = [competitors.find(o.mode, name, o.best_attention) for name in names]
        self.workers: dict[str, Worker] = {}
        self.record: dict[str, Any] = {"notes": {}, "skipped": {}, "warm_up": {}, "rounds": [], "peaks": []}

    def task(self, one: Competitor) -> dict[str, Any]:
        head: Head = self.kind.head
        return {
            "competitor": dataclasses.asdict(one), "mode": self.options.mode, "threads": self.options.threads,
            "work": str(self.work), "workload": str(self.work / "workload.safetensors"),
            "weights": str(self.work / "weights.safetensors"), "onnx": str(self.work / "model.onnx"),
            "config": dataclasses.asdict(self.config), "head": dataclasses.asdict(head),
            "limit": self.kind.lengths.limit,
        }  # fmt: skip

    def start(self, one: Competitor) -> Worker:
        env = competitors.environment(one, self.options.threads, os.environ)
        return Worker(one.name, self.task(one), self.work, env, self.options.timeout)

    def skip(self, name: str, reason: str) -> None:
        stamp(f"{name}: skipped: {reason}")
        self.record["skipped"][name] = reason
        if name in self.workers:
            self.workers.pop(name).end()

    def warm_up(self, one: Competitor) -> None:
        self.workers[one.name] = worker = self.start(one)
        try:
            first = worker.answer()
            if "skipped" in first:
                return self.skip(one.name, first["skipped"])
            self.record["notes"][one.name] = first["notes"]
            self.record["warm_up"][one.name] = warm = worker.ask(f"warm {self.options.warm_up}")
        except Failed as failure:
            return self.skip(one.name, str(failure))
        stamp(f"{one.name}: ready; warm-up {warm['wall'] / warm['steps']:.2f} s/step, {warm['peak_rss_mib']} MiB")

    def round(self, one: Competitor, number: int) -> None:
        machine = Machine()
        try:
            found = self.workers[one.name].ask(f"round {number}")
        except Failed as failure:
            return self.skip(one.name, str(failure))
        batches = self.plan[number].grouped if one.grouped else self.plan[number].random
        lengths = self.features.lengths[batches.ravel()]
        count = training_flops if self.options.mode == "train" else forward_flops
        found |= {"competitor": one.name, "precision": one.precision, "round": number, "sequences": len(lengths),
                  "tokens": int(lengths.sum()), "flops": count(self.config, self.kind.head, lengths),
                  "others_cpu_and_steal": machine.others(found["cpu_in_all"])}  # fmt: skip
        self.record["rounds"].append(found)
        stamp(f"round {number}/{self.options.rounds} {one.name}: {found['wall'] / found['steps']:.3f} s/step")

    def run(self) -> dict[str, Any]:
        if any(one.engine in ("onnxruntime", "openvino") for one in self.asked):
            self.export()
        for one in self.asked:
            self.warm_up(one)
        peak = self.workers["peak"] = self.start(competitors.PEAK)
        for number in range(1, self.options.rounds + 1):
            self.record["peaks"].append(peak.ask("round 0")["flops"])
            for one in self.asked:
                if one.name in self.workers:
                    self.round(one, number)
        return self.finish()

    def export(self) -> None:
        task = self.work / "export.json"
        task.write_text(json.dumps(self.task(competitors.PEAK)), encoding="utf-8")
        stamp("exporting the model to ONNX")
        done = subprocess.run([sys.executable, str(HERE / "runtimes.py"), str(task)], capture_output=True, text=True)
        if done.returncode:
            stamp("the export failed: " + (done.stderr.strip().splitlines() or ["no message"])[-1])

    def finish(self) -> dict[str, Any]:
        o, lengths = self.options, self.features.lengths
        timed = {
            way: length_statistics(lengths[np.concatenate([getattr(one, way).ravel() for one in self.plan[1:]])])
            for way in ("random", "grouped")
        }
        reference = self.asked[0].name
        peaks = {name: max(one[name] for one in self.record["peaks"]) for name in ("fp32", "bf16")}
        truth = "hf-default" if (self.work / "hf-default.npy").exists() else reference
        names = [one.name for one in self.asked]
        return {
            "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(o).items()},
            "command": sys.argv, "when": time.strftime("%Y-%m-%d %H:%M:%S %z"), "versions": versions(),
            "machine": choose("cpu").backend.probe().detail, "threads": o.threads,
            "load_average_at_the_end": os.getloadavg(),
            "model": dataclasses.asdict(self.config), "batch_size": self.kind.batch_size,
            "lengths": {"all": length_statistics(lengths), **timed},
            "competitors": [dataclasses.asdict(one) for one in self.asked], "reference": reference,
            "peak_flops": peaks, "agreement": {"with": truth, **report.agreement(self.work, names, truth)},
            **self.record, "summary": report.summary(self.record["rounds"], reference, peaks),
        }  # fmt: skip

    def end(self) -> None:
        for worker in self.workers.values():
            worker.end()


def length_statistics(lengths: np.ndarray) -> dict[str, float]:
    quantiles = {f"p{q}": float(np.quantile(lengths, q / 100)) for q in (50, 90, 99)}
    return {"count": len(lengths), "mean": float(lengths.mean()), **quantiles, "max": int(lengths.max())}


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def main() -> None:
    o = options()
    if os.getloadavg()[0] > 0.5:
        stamp(f"the machine is not quiet: load average {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            comparison = Comparison(o, Path(folder))
        except UserError as error:
            raise SystemExit(str(error)) from None
        try:
            made = comparison.run()
        finally:
            comparison.end()
    if o.json:
        write_text(o.json, to_json(made, indent=1) + "\n")
    print(report.table(made["summary"], made["reference"]))


if __name__ == "__main__":
    main()
