"""The environment in which a process finds an accelerator that is none: `tests/device/gaudi_standin` and its kin.

Only subprocesses get it: the mode is fixed at import, and `habana_frameworks` must be on no other path.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import pytest

from device.gaudi_standin import build

FOLDER = Path(__file__).resolve().parent / "device" / "gaudi_standin"
# What would choose another mode, card, list of ops or cache, or pass for a rank of a launch.
OTHERS = FOLDER.parent / "accelerator_standin"
KEYS = {"xpu": "XPU", "npu": "PrivateUse1"}  # of the other stand-ins' folders
FOREIGN = ("BERTKIT_", "PT_", "HPU_", "HABANA_", "HLS_", "HCCL_", "OMPI_", "LOWER_LIST", "FP32_LIST", "MASTER_")
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ID")


@lru_cache
def library(key: str = "HPU") -> Path:
    return build.library(key)


def require_standin() -> None:
    """Skips the test where the stand-in cannot be built."""
    if build.compiler() is None:
        pytest.skip("the stand-ins need a C++ compiler (Debian: apt-get install g++)")


def require_generator() -> None:
    """Skips the test where torch makes no generator of a Gaudi: before 2.7, save in the vendor's own build."""
    if tuple(map(int, version("torch").split(".")[:2])) < (2, 7):
        pytest.skip(f"torch {version('torch')} has no generators for a Gaudi")


def standin_env(lazy: bool, **more: str) -> dict[str, str]:
    """The environment of a subprocess that sees the stand-in, in the mode named."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(FOREIGN) and n not in RANKS}
    paths = [str(FOLDER / "site"), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    return (
        kept
        | {
            "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            "PATH": os.pathsep.join([str(FOLDER / "bin"), kept.get("PATH", os.defpath)]),
            "HPU_STANDIN_LIBRARY": str(library()),
            "PT_HPU_LAZY_MODE": "1" if lazy else "0",
        }
        | more
    )


def other_env(name: str, root: Path, **more: str) -> dict[str, str]:
    """Of a subprocess that sees the stand-in `name`; `root`: where its probe looks for the devices' files."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith((*FOREIGN, "ZE_", "ONEAPI_")) and n not in RANKS}
    paths = [str(OTHERS / "common"), str(OTHERS / name), *kept.get("PYTHONPATH", "").split(os.pathsep)]
    ours = {"STANDIN_LIBRARY": str(library(KEYS[name])), "STANDIN_ROOT": str(root)}
    return kept | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)} | ours | more
