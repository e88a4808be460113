"""A run that is killed at random moments and resumed, against one that never was.

`python tests/killed.py 20` does so to each stage of a distillation, on a task's rows and on shards, by processes that
are forked once everything is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from bertkit.files.disk import read_arrays
from command import record, settings, start, tensors, updates

EARLY, LATE = 0.3, 1.5  # of the seconds that the whole run took, between which half of the kills come
SOON = 0.3  # seconds after an update at the most, within which the others come


class Process(Protocol):
    """What is used of `subprocess.Popen`."""

    @property
    def returncode(self) -> int | None: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Forked:
    """The command in a fork of this process, which has imported what it needs."""

    def __init__(self, folder: Path, words: Sequence[str | Path]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:  # the child; nothing of the parent's is run at its end
            os.chdir(folder)
            os.environ["BERTKIT_CACHE"] = str(folder / "cache")
            with (folder / "said.txt").open("w") as said:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
            sys.argv = ["bertkit", *map(str, words)]
            from bertkit.cli.main import main

            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout if timeout is not None else 1e6)
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("bertkit", timeout or 0)
            time.sleep(0.002)
        return code

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)


def started(folder: Path, words: Sequence[str | Path]) -> Process:
    return start(folder, *words)


def same_run(one: Path, other: Path) -> None:
    """Both learned the same updates, to the last bit of the optimizer's state."""
    first, second = record(one), record(other)
    for key in ("losses", "metrics", "updates"):
        assert first[key] == second[key], key
    states = [read_arrays(tensors(folder, first["updates"]))[0] for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name
    assert updates(one) == updates(other) == list(range(1, first["updates"] + 1))


def killed(
    folder: Path,
    words: Sequence[str | Path],
    output: str,
    whole: Path,
    seconds: float,
    kills: int,
    begin: Callable[[Path, Sequence[str | Path]], Process] = started,
) -> int:
    """Kill the command at so many random moments, each time resuming; whenever it gets to its end, it is compared with
    `whole`, which took so many seconds, and begins anew. Returns how often it got there."""
    moments, done, ends = random.Random(kills), 0, 0  # noqa: S311 - no secret
    began = time.monotonic()
    while done < kills:
        process = begin(folder, (*words, "-o", output, "--resume"))
        before, wait = len(updates(folder / output)), seconds * moments.uniform(EARLY, LATE)
        if moments.random() < 0.5:
            while len(updates(folder / output)) == before and process.poll() is None:
                time.sleep(0.005)
            wait = moments.uniform(0, SOON)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(wait)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            done += process.wait() == -signal.SIGKILL
        if process.returncode != -signal.SIGKILL:
            assert process.returncode == 0
            same_run(folder / output, whole)
            shutil.rmtree(folder / output)
            shutil.rmtree(folder / "cache", ignore_errors=True)  # so that the teacher is asked again
            ends += 1
        assert time.monotonic() - began < 120 + 60 * kills, "it never ends"
    assert begin(folder, (*words, "-o", output, "--resume")).wait() == 0
    same_run(folder / output, whole)
    return ends + 1


def _stages(folder: Path) -> dict[str, tuple[str | Path, ...]]:
    """Each stage's command, without its output; what they start from is made here."""
    from bertkit.data.tasks.sample import write_sample
    from pretraining_runs import write_phases

    for name in ("data", "rows"):
        (folder / name).mkdir()
    write_phases(folder / "data")
    write_sample(folder / "rows")
    common = ("-d", "fp32", "--backend", "cpu", "-b", "8", *settings(device__threads=1, checkpoint__every=2))
    rows = ("-t", "sample", "--data-dir", "rows", "-s", "48", *settings(data__train_rows=64, data__eval_rows=32))
    shards = ("-t", "pretrain", "--data-dir", "data", "-s", "32", *settings(train__steps=12))
    for output, of in (("taught", rows), ("general", shards)):
        assert Forked(folder, ("train", "-m", "tiny", *common, *of, "-o", output)).wait() == 0
    words = settings(distill__hard=2, distill__soft=5, distill__cosine=1)
    made: dict[str, tuple[str | Path, ...]] = {}
    for stage in ("relations", "logits"):
        made[f"rows-{stage}"] = ("distill", "taught", "--layers", "1", *common, *rows, "-e", "2", "--stages", stage)
        made[f"shards-{stage}"] = ("distill", "general", "--layers", "1", *common, *shards, *words, "--stages", stage)
    return made


def _main(kills: int) -> None:
    import bertkit_cpu.device  # noqa: F401

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, words in _stages(folder).items():
            began = time.monotonic()
            assert Forked(folder, (*words, "-o", f"{name}-whole")).wait() == 0
            took = time.monotonic() - began
            shutil.rmtree(folder / "cache", ignore_errors=True)
            ends = killed(folder, words, name, folder / f"{name}-whole", took, kills, Forked)
            told = {"stage": name, "kills": kills, "runs compared": ends}
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
