"""The oldest torch that pyproject.toml allows, where the engine's tests pass, and that of Gaudi's software 1.23."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import older_torch
from conftest import ROOT

FLOOR = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
OLDEST, OF_GAUDI = f"{FLOOR[1]}.0" if FLOOR else "", "2.9.1"
ENGINE = (  # what calls torch by more than its oldest names
    "tests/contract/test_contract.py", "tests/device/test_cpu_backend.py", "tests/device/test_static_passes.py",
    "tests/device/test_against_transformers.py", "tests/device/test_lamb.py", "tests/device/test_sharded.py",
    "tests/device/test_loss_scaling.py", "tests/device/test_pickles.py", "tests/device/test_int8.py",
)  # fmt: skip
FILES = {  # the vendor's newer releases by hand: docs/install.md
    OLDEST: (*ENGINE, "tests/device/test_other_accelerators.py::test_the_contract[npu]"),
    OF_GAUDI: ("tests/device/test_gaudi_backend.py",),
}


def test_the_floor_is_named() -> None:
    assert FLOOR is not None


@pytest.mark.slow
@pytest.mark.parametrize("version", FILES)
def test_the_engine_on_another_torch(version: str, tmp_path: Path) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("stand-ins of NVIDIA's libraries are written for Linux on x86-64")
    if missing := [tool for tool in ("gcc", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"no {' and no '.join(missing)} here")
    try:
        older_torch.install(version, tmp_path)
    except (subprocess.SubprocessError, StopIteration) as error:
        pytest.skip(f"torch {version} is not to be had: {error}")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    told = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.__version__)"],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert told.startswith(version)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-m", "not slow", *FILES[version]],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    shutil.rmtree(tmp_path / "torch")  # 1.6 GB
