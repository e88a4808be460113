"""Stand-ins for Slurm's programs: each writes down how it was called, srun runs no rank but ends as it is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """#!/usr/bin/env python3
import json, os, signal, subprocess, sys, time
name = os.path.basename(sys.argv[0])
def note(**more):
    with open("calls.jsonl", "a") as file:
        print(json.dumps({"name": name, "argv": sys.argv[1:], **more}), file=file)
def save(number, frame):
    note(signal=number)
    time.sleep(0.3)
    note(saved=True)
    sys.exit(143)
if name == "srun":
    signal.signal(signal.SIGUSR1, save)
    words = sys.argv[sys.argv.index("env"):]
    show = [sys.executable, "-S", "-c", "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"]
    start = next(n for n, word in enumerate(words) if n and "=" not in word)
    argv, env = json.loads(subprocess.run([*words[:start], *show, *words[start:]], capture_output=True).stdout)
    note(command=argv, env=env)
    if os.environ.get("RUNS") == "long":
        time.sleep(50)
    sys.exit(int(os.environ.get("SRUN_CODE", 0)))
note()
if name == "scontrol" and "hostnames" in sys.argv:
    print("n1\\nn2")
elif name == "scontrol" and "show" in sys.argv:
    print(f"JobId=7 PreemptEligibleTime=2026-11-20T21:05:37 PreemptTime={os.environ.get('PREEMPTED', 'None')}")
elif name == "scontrol":
    sys.exit(int(os.environ.get("REQUEUE_CODE", 0)))
elif name == "sbatch":
    print(os.environ.get("SBATCH_SAYS", "7;here"))
    sys.exit(int(os.environ.get("SBATCH_CODE", 0)))
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stand-ins, for PATH."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("srun", "scontrol", "sbatch"):
        (folder / name).write_text(PROGRAM)
        (folder / name).chmod(0o755)
    return folder


def start_script(script: str, slurm: Path, folder: Path, **env: str) -> subprocess.Popen[str]:
    """Start the script as Slurm would, in `folder`."""
    (folder / "job.sh").write_text(script, encoding="utf-8")
    (folder / "calls.jsonl").write_text("")
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_CPUS_PER_TASK": "4", "SLURM_SUBMIT_DIR": "/w d"}
    path = {"PATH": f"{slurm}:{os.environ['PATH']}"}
    return subprocess.Popen(
        ["bash", "job.sh"],
        cwd=folder,
        env=os.environ | job | path | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def calls(folder: Path) -> list[dict[str, Any]]:
    """What the stand-ins wrote down so far."""
    return [json.loads(line) for line in (folder / "calls.jsonl").read_text(encoding="utf-8").splitlines()]


def run_script(
    script: str, slurm: Path, folder: Path, **env: str
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run the script to its end; returns how it ended and what it called."""
    with start_script(script, slurm, folder, **env) as process:
        stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr), calls(folder)
