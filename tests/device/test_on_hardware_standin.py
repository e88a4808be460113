"""benchmarks/on_hardware.py on the Gaudi stand-in, as a dry run: the parts that a Gaudi would get."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from bertkit.conformance import CHECKS
from conftest import ROOT

SCRIPT = ROOT / "benchmarks" / "on_hardware.py"


def test_the_parts_that_a_gaudi_gets(gaudi_env: Callable[..., dict[str, str]], tmp_path: Path) -> None:
    env = gaudi_env(lazy=False, BERTKIT_CACHE=str(tmp_path / "cache"))
    command = [sys.executable, str(SCRIPT), "hpu", "-o", str(tmp_path / "out"), "--dry-run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, ""), "it is ready, so there is no warning"
    lines = done.stdout.splitlines()
    parts = [line.split()[1].rstrip(":") for line in lines if line[:3].strip().isdigit() and " s or more" in line]
    cases = ("mrpc", "squad", "phase1", "phase2", "answers")
    for name in (
        "facts",
        *(f"check.{check}" for check in CHECKS),
        *(f"speed.{case}{how}" for case in cases for how in ("", "+graphs=true+mode=lazy", "+compile=off")),
        *(f"trial.{trial}" for trial in ("too_large", "recompiles-8", "memory", "resume", "starts", "recompiles-32")),
        *(f"profile.{case}" for case in cases[:4]),
    ):
        assert name in parts
    assert len(parts) == 1 + len(CHECKS) + 15 + 6 + 4
    text = done.stdout
    assert f"{sys.executable} -P -m bertkit check gaudi --only resume" in text, "by its name, not the alias"
    assert "--lengths wiki512 -b 56,56,56 --seconds 5 --set optimizer.name=lamb --set device.graphs=true" in text
    resume = next(line for line in lines if "hardware_trials.py trial.resume" in line)
    assert "--dtype bf16 --set device.shapes=2" in resume
    assert not (tmp_path / "out").exists(), "a dry run writes nothing"
