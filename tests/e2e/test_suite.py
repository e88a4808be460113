"""`bertkit bench --suite` as a user calls it: killed and called again, or with a cell that memory does not hold."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path

import pytest

from bertkit.files.processes import children
from command import run, start
from conftest import Run, assert_one_line_error

SUITE = """
[mine]
title = "Two cells"
kind = "train"
[[mine.grids]]
from = "a test"
models = ["tiny"]
lengths = "512"
cuts = [512]
batches = [2, {large}]
precisions = ["fp32", "fp16"]
"""
SLOW = ("--backend", "null", "--steps", "4", "--set", "device.step_seconds=0.5")
FITS, OTHER = "train-tiny-fp32-512-s512-b2.json", "train-tiny-fp32-512-s512-b{large}.json"
LIMIT = 4 << 30  # of addresses: the libraries take some of it, each of the large cell's activations 1 GB


def suite(folder: Path, large: int) -> tuple[str, ...]:
    (folder / "mine.toml").write_text(SUITE.format(large=large))
    return ("bench", "--suite", "mine.toml", "-o", "cells")


@pytest.mark.slow
def test_a_killed_suite_goes_on_where_it_was(tmp_path: Path) -> None:
    words = (*suite(tmp_path, 4), *SLOW)
    first, second = tmp_path / "cells" / FITS, tmp_path / "cells" / OTHER.format(large=4)
    with start(tmp_path, *words) as killed:
        for _ in range(1200):
            if first.exists() and (cell := children(killed.pid)):
                break
            time.sleep(0.1)
        killed.kill()
    for _ in range(100):  # the cell under way does not outlive the suite
        if not Path(f"/proc/{cell[0]}").exists():
            break
        time.sleep(0.1)
    assert not Path(f"/proc/{cell[0]}").exists()
    assert not second.exists()
    done_at = first.stat().st_mtime_ns
    done = run(tmp_path, *words, "--json")
    assert done.returncode == 0, done.stderr
    assert "cell 1 of 2: train-tiny-fp32-512-s512-b2: " in done.stderr
    assert "(measured before)" in done.stderr
    assert first.stat().st_mtime_ns == done_at
    made = json.loads(done.stdout)
    assert [cell["status"] for cell in made["cells"]] == ["measured", "measured"]
    assert json.loads(second.read_text())["case"]["batch_size"] == 4
    assert sorted(path.name for path in first.parent.iterdir()) == sorted([FITS, second.name, "suite.json"])


@pytest.mark.slow
def test_a_cell_that_does_not_fit_is_a_result(tmp_path: Path) -> None:
    words = (*suite(tmp_path, 4_000), "--backend", "cpu", "--steps", "2")
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))  # noqa: E731
    done = run(tmp_path, *words, limit=limit)
    assert done.returncode == 0, done.stderr
    assert "does not fit" in done.stdout
    assert "2 cells: 1 measured, 1 does not fit" in done.stdout
    record = json.loads((tmp_path / "cells" / OTHER.format(large=4_000)).read_text())
    assert record["status"] == "does not fit"
    assert "memory" in record["reason"]


def test_ctrl_c_leaves_no_half_cell(tmp_path: Path) -> None:
    with start(tmp_path, *suite(tmp_path, 4), *SLOW[:2], "--steps", "100", "--set", "device.step_seconds=1") as stopped:
        for _ in range(600):
            if (tmp_path / "cells" / "suite.json").exists() and children(stopped.pid):
                break
            time.sleep(0.1)
        stopped.send_signal(signal.SIGINT)
        _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert said.splitlines()[-1] == "bertkit: stopped"
    assert not list((tmp_path / "cells").glob("train*"))


def test_mistakes_are_one_line(bertkit: Run, tmp_path: Path) -> None:
    assert_one_line_error(bertkit("bench", "--suite", "squad"), "no suite 'squad'", "squad-train")
    assert_one_line_error(bertkit("bench", "--suite", "glue", "train"), "--suite and train")
    done = bertkit("bench", "--suite", "glue", "--backend", "null", "--dry-run", "-m", "base", "-d", "bf16")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *(f"train-base-bf16-mrpc-s128-b{batch}" for batch in (16, 32, 64)), "3 cells",
    ]  # fmt: skip
    assert not (tmp_path / "runs").exists()
