"""A fault of bertkit's own ends in two lines and a file with the traceback, never in a traceback on the screen."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import command_env

BREAKS = """
import sys
from bertkit.cli import main as cli
def fails(): raise KeyError("a\\x1b[31m" + "b" * 5000)
cli.app.registered_commands[-1].callback = fails
cli.main([cli.app.registered_commands[-1].name])
"""


def test_two_lines_and_a_file(tmp_path: Path) -> None:
    env = command_env(tmp_path) | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", BREAKS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith("bertkit: unexpected error, a fault of bertkit itself: KeyError: ")
    assert "\x1b" not in first
    assert len(first) < 700
    found = re.fullmatch(r"bertkit: the traceback is in (\S+); please report it", second)
    assert found
    assert "in fails" in Path(found[1]).read_text(encoding="utf-8")


def test_a_stream_that_cannot_spell_it(tmp_path: Path) -> None:
    env = command_env(tmp_path) | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", "from bertkit.files import streams; streams.prepare(); print('a😀')"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "a\\U0001f600\n"
