"""The competitors' processes: started one after the other, stopped (SIGSTOP) whenever it is not their turn.

A stopped process neither spins nor wakes, so each competitor keeps its libraries' own thread policies.
"""

from __future__ import annotations

import json
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


class Failed(Exception):
    """The worker gave no answer: it ended, or its time was over."""


class Worker:
    def __init__(self, name: str, task: Mapping[str, Any], folder: Path, env: Mapping[str, str], seconds: float):
        file = folder / f"{name}.json"
        file.write_text(json.dumps(task), encoding="utf-8")
        self.name, self.seconds = name, seconds
        with (folder / f"{name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py"), str(file)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=dict(env), text=True,
            )  # fmt: skip
        self.log = folder / f"{name}.log"

    def ask(self, command: str) -> dict[str, Any]:
        """The answer to one command, alone on the machine as far as the competitors go. Raises Failed."""
        assert self.process.stdin is not None  # noqa: S101
        self.process.send_signal(signal.SIGCONT)
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._reason("ended")) from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None  # noqa: S101
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(self.seconds):
                raise Failed(self._reason(f"gave no answer in {self.seconds:.0f} s"))
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise Failed(self._reason(f"ended with code {self.process.returncode}"))
        self.process.send_signal(signal.SIGSTOP)
        found: dict[str, Any] = json.loads(line)
        return found

    def _reason(self, what: str) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"{what}; its last words: {lines[-1] if lines else 'none'}"

    def end(self) -> None:
        self.process.kill()  # ends a stopped process too
        self.process.wait()


class Machine:
    """CPU seconds of the whole machine, to see what others take while a competitor computes (Linux's /proc/stat)."""

    def __init__(self) -> None:
        self.before = self._read()

    def others(self, own: float) -> tuple[float, float] | None:
        """(CPU seconds that others took, seconds stolen by the hypervisor) since this was made; None: not known."""
        now = self._read()
        if now is None or self.before is None:
            return None
        return max(0.0, now[0] - self.before[0] - own), now[1] - self.before[1]

    def _read(self) -> tuple[float, float] | None:
        try:
            ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        user, nice, system, _, _, irq, soft_irq, steal = ticks
        return (user + nice + system + irq + soft_irq) / 100, steal / 100


def stamp(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
