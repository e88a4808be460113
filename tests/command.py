"""What tests of the command share beside conftest's fixtures: starting it, watching it, reading what it left."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bertkit.files.disk import read_arrays
from bertkit.records.files import load
from conftest import command_env

COMMAND = ("-m", "bertkit")  # what the interpreter is to run
NULL = ("train", "--backend", "null", "-t", "sample", "-m", "tiny", "-s", "32", "-d", "fp32")
CPU = ("train", "--backend", "cpu", "-t", "sample", "-m", "tiny", "-s", "48", "-d", "fp32")


def settings(**values: object) -> list[str]:
    """`settings(data__train_rows=64)` -> `--set data.train_rows=64`."""
    return [word for key, value in values.items() for word in ("--set", f"{key.replace('__', '.')}={value}")]


def start(
    folder: Path,
    *arguments: str | Path,
    limit: Callable[[], None] | None = None,
    program: Sequence[str | Path] = COMMAND,
) -> subprocess.Popen[str]:
    """Start the command in `folder` and go on; `limit` is called in the child first. `program`: what stands for it."""
    return subprocess.Popen(
        [sys.executable, *map(str, (*program, *arguments))],
        cwd=folder,
        env=command_env(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limit,
    )


def run(
    folder: Path, *arguments: str | Path, limit: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` to its end."""
    with start(folder, *arguments, limit=limit) as process:
        try:
            stdout, stderr = process.communicate(timeout=240)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def made_model(folder: Path, sample_dir: Path) -> Path:
    """A model's folder in `folder`: what a short run leaves there, without its record."""
    rows = settings(data__train_rows=32, data__eval_rows=8, train__steps=1)
    done = run(folder, *NULL, *rows, "--data-dir", sample_dir, "-o", "run")
    assert done.returncode == 0, done.stderr
    target = folder / "model"
    target.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / "run" / name, target)
    return target


def _own_ports() -> Iterator[int]:
    """Ports that no other worker of this test run tries, below those that the system deals out itself."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))  # another run may test beside this one
    first = 10_000 + 500 * ((zlib.crc32(run.encode()) + worker) % 44)
    yield from itertools.cycle(range(first, first + 500))


PORTS = _own_ports()


def free_port() -> int:
    """A port that is not taken now, and that no parallel test will be given."""
    for port in PORTS:
        with socket.socket() as listener:
            try:
                listener.bind(("", port))
            except OSError:
                continue
            return port
    raise AssertionError("never ends")


def start_ranks(
    folder: Path, size: int, arguments: list[str], program: Sequence[str | Path] = COMMAND
) -> list[subprocess.CompletedProcess[str]]:
    port = str(free_port())
    processes = []
    for rank in range(size):
        env = command_env(folder) | {
            "RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
        }  # fmt: skip
        command = [sys.executable, *map(str, program), *arguments]
        processes.append(
            subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    done = []
    for process in processes:
        out, err = process.communicate(timeout=180)
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Until `condition` holds, while the process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def events(run_folder: Path) -> list[dict[str, Any]]:
    """Every line of the log; a last line that is still being written is left out."""
    path = run_folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else [""]
    return [json.loads(line) for line in lines[:-1]]


def updates(run_folder: Path) -> list[int]:
    """The steps that the log tells of."""
    return [event["step"] for event in events(run_folder) if event["event"] == "update"]


def record(run_folder: Path) -> dict[str, Any]:
    """What the run's record says; it fits the schema and nobody edited it."""
    found = load(run_folder)
    assert not found.edited
    return dict(found.mapping)


def weights(run_folder: Path) -> bytes:
    return (run_folder / "model.safetensors").read_bytes()


def checkpoints(run_folder: Path) -> list[int]:
    """Steps of which there is a checkpoint, ascending."""
    return sorted(int(path.stem.removeprefix("step-")) for path in (run_folder / "checkpoints").glob("step-*.json"))


def tensors(run_folder: Path, step: int) -> Path:
    """The large file of a checkpoint."""
    return run_folder / "checkpoints" / f"step-{step:08d}.safetensors"


def remove_checkpoint(run_folder: Path, step: int) -> None:
    tensors(run_folder, step).with_suffix(".json").unlink()
    tensors(run_folder, step).unlink()


def same_result(one: Path, other: Path) -> None:
    """Two runs left the same: weights, state after the last update, losses, evaluations, answers."""
    assert weights(one) == weights(other)
    first, second = record(one), record(other)
    for key in ("losses", "metrics", "best", "updates"):
        assert first[key] == second[key], key
    scores = [[(entry["step"], entry["metrics"]) for entry in made["evaluations"]] for made in (first, second)]
    assert scores[0] == scores[1]
    last = first["updates"]
    states = [read_arrays(tensors(folder, last))[0] for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name
    answers = [(folder / "predictions" / "sample-dev.tsv").read_text() for folder in (one, other)]
    assert answers[0] == answers[1]
    for folder in (one, other):
        assert updates(folder) == list(range(1, last + 1))
