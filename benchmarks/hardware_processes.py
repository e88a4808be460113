"""One part of `on_hardware.py` as a process: with a limit, and with all that it started ended in the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from hardware_plan import Part
from hardware_report import TRACEBACK, Result, judge

from bertkit.files.processes import children, die_with_parent

GRACE = 3.0  # seconds to end after SIGTERM, before SIGKILL
STUCK = 10.0  # seconds after SIGKILL; a process in a driver that hangs does not end, and is left
SHOWN = 200_000  # characters of a log's end that are looked at


def run_part(part: Part, limit: float, log: Path) -> Result:
    """Run its commands until one is done for the memory of the device. What they print goes to `log`.

    Whatever is raised meanwhile, nothing of it is left.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    part.result.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    for number, command in enumerate(part.commands, 1):
        part.result.unlink(missing_ok=True)
        code = run_process(command, start + limit - time.monotonic(), log)
        seconds = time.monotonic() - start
        common = {"name": part.name, "kind": part.kind, "seconds": seconds, "command": command}
        if code is None:
            cut = "its limit" if limit == part.limit else "the time that was left"
            detail = f"not done after {cut} of {limit:.0f} s; ended"
            found = judge(part.kind, 1, _read(part.result), "")[2] if part.result.exists() else {}
            return Result(**common, outcome="timed out", detail=detail, figures=found)
        keep_tracebacks(log)
        outcome, detail, figures = judge(part.kind, code, _read(part.result), _end_of(log))
        if outcome != "does not fit" or number == len(part.commands):
            return Result(**common, outcome=outcome, detail=detail, figures=figures)
    raise AssertionError("a part has a command")


def keep_tracebacks(log: Path) -> None:
    """Move the files of tracebacks that a log names beside it, to be sent with it."""
    for number, path in enumerate(dict.fromkeys(TRACEBACK.findall(_end_of(log))), 1):
        with contextlib.suppress(OSError):
            shutil.move(path, log.with_name(f"{log.stem}.traceback-{number}.txt"))


def run_process(command: Sequence[str], limit: float, log: Path) -> int | None:
    """Its exit code; None where its time was over.

    In the end its processes are gone, those that left its session too, where this process adopts orphans.
    """
    others = set(children(os.getpid()))
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            preexec_fn=die_with_parent,
        )  # fmt: skip
    try:
        return process.wait(max(0.1, limit))
    except subprocess.TimeoutExpired:
        return None
    finally:
        end_tree(process, others)


def end_tree(process: subprocess.Popen[bytes], others: Collection[int]) -> None:
    """End the process, all below it, and what became this process's child since its own parent had ended.

    `others`: children of this process that stay.
    """
    below = family(process.pid) if process.poll() is None else []
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    _signal_group(process.pid, signal.SIGKILL)
    for pid in below:
        _kill(pid)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STUCK)
    until = time.monotonic() + STUCK
    stay = {*others, process.pid}
    while (orphans := [pid for pid in children(os.getpid()) if pid not in stay]) and time.monotonic() < until:
        for pid in orphans:
            for each in (*family(pid), pid):
                _kill(each)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.02)


def family(pid: int) -> list[int]:
    """All processes below one."""
    own = children(pid)
    return [*own, *(further for each in own for further in family(each))]


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _read(path: Path) -> dict[str, Any] | None:
    """The JSON file; None where there is none, or none that is whole."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _end_of(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - SHOWN))
        return file.read().decode("utf-8", "replace")
