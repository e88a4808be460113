"""What tests of `--profile` share: reading a Chrome trace, and the three commands that write one."""

from __future__ import annotations

import json
from pathlib import Path

from command import settings
from conftest import Run


def spans(path: Path) -> list[str]:
    """The names of what took a while in a Chrome trace whose times make sense, one for each time."""
    found = [event for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"] if event.get("ph") == "X"]
    assert found
    assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in found)
    return [event["name"] for event in found]


def profiled(bertkit: Run, folder: Path, sample_dir: Path, backend: str) -> dict[str, list[str]]:
    """What is in the traces of a training, of an evaluation of its run and of a bench: two updates, batches, calls."""
    words = ("--backend", backend, "-d", "fp32", *settings(device__threads=1))
    some = settings(train__steps=4, data__eval_rows=96)
    train = ("train", *words, "-m", "tiny", "-t", "sample", "-s", "32", "--data-dir", sample_dir, *some)
    lists = ("-m", "tiny", "-b", "2,4", "--lengths", "32", "--steps", "4", "-o", "bench.json")
    says = {
        "updates": (*train, "-o", "run", "--profile", "2-3"),
        "batches": ("evaluate", "run", *words, "-b", "24", *settings(data__eval_rows=96), "--profile", "2-3"),
        "calls": ("bench", "infer", *words, *lists, "--profile", "7-8"),
    }
    for what, command in says.items():
        done = bertkit(*command)
        assert done.returncode == 0, done.stderr
        assert f"{what} {command[-1].replace('-', ' to ')} are in " in done.stderr
        assert "I0000" not in done.stderr
    traces = ("run/trace.json", "run/evaluation-trace.json", "bench.trace-1.json", "bench.trace-2.json")
    return {name: spans(folder / name) for name in traces}
