"""What a fixture of a whole module leaves in the environment is not there in a test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bertkit.launch.children import keep_working_folder_out


@pytest.fixture(scope="module")
def command_ran() -> Iterator[None]:
    """As a fixture that runs the command in this process."""
    before = dict(os.environ)
    keep_working_folder_out()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("number", [1, 2])
def test_a_script_finds_the_modules_beside_it(command_ran: None, tmp_path: Path, number: int) -> None:
    (tmp_path / "beside.py").write_text("found = True\n")
    (tmp_path / "script.py").write_text("import beside\nassert beside.found\n")
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=60)
