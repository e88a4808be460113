"""TensorFlow's notes about its own build, kept out of a run's lines on stderr."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator

# Notes of its C++ side, which come before its log level is looked at, and the line that says so.
NOTES = re.compile(
    rb"I0000 00:00:\d|WARNING: All log messages before absl::InitializeLog|To enable the following instructions: "
)


@contextlib.contextmanager
def without_notes() -> Iterator[None]:
    """What is written to stderr meanwhile comes at the end, without such notes."""
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            kept.seek(0)
            for line in kept:
                if not NOTES.match(line):
                    with contextlib.suppress(OSError):  # nobody reads any more
                        os.write(2, line)
