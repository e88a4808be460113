"""The server's log: a line a request, without texts unless they are asked for."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

logger = logging.getLogger("bertkit.serve")


def prepare(quiet: bool, label: str = "") -> None:
    """Log to standard error; warnings only, where `quiet`. `label`: before each line, as the number of a process."""
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(label))
    logger.handlers = [handler]


class _Line(logging.Formatter):
    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        level = "" if record.levelno < logging.WARNING else "warning: "
        return f"{time} {self.label}{level}{record.getMessage()}"
