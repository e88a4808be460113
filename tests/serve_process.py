"""`bertkit serve` as a process of its own: started, its lines followed, ended by a signal."""

from __future__ import annotations

import re
import signal
import threading
import time
from pathlib import Path
from typing import Any

import serve_traffic
from command import start


class Server:
    """The command, started in `folder` on a port of its own, and what it writes."""

    def __init__(self, folder: Path, *arguments: str | Path) -> None:
        self.process = start(folder, "serve", *arguments, "--port", "0")
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.address = self.line(r"serving .* at (http://localhost:\d+)")[1]

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def line(self, pattern: str, seconds: float = 90) -> re.Match[str]:
        """The first line that has it."""
        end = time.monotonic() + seconds
        while True:
            found = next((match for line in list(self.lines) if (match := re.search(pattern, line))), None)
            if found:
                return found
            assert self.process.poll() is None or self.reader.is_alive(), "\n".join(self.lines)
            assert time.monotonic() < end, "\n".join(self.lines)
            time.sleep(0.02)

    def predict(self, texts: list[str]) -> Any:
        status, found = serve_traffic.asked(self.address, "/predict", {"text": texts})
        assert status == 200, found
        return found

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self.reader.join(10)
        return code
