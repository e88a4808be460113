"""The CUDA device's whole update on FakeTensors of a fake accelerator: no operator that is given what it does not take.

All heads with all kernels, precisions and optimizers (187 cases, a minute): by hand, as the script's docstring shows.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bertkit.conformance.fixtures import HEADS
from conftest import ROOT, command_env

registration = pytest.importorskip("torch.utils.backend_registration")
pytestmark = pytest.mark.skipif(
    not hasattr(registration, "_setup_privateuseone_for_python_backend"), reason="this torch has no devices of Python's"
)
SCRIPT = ROOT / "tests" / "fake_accelerator_at_work.py"
FOLDERS = ":".join(str(ROOT / folder) for folder in (".", "backends", "launchers", "tests"))


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The script, which needs a process of its own."""
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env=command_env(folder) | {"PYTHONPATH": f"{folder}:{FOLDERS}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_all_kernels_precisions_and_optimizers_shared_among_all_heads(tmp_path: Path) -> None:
    done = run(tmp_path, "covering")
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    said = done.stdout.splitlines()
    assert {line.partition(":")[0] for line in said} == set(HEADS)
    assert sum(int(line.split()[1]) for line in said) == 22 + 11


def test_a_tensor_on_the_host_beside_the_devices_is_found_and_its_case_named(tmp_path: Path) -> None:
    """So the script bites."""
    planted = tmp_path / "sitecustomize.py"
    planted.write_text(
        "import bertkit_torch.dropout as dropout\n"
        "import torch\n"
        "dropout.DeviceDropout.add = lambda self, residual, values, rate: residual + torch.ones(values.shape)\n"
    )
    done = run(tmp_path, "encoder")
    assert done.returncode != 0
    assert "encoder, flash, bf16, adamw failed" in done.stdout
    assert "found at least two devices, fakecuda:0 and cpu" in done.stderr
