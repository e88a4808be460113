"""What a killed process leaves: temporary files under its name, and its lock."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

from bertkit.files import disk
from bertkit.files.processes import Owner, started, this_process


def ended_process() -> Owner:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = dataclasses.replace(this_process(), pid=process.pid, started=started(process.pid))
    return owner


def left_by(owner: Owner, path: Path, content: bytes = b"half") -> Path:
    """A temporary file of that process's, beside `path`."""
    mine = disk.temporary_beside(path)
    me = this_process()
    name = mine.name.replace(f".{me.place}-{me.pid}-{me.started}.", f".{owner.place}-{owner.pid}-{owner.started}.")
    left = path.with_name(name)
    left.write_bytes(content)
    return left
