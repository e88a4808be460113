"""`make demo` beside a vendor's torch keeps it; otherwise the tested versions are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def planned(venv: Path, *words: str) -> str:
    return subprocess.run(
        ["make", "-n", "demo", f"VENV={venv}", *words], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout


def test_a_release_is_built_with_pinned_tools(tmp_path: Path) -> None:
    words = ["make", "-n", "dist", f"VENV={tmp_path / 'venv'}", "DIST_ARGS=--torch none"]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "-r release/requirements.txt" in made
    assert "release/dist.py --torch none" in made
    pins = (ROOT / "release" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert all("==" in pin for pin in pins if not pin.startswith("#"))


def test_the_tested_versions_are_installed(tmp_path: Path) -> None:
    made = planned(tmp_path / "venv")
    assert "-c constraints.txt" in made
    assert "torch===" not in made


@pytest.mark.parametrize("made_before", [False, True])
def test_beside_a_vendors_torch_that_torch_alone_is_pinned(made_before: bool, tmp_path: Path) -> None:
    """An environment that was made so stays so, with no word about it on the command line."""
    venv = tmp_path / "venv"
    if made_before:
        venv.mkdir()
        (venv / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = true\n")
    made = planned(venv, *(() if made_before else ("VENV_ARGS=--system-site-packages",)))
    assert f"-c {venv}/torch-there.txt" in made
    assert "constraints.txt" not in made
    assert f'"torch===" + version("torch"))\' > {venv}/torch-there.txt' in made


def test_without_a_torch_to_be_beside_it_ends(tmp_path: Path) -> None:
    """The environment's Python is one without torch: nothing is installed, and no half a file stays."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text("include-system-site-packages = true\n")
    (venv / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    (venv / "bin" / "python").chmod(0o755)
    (venv / ".venv-ready").touch()
    done = subprocess.run(["make", "demo", f"VENV={venv}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "has no torch to be used beside" in done.stdout
    assert not (venv / "torch-there.txt").exists()
