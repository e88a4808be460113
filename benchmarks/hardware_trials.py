"""What once failed on accelerators, tried: one trial, or one profile, a call. `on_hardware.py` calls it.

    python benchmarks/hardware_trials.py trial.resume --backend cpu --size small --work /tmp/work -o resume.json

Every trial starts `bertkit train` as a user would, on data of its own. The file says `outcome` (passed or failed),
`detail` in a sentence, and `figures`. Exit code 1: failed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hardware_data import write_shard
from hardware_trainings import AMOUNTS, Failed, Trial, must, profiled, run
from safetensors.numpy import load_file

from bertkit.data.lengths import lengths
from bertkit.records.event_log import read_log

WITHIN = 1.1  # two phases may need so many times what the hungrier one needs alone
GAVE_UP = ("recompile_limit", "cache_size_limit")  # torch's compiler says so and goes on without
ADJUST = "/proc/self/oom_score_adj"
WORST = "1000"  # where the host is short of memory, the trial's own process goes first
UPDATES = {"full": "14-16", "small": "3-4"}  # updates


# ---- trials ----


def recompiles(trial: Trial, sizes: int) -> str:
    """A training of batches of many lengths, scored twice, in so many sizes: all programs are made in the warm-up."""
    amounts = trial.amounts
    updates = 2 * max(4, amounts.updates)
    words = trial.on_texts("run", "tiny", "mrpc", lengths("mrpc", 32 * updates, 1), 32, updates)
    sets = (f"device.shapes={sizes}", f"evaluation.every={updates // 2}")
    done = run([*words, *(word for text in sets for word in ("--set", text))])
    must(done, "the training")
    found = programs(list(read_log(trial.work / "run" / "log.jsonl")))
    late = done.said.count("a batch of new sizes")
    trial.figures.update({"sizes": sizes, "updates": updates, "late_sizes": late, **found})
    if any(words in done.said for words in GAVE_UP):
        raise Failed("torch's compiler met its limit and went on without: some sizes run uncompiled")
    if found["later"] or late:
        raise Failed(f"{found['later']} programs were compiled after the warm-up, {late} batches of new sizes")
    if not found["warm_up"]:
        return f"no program was counted in {updates} updates: this device compiles none, or does not tell"
    return f"{found['warm_up']} programs in the warm-up, none in {updates} updates and two evaluations after it"


def programs(events: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Programs of the first update and the first evaluation, and those that were compiled later."""
    found = [event for event in events if event["event"] == "programs"]
    scored = next((event["step"] for event in events if event["event"] == "evaluation"), 0)
    first = {"training": 1, "evaluation": scored}
    early = sum(event["compiled"] for event in found if event["step"] == first[event["during"]])
    return {"warm_up": early, "later": sum(event["compiled"] for event in found) - early}


def starts(trial: Trial) -> str:
    """A small training, started again and again: a capture must not break on what other threads do."""
    failures, started, spent = [], 0, []
    for number in range(trial.amounts.starts):
        if time.monotonic() > trial.until:
            break
        begun = time.monotonic()
        words = trial.on_texts("run", "tiny", "mrpc", lengths("mrpc", 128, 1), 8, 4)
        done = run([*words, "--overwrite", "--set", f"seed={number + 1}"])
        started += 1
        spent.append(time.monotonic() - begun)
        if done.code:
            failures.append(done.last)
    trial.figures.update({"starts": started, "failures": failures, "seconds": [round(one, 2) for one in spent]})
    if failures:
        raise Failed(f"{len(failures)} of {started} starts failed, the first with: {failures[0]}")
    if not started:
        raise Failed("no time was left for a start")
    short = "" if started == trial.amounts.starts else f" (of {trial.amounts.starts}: the time was over)"
    return f"{started} starts{short}, none failed; {float(np.median(spent)):.1f} s each"


def memory(trial: Trial) -> str:
    """Pre-training in two phases needs no more than the hungrier of them alone."""
    (batch, tokens), (batch2, tokens2) = trial.amounts.phases
    write_shard(trial.work / "data" / "phase1", "wiki128", 6 * batch, tokens)
    write_shard(trial.work / "data" / "phase2", "wiki512", 6 * batch2, tokens2)
    peaks: dict[str, int] = {}
    for phases in ("1", "2", "1,2"):
        sets = (
            "optimizer.name=lamb", "train.steps=4", "phase2.steps=4", f"phase2.batch_size={batch2}",
            f"phase2.seq_length={tokens2}", "evaluation.batch_size=4",
        )  # fmt: skip
        words = ("-t", "pretrain", "--data-dir", str(trial.work / "data"), "--phases", phases, "-b", str(batch))
        name = f"phases-{phases.replace(',', '-')}"
        must(run(trial.train(name, trial.amounts.model, *words, "-s", str(tokens), sets=sets)), f"phases {phases}")
        peak = json.loads((trial.work / name / "record.json").read_text())["memory"]["peak_bytes_per_device"]
        shutil.rmtree(trial.work / name)
        if peak is None:
            return "this device does not tell its memory"
        peaks[phases] = peak
    trial.figures.update({"peak_bytes": peaks})
    alone = max(peaks["1"], peaks["2"])
    text = ", ".join(f"phases {name}: {peak / 2**20:,.0f} MiB" for name, peak in peaks.items())
    if peaks["1,2"] > WITHIN * alone:
        raise Failed(f"two phases need {peaks['1,2'] / alone:.2f} times the memory of the hungrier one; {text}")
    return text


def resume(trial: Trial) -> str:
    """A training killed after a checkpoint and resumed has bit for bit the weights of one that was not."""
    amounts = trial.amounts
    found = np.full(amounts.batch * 8, amounts.length)
    every = max(2, amounts.updates // 4)

    def words(name: str) -> list[str]:
        made = trial.on_texts(name, amounts.model, "long", found, amounts.batch, amounts.updates)
        return [*made, "--set", f"checkpoint.every={every}", "--set", "checkpoint.keep=1"]

    must(run(words("whole")), "the whole training")
    killed_after = kill_after_checkpoint(words("killed"), trial.work / "killed" / "log.jsonl")
    must(run([*words("killed"), "--resume"]), "the resumed training")
    weights = [load_file(trial.work / name / "model.safetensors") for name in ("whole", "killed")]
    records = [json.loads((trial.work / name / "record.json").read_text()) for name in ("whole", "killed")]
    gap = max(float(np.abs(weights[0][name] - weights[1][name]).max(initial=0.0)) for name in weights[0])
    precision = records[0]["precision"]["name"]
    kernels = [record["hardware"]["engine"].get("attention", "") for record in records]
    trial.figures.update({"largest_difference": gap, "killed_after": killed_after, "precision": precision})
    if gap != 0.0:
        other = f"; attention was {kernels[0]}, then {kernels[1]}" if kernels[0] != kernels[1] else ""
        raise Failed(f"the weights differ by up to {gap:.2e} after {amounts.updates} updates in {precision}{other}")
    where = f"{amounts.updates} updates of {amounts.length} tokens in {precision}"
    return f"{where}: killed after update {killed_after} and resumed, the same weights bit for bit"


def kill_after_checkpoint(words: Sequence[str], log: Path) -> int:
    """Start a training and kill it at its first checkpoint; the update that this was after."""
    print("$", shlex.join(words), flush=True)
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            events = list(read_log(log)) if log.exists() else []
            saved = [event["step"] for event in events if event["event"] == "checkpoint"]
            if saved:
                process.send_signal(signal.SIGKILL)
                if process.wait() != -signal.SIGKILL:
                    break
                return int(saved[-1])
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    raise Failed(f"the training that was to be killed ended by itself with code {process.returncode}")


def too_large(trial: Trial) -> str:
    """A batch that no device holds: one line that says so, and exit code 2."""
    amounts = trial.amounts
    model, batch, tokens = amounts.on_host if trial.on_host else amounts.too_large
    found = np.full(batch if trial.on_host else 64, tokens)
    words = trial.on_texts("run", model, "long", found, batch, 1)

    def before() -> None:
        if trial.on_host:
            resource.setrlimit(resource.RLIMIT_DATA, (amounts.memory, amounts.memory))
        if os.path.exists(ADJUST):
            Path(ADJUST).write_text(WORST, encoding="ascii")

    done = run(words, before)
    trial.figures.update({"exit_code": done.code, "batch": batch, "tokens": tokens, "last_line": done.last})
    if done.code == 0:
        raise Failed(f"{batch} sequences of {tokens} tokens fitted, which no device was thought to hold")
    if done.code != 2 or "Traceback" in done.said or not done.last.startswith("bertkit: "):
        how = " after a traceback" if "Traceback" in done.said else ""
        raise Failed(f"exit code {done.code}, not 2{how}; the last line: {done.last}")
    return done.last


# ---- profiles ----


def profile(trial: Trial, case: str, updates: str) -> str:
    """Updates of a training like the case of speed, as a Chrome trace; the training is ended once they are written."""
    trace, kept = trial.work / "run" / "trace.json", trial.result.with_suffix(".trace.json.gz")
    words = [*profiled(trial, case, int(updates.partition("-")[2])), "--profile", updates]
    print("$", shlex.join(words), flush=True)
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    written, last = False, ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        last = line.strip() or last
        if line.startswith("profile: "):
            written = True
            process.kill()  # its checkpoint of gigabytes is of no use
            break
    process.wait()
    if not written or not trace.exists():
        raise Failed(f"no trace was written: exit code {process.returncode}, {last}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with trace.open("rb") as source, gzip.open(kept, "wb", compresslevel=6) as target:
        shutil.copyfileobj(source, target)
    trial.figures.update({"trace": kept.name, "bytes": kept.stat().st_size})
    return f"updates {updates} in {kept.name}, for chrome://tracing or Perfetto"


# ---- the command ----


def carry_out(name: str, trial: Trial, size: str) -> str:
    kind, _, what = name.partition(".")
    if kind == "profile":
        return profile(trial, what, UPDATES[size])
    what, _, sizes = what.partition("-")
    if what == "recompiles":
        return recompiles(trial, int(sizes))
    known: Mapping[str, Callable[[Trial], str]] = {
        "starts": starts, "memory": memory, "resume": resume, "too_large": too_large
    }  # fmt: skip
    return known[what](trial)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Try one thing that once failed on accelerators.")
    parser.add_argument("name", help="Trial or profile, as on_hardware.py --dry-run lists them.")
    parser.add_argument("--backend", required=True)
    parser.add_argument("--size", choices=sorted(AMOUNTS), default="full")
    parser.add_argument("--work", type=Path, required=True, help="Folder for data and runs.")
    parser.add_argument("-o", dest="result", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--limit", type=float, default=300.0, help="Seconds that it may take.")
    parser.add_argument("--set", dest="sets", action="append", default=[], help="Settings of the trainings.")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--host", action="store_true", help="The device's memory is the host's.")
    parser.add_argument("--model", default="")
    parser.add_argument("--batch", type=int, default=0)
    asked = parser.parse_args(words)
    asked.work.mkdir(parents=True, exist_ok=True)
    trial = Trial(
        backend=asked.backend, amounts=AMOUNTS[asked.size], work=asked.work, dtype=asked.dtype, on_host=asked.host,
        until=time.monotonic() + 0.75 * asked.limit, sets=tuple(asked.sets), model=asked.model, batch=asked.batch,
        result=asked.result.resolve(),
    )  # fmt: skip
    try:
        outcome, detail = "passed", carry_out(asked.name, trial, asked.size)
    except Failed as error:
        outcome, detail = "failed", str(error)
    made = {"name": asked.name, "outcome": outcome, "detail": detail, "figures": trial.figures}
    asked.result.parent.mkdir(parents=True, exist_ok=True)
    asked.result.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"{asked.name}: {outcome}: {detail}")
    return 0 if outcome == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
