"""benchmarks/on_hardware.py as a command: on the CPU, with parts that fail and hang, to its end and to Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

import planted_backend
from conftest import ROOT, command_env

SCRIPT = ROOT / "benchmarks" / "on_hardware.py"


def words(backend: str, out: Path, *parts: str, size: str = "small") -> list[str]:
    only = [word for part in parts for word in ("--only", part)]
    return [sys.executable, str(SCRIPT), backend, "-o", str(out), "--size", size, *only]


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, str]:
    """The environment with a backend whose `lamb` fails and whose `dropout` hangs."""
    path = os.pathsep.join([planted_backend.install(tmp_path / "planted"), os.environ.get("PYTHONPATH", "")])
    return command_env(tmp_path) | {"PYTHONPATH": path.rstrip(os.pathsep), "PLANTED_PID": str(tmp_path / "pid")}


def gone(pid: int) -> bool:
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


def summary(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return found


def test_a_few_parts_on_the_cpu_and_one_file_to_send(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = words("cpu", out, "facts", "check.card")
    done = subprocess.run(command, env=command_env(tmp_path), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] check.card: passed in" in done.stdout
    made = summary(out)
    assert [part["outcome"] for part in made["parts"]] == ["passed", "passed"]
    assert (made["kind"], made["backend"]["name"], made["left_out"]) == ("on-hardware", "cpu", [])
    facts = json.loads((out / "facts.json").read_text())
    assert {"bertkit", "torch"} <= facts["versions"].keys()
    assert facts["machine"]["memory_bytes"] > 0
    with tarfile.open(tmp_path / "out.tar.gz") as archive:
        names = set(archive.getnames())
    assert names == {f"out/{path.relative_to(out)}" for path in out.rglob("*") if path.is_file()}
    assert {"out/summary.txt", "out/facts.json", "out/checks/card.json", "out/logs/check.card.txt"} <= names
    again = subprocess.run(command, env=command_env(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].endswith("out is there already; name a new folder with -o")


def test_ctrl_c_ends_it_with_what_it_has(tmp_path: Path, planted: dict[str, str]) -> None:
    out = tmp_path / "out"
    command = words("planted", out, "facts", "check.dropout", "check.resume")
    with subprocess.Popen(command, env=planted, stdout=subprocess.PIPE, text=True) as process:
        wait_for(tmp_path / "pid")
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    made = summary(out)
    assert {part["name"]: part["outcome"] for part in made["parts"]} == {
        "facts": "passed", "check.dropout": "interrupted"
    }  # fmt: skip
    assert made["left_out"] == [{"name": "check.resume", "reason": "ended by a signal, as Ctrl-C"}]
    assert (tmp_path / "out.tar.gz").exists()
    assert not (out / "scratch").exists()
    assert gone(int((tmp_path / "pid").read_text()))


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < until, "the planted hang did not begin"
        time.sleep(0.05)


@pytest.mark.slow
def test_it_survives_a_part_that_fails_and_one_that_hangs_and_ends_in_time(
    tmp_path: Path, planted: dict[str, str]
) -> None:
    out = tmp_path / "out"
    parts = ("facts", "check.card", "check.lamb", "check.dropout", "check.resume", "check.precisions")
    start = time.monotonic()
    done = subprocess.run(
        [*words("planted", out, *parts), "--minutes", "0.5"], env=planted, capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip
    assert time.monotonic() - start < 30 + 5, "it was given half a minute"
    assert done.returncode == 1, done.stdout + done.stderr
    made = summary(out)
    found = {part["name"]: part["outcome"] for part in made["parts"]}
    assert found == {"facts": "passed", "check.card": "passed", "check.lamb": "failed", "check.dropout": "timed out"}
    assert "a planted fault" in next(part["detail"] for part in made["parts"] if part["name"] == "check.lamb")
    assert {entry["reason"] for entry in made["left_out"]} == {"no time was left"}
    assert "left out, no time was left: check.resume, check.precisions" in done.stdout
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_backend_that_is_not_ready_leaves_its_facts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    env = command_env(tmp_path) | {"PATH": os.defpath}
    done = subprocess.run(words("gaudi", out), env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "warning: gaudi is not ready: " in done.stderr
    assert [part["name"] for part in summary(out)["parts"]] == ["facts"]
    assert "left out, the backend is not ready: check.card, " in done.stdout


def test_an_unknown_name_is_one_line(tmp_path: Path) -> None:
    command = words("cdua", tmp_path / "out")
    done = subprocess.run(command, env=command_env(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("on_hardware: bertkit: there is no backend")
    assert not (tmp_path / "out").exists()


# ---- trials, where nothing computes ----


def tried(name: str, folder: Path, *more: str) -> dict[str, Any]:
    """A trial's verdict on `null`, by its own process."""
    result, script = folder / "result.json", SCRIPT.with_name("hardware_trials.py")
    common = ("--backend", "null", "--size", "small", "--work", str(folder / "work"), "-o", str(result))
    command = [sys.executable, str(script), name, *common, *more]
    subprocess.run(command, env=command_env(folder), check=False, capture_output=True, timeout=120)
    found: dict[str, Any] = json.loads(result.read_text())
    return found


@pytest.mark.slow
def test_a_killed_training_is_resumed_and_compared(tmp_path: Path) -> None:
    found = tried("trial.resume", tmp_path, "--set", "device.step_seconds=0.1")
    assert found["outcome"] == "passed", found
    assert found["figures"]["killed_after"] in (2, 4, 6)
    assert found["figures"]["largest_difference"] == 0.0


def test_a_profile_that_cannot_be_made_says_why(tmp_path: Path) -> None:
    found = tried("profile.phase1", tmp_path, "--model", "tiny", "--batch", "2")
    assert found["outcome"] == "failed"
    assert "backend null has no profiler" in found["detail"]
