"""Processes that bertkit starts import this bertkit and the installed packages, whatever lies in the working folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bertkit
from bertkit.launch.children import SAFE_PATH, SEARCH_PATH, keep_working_folder_out, module_command
from conftest import command_env

TRAP = "raise SystemExit('imported from the working folder')\n"
HERE = "from bertkit.cli.main import main; main()"  # as the installed command, which does not search the working folder


@pytest.fixture
def beside_a_checkout(tmp_path: Path) -> Path:
    """A folder with a clone, and files that are called as packages are."""
    for name in ("bertkit", "bertkit_cpu", "bertkit_null", "bertkit_torch", "tokenizers", "pydantic"):
        (tmp_path / name).mkdir()
    for name in ("torch", "numpy", "random", "typer", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    return tmp_path


def command(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    found = os.pathsep.join(sys.path[1:] if sys.path[0] == "" else sys.path)
    base = command_env(folder) | {"PYTHONPATH": found} | env
    words_ = [sys.executable, "-P", "-c", HERE, *words]
    return subprocess.run(words_, cwd=folder, env=base, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_ranks_beside_a_checkout(beside_a_checkout: Path, sample_dir: Path) -> None:
    inner = (
        "train", "--recipe", "demo", "--backend", "cpu", "--data-dir", str(sample_dir), "--set", "train.steps=2",
        "--set", "data.train_rows=64", "--set", "data.eval_rows=32", "-o", "run",
    )  # fmt: skip
    done = command(beside_a_checkout, "launch", "-n", "2", "--oversubscribe", "--", *inner)
    assert done.returncode == 0, done.stderr
    assert json.loads((beside_a_checkout / "run" / "record.json").read_text())["updates"] == 2


@pytest.mark.slow
def test_cells_of_a_suite_beside_a_checkout(beside_a_checkout: Path) -> None:
    words = (
        "bench", "--suite", "glue", "--backend", "null", "-m", "tiny", "-d", "fp32", "-b", "16", "--steps", "4",
        "--json", "-o", "cells", "-n", "2",
    )  # fmt: skip
    done = command(beside_a_checkout, *words)
    assert done.returncode == 0, done.stderr
    assert {cell["status"] for cell in json.loads(done.stdout)["cells"]} == {"measured"}


@pytest.mark.slow
def test_workers_beside_a_checkout(beside_a_checkout: Path, sample_dir: Path) -> None:
    text = beside_a_checkout / "text"
    text.mkdir()
    for number in range(2):
        (text / f"{number}.txt").write_text("the plot is good. the cast was dull.\n\n" * 200)
    vocab = str(sample_dir / "sample" / "vocab.txt")
    words = ("data", "prepare", "text", "--vocab", vocab, "-o", "out", "-s", "32", "--workers", "2", "--shards", "2")
    done = command(beside_a_checkout, *words)
    assert done.returncode == 0, done.stderr
    assert (beside_a_checkout / "out" / "manifest.json").exists()


def test_an_empty_part_of_pythonpath_is_no_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    env = {SEARCH_PATH: f"{os.pathsep}/a{os.pathsep}{os.pathsep}/b"}
    keep_working_folder_out(env, ["", "/x"])
    assert env == {SEARCH_PATH: f"/a{os.pathsep}/b", SAFE_PATH: "1"}
    only: dict[str, str] = {SEARCH_PATH: ""}
    keep_working_folder_out(only, ["/x"])
    assert only == {SAFE_PATH: "1"}


def test_a_checkout_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    home = Path(bertkit.__file__).resolve().parent.parent
    monkeypatch.chdir(home)
    env: dict[str, str] = {}
    keep_working_folder_out(env, [str(home), "/x"])
    assert env[SEARCH_PATH] == str(home)
    again = dict(env)
    keep_working_folder_out(again, ["/y"])
    assert again == env


def test_modules_are_run_without_the_working_folder() -> None:
    assert module_command("python", "bertkit.launch.rank_process", "train") == (
        "python",
        "-P",
        "-m",
        "bertkit.launch.rank_process",
        "train",
    )
