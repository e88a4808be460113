"""Trainings that `hardware_trials.py` starts, as a user would: `bertkit train` on data made by `hardware_data.py`."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hardware_data import write_shard, write_squad, write_texts, write_vocabulary
from hardware_report import last_line

from bertkit.data.lengths import lengths


class Failed(Exception):
    """The trial found the fault, or something else went wrong: a sentence."""


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How much a trial computes."""

    model: str
    length: int  # tokens of a long sequence
    updates: int
    batch: int
    starts: int
    phases: tuple[tuple[int, int], tuple[int, int]]  # (batch size, tokens) of each
    too_large: tuple[str, int, int]  # model, batch size, tokens: on a device with memory of its own
    on_host: tuple[str, int, int]  # likewise, where the host's memory is cut to `memory`
    memory: int  # bytes


AMOUNTS = {
    "full": Amounts(
        model="base", length=384, updates=24, batch=8, starts=20, phases=((64, 128), (16, 512)),
        too_large=("large", 16384, 512), on_host=("base", 512, 512), memory=8 << 30,
    ),
    "small": Amounts(
        model="tiny", length=96, updates=8, batch=4, starts=2, phases=((8, 32), (2, 128)),
        too_large=("large", 16384, 512), on_host=("tiny", 512, 512), memory=3 << 29,
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What a trial is given."""

    backend: str
    amounts: Amounts
    work: Path
    until: float  # of time.monotonic(): no further start of several after it
    sets: tuple[str, ...] = ()
    dtype: str = "auto"
    on_host: bool = False
    model: str = ""  # of a profile
    batch: int = 0
    result: Path = Path()
    figures: dict[str, Any] = field(default_factory=dict)  # what it measured, filled in on the way

    def train(self, run: str, model: str, *words: str, sets: Sequence[str] = ()) -> list[str]:
        """A training from random weights that writes into the folder `run`."""
        vocabulary = self.work / "vocab.txt"
        if not vocabulary.exists():
            write_vocabulary(self.work)
        given = ("model.start=random", f"model.vocab={vocabulary}", "data.cache=off", "log.every=1", *self.sets, *sets)
        common = ["--backend", self.backend, "-m", model, "-d", self.dtype, "-o", str(self.work / run), "--offline"]
        return [
            *(sys.executable, "-P", "-m", "bertkit", "train", *common, *words),
            *(word for text in given for word in ("--set", text)),
        ]

    def on_texts(self, run: str, model: str, name: str, found: np.ndarray, batch: int, updates: int) -> list[str]:
        """Classification of texts of these lengths (N,)."""
        table, few = self.work / f"{name}.csv", self.work / f"{name}-dev.csv"
        if not table.exists():
            write_texts(table, found)
            write_texts(few, found[:8])
        words = ("--train", str(table), "--dev", str(few), "--text", "text", "--label", "label", "-b", str(batch))
        sets = (f"train.steps={updates}", "evaluation.batch_size=8")
        return self.train(run, model, *words, "-s", str(int(found.max())), sets=sets)


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    said: str  # its standard error, where the command logs

    @property
    def last(self) -> str:
        return last_line(self.said) or f"exit code {self.code}"


def run(words: Sequence[str], before: Callable[[], None] | None = None) -> Done:
    """Run a command; what it wrote is in this process's output too."""
    print("$", shlex.join(words), flush=True)
    made = subprocess.run(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        errors="replace", preexec_fn=before,
    )  # fmt: skip
    print(made.stderr, flush=True)
    return Done(made.returncode, made.stderr)


def must(done: Done, what: str) -> None:
    if done.code:
        raise Failed(f"{what} ended with code {done.code}: {done.last}")


def profiled(trial: Trial, case: str, last: int) -> list[str]:
    """The training of a case, a little longer than to its last profiled update."""
    steps, batch = last + 2, trial.batch
    sets = (f"train.steps={steps}", "evaluation.batch_size=4")
    if case == "mrpc":
        return trial.on_texts("run", trial.model, "mrpc", lengths("mrpc", steps * batch, 1), batch, steps)
    if case == "squad":
        place = write_squad(trial.work / "data", steps * batch)
        words = ("-t", "squad", "--data-dir", str(place), "-b", str(batch), "-s", "384")
        return trial.train("run", trial.model, *words, sets=sets)
    kind, tokens = {"phase1": ("wiki128", 128), "phase2": ("wiki512", 512)}[case]
    write_shard(trial.work / "data", kind, steps * batch, tokens)
    words = ("-t", "pretrain", "--data-dir", str(trial.work / "data"), "-b", str(batch), "-s", str(tokens))
    return trial.train("run", trial.model, *words, sets=sets)
