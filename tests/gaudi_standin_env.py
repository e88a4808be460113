"""The environment in which a process finds a Gaudi that is none: the stand-in of `tests/device/gaudi_standin`.

Only subprocesses get it: the mode is fixed at import, and `habana_frameworks` must be on no other path.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import pytest

from device.gaudi_standin import build

FOLDER = Path(__file__).resolve().parent / "device" / "gaudi_standin"
# What would choose another mode, card, list of ops or cache, or pass for a rank of a launch.
FOREIGN = ("BERTKIT_", "PT_", "HPU_", "HABANA_", "HLS_", "HCCL_", "OMPI_", "LOWER_LIST", "FP32_LIST", "MASTER_")
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "ID")


@lru_cache(maxsize=1)
def library() -> Path:
    return build.library()


def require_standin() -> None:
    """Skips the test where the stand-in cannot be built."""
    if build.compiler() is None:
        pytest.skip("the Gaudi stand-in needs a C++ compiler (Debian: apt-get install g++)")


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
