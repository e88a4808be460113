"""A suite's cells, one process each: what is measured already is left, what hangs is ended, what does not fit is noted.

A cell's file appears when the cell is done, so whatever ends the suite, the next call goes on with the cells that lack
theirs.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from bertkit.bench.suite import DOES_NOT_FIT, Cell
from bertkit.distributed.world import World
from bertkit.errors import OUT_OF_MEMORY, UserError
from bertkit.files.disk import write_json, write_text
from bertkit.files.inputs import exists, is_folder, mapping_value, read_object
from bertkit.files.locks import NAME as LOCK
from bertkit.files.processes import die_with_parent
from bertkit.launch.children import module_command
from bertkit.records import collect as record
from bertkit.records.files import INDEX, load, load_all, write
from bertkit.records.schema import Status, blank

SCHEMA = 1  # of the index
GRACE_S = 5.0  # to end after SIGTERM, before SIGKILL
KEPT_LINES = 20  # of what a failed cell said
OTHER_FOLDER = "remove the folder, or choose another with -o"
AGAIN = ("failed",)  # what a later call tries once more: it may have been the machine's fault


@dataclass(frozen=True)
class How:
    """What all cells of a suite share."""

    backend: str
    processes: int = 1
    steps: int = 0
    seconds: float = 20.0
    timeout: float = 1800.0  # seconds that a cell may take in all
    seed: int = 1
    sets: tuple[str, ...] = ()

    def compared(self) -> dict[str, Any]:
        """What must be the same for two cells to stand in one table."""
        amount: dict[str, Any] = {"steps": self.steps} if self.steps else {"seconds": self.seconds}
        return {"backend": self.backend, "processes": self.processes, **amount, "seed": self.seed, "sets": [*self.sets]}


@dataclass(frozen=True)
class CellOutcome:
    """How a cell ended."""

    cell: Cell
    status: Status
    reason: str = ""  # of another status than measured
    record: Mapping[str, Any] | None = None  # as it stands in the cell's file


def command(cell: Cell, how: How, record: Path) -> list[str]:
    """The words that measure a cell and leave its record."""
    words = [*cell.words(), "--backend", how.backend, "-o", str(record), "--overwrite", "--seed", str(how.seed)]
    words += ["--steps", str(how.steps)] if how.steps else ["--seconds", str(how.seconds)]
    words += [word for text in how.sets for word in ("--set", text)]
    many = ["launch", "-n", str(how.processes), "--"] if how.processes > 1 else []
    return [*module_command(sys.executable, "bertkit", *many, *words)]


def open_suite(folder: Path, name: str, how: How) -> None:
    """Make the folder, or take it up again. Raises UserError where it holds cells measured in another way."""
    index = folder / INDEX
    mine = {"schema": SCHEMA, "suite": name, "how": how.compared()}
    if exists(index):
        theirs, ours = read_object(index, OTHER_FOLDER).get("how") or {}, how.compared()
        theirs = mapping_value(theirs, f"{index}: how", OTHER_FOLDER)
        differs = [key for key in (*ours, *(theirs.keys() - ours)) if theirs.get(key) != ours.get(key)]
        if differs:
            both = ", ".join(f"{key} {theirs.get(key)!r}, now {ours.get(key)!r}" for key in differs)
            raise UserError(f"{folder} holds cells measured in another way: {both}", "choose another folder with -o")
    elif exists(folder) and (not is_folder(folder) or any(path.name != LOCK for path in folder.iterdir())):
        raise UserError(f"{folder} holds other files", "choose another folder with -o")
    write_json(index, mine)
    for part in folder.glob(".*.part*"):  # left where a kill came
        part.unlink(missing_ok=True)


def read_outcome(folder: Path, cell: Cell) -> CellOutcome | None:
    """What an earlier call found of the cell; None where nothing, or only that it failed for another reason."""
    path = folder / f"{cell.name}.json"
    if not exists(path):
        return None
    cure = "remove it; its cell is then measured again"
    try:
        found = load(path)
    except UserError as error:
        raise UserError(error.cause, cure) from None
    if found.edited:
        raise UserError(f"{path}: was changed since it was written, by hand or by damage", cure)
    made = found.mapping
    outcome = CellOutcome(cell, made["status"], made["reason"] or "", made)
    return None if outcome.status in AGAIN else outcome


def measure(folder: Path, cell: Cell, how: How) -> CellOutcome:
    """Run the cell's process, keep its record, say how it ended. The record is there when this is over."""
    part = folder / f".{cell.name}.part.json"
    part.unlink(missing_ok=True)
    log = folder / f"{cell.name}.log"
    log.unlink(missing_ok=True)
    words = command(cell, how, part)
    code, said = _run(words, how.timeout)
    found = load_all(part) if part.exists() else []
    left = found[0].mapping if found else None
    status, reason = judge(code, said, left, how.timeout)
    if status != "measured":
        write_text(log, "\n".join(said.splitlines()[-KEPT_LINES:]) + "\n")
    ended = {"status": status, "reason": reason or None}
    made = write(folder / f"{cell.name}.json", {**(left or _bare(cell, how, words)), **ended})
    part.unlink(missing_ok=True)
    return CellOutcome(cell, status, reason, made)


def _bare(cell: Cell, how: How, words: Sequence[str]) -> dict[str, Any]:
    """The record of a cell whose process left none."""
    made = blank("bench") | record.environment(World())
    made["hardware"]["processes"] = made["hardware"]["device"]["count"] = how.processes
    made["fairness"] |= {"measures": cell.kind, "global_batch": cell.batch * how.processes}
    made["model"]["name"] = cell.model
    return made | {
        "command": shlex.join(["bertkit", *words[len(module_command(sys.executable, "bertkit")) :]]),
        "config": {"cut_to": cell.cut},
        "backend": {"name": how.backend, "reason": None},
        "precision": {"name": cell.precision, "reason": None},
        "case": {"model": cell.model, "lengths": cell.lengths, "batch_size": cell.batch, "loss": None},
    }


def judge(code: int | None, said: str, left: Mapping[str, Any] | None, timeout: float) -> tuple[Status, str]:
    """(status, reason) from a cell's exit code (None: ended for its time), its words and the record that it left."""
    if code is None:
        return "timed out", f"not done after {timeout:g} s"
    if code == 0 and left and left["status"] == "measured":
        return "measured", ""
    if left and left["status"] == DOES_NOT_FIT:
        return DOES_NOT_FIT, left["reason"]
    last = next((line for line in reversed(said.splitlines()) if line.strip()), "")
    if any(words in said.lower() for words in OUT_OF_MEMORY):
        return DOES_NOT_FIT, last
    if code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return DOES_NOT_FIT, "killed by the system, as it does where memory is short"
    return "failed", last or f"exit code {code}"


def _run(words: Sequence[str], timeout: float) -> tuple[int | None, str]:
    """(exit code, or None where the time was over; what it said). Whatever happens, nothing of it is left."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True, preexec_fn=partial(die_with_parent, os.getpid()),
    )  # fmt: skip
    try:
        _, said = process.communicate(timeout=timeout)
        return process.returncode, said
    except subprocess.TimeoutExpired:
        return None, _end(process)
    finally:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[str]) -> str:
    """End the process and all that it started; what it had said."""
    for number, wait in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=wait)[1] or ""
    return ""


class _Terminated(UserError):
    """SIGTERM, or what a batch system sends: the cell under way is ended, those that are done stay."""

    exit_code = 143


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """As Ctrl-C does by itself, so that the cell under way is ended with the suite."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Terminated("stopped", "the same command goes on where it was")

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGALRM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_cells(
    folder: Path, wanted: Sequence[Cell], how: How, tell: Callable[[int, CellOutcome, bool], None]
) -> list[CellOutcome]:
    """All cells' outcomes in order. `tell`: called with (number, outcome, whether it was there already)."""
    outcomes = []
    with _sigterm_raises():
        for number, cell in enumerate(wanted, 1):
            before = read_outcome(folder, cell)
            outcome = before or measure(folder, cell, how)
            tell(number, outcome, before is not None)
            outcomes.append(outcome)
    return outcomes
