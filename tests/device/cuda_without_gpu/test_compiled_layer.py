"""The encoder layer as it is compiled for a GPU, on a machine without one: launches, memory kept, kernels to cubins.

Needs Triton (`pip install 'bertkit[kernels]'`), which a CPU build of torch comes without.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import util
from typing import Any

import pytest

from conftest import ROOT, command_env

pytest.importorskip("torch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(util.find_spec("triton") is None, reason="no Triton: pip install 'bertkit[kernels]'"),
]
ARCHITECTURES = ("80", "90")


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the script says of BERT-large's layer on 8,192 tokens in bf16, with flash attention and dropout."""
    folder = tmp_path_factory.mktemp("layer")
    own = [str(ROOT / name) for name in (".", "backends", "tests")]
    paths = ":".join([*own, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "lowered_layer_at_work.py"), *ARCHITECTURES],
        env=command_env(folder) | {"PYTHONPATH": paths, "TRITON_CACHE_DIR": str(folder / "triton")},
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_layer_starts_no_more_than_it_did(layer: Any) -> None:
    """Measured with torch 2.13 and Triton 3.9. A cast or a copy more a layer is seen here first."""
    assert layer["forward"]["products"] == 4  # query, key and value together; attention's output; the two of the middle
    assert layer["backward"]["products"] == 8
    assert layer["forward"]["attention"] == layer["backward"]["attention"] == 1
    assert layer["forward"]["triton"] <= 11
    assert layer["backward"]["triton"] <= 22  # 26 where LayerNorm's scale and shift are rounded first


def test_a_layer_keeps_no_more_for_backward_than_it_did(layer: Any) -> None:
    """35 numbers of a byte for each of the 1,024 hidden ones; dropout's masks are not among them but drawn again."""
    assert 0 < layer["kept_bytes_per_token"] <= 36_000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel_becomes_a_cubin_that_spills_nothing(layer: Any, architecture: str) -> None:
    kernels = layer["forward"]["kernels"] + layer["backward"]["kernels"]
    assert layer["cubins"][architecture] == {"kernels": kernels, "spilling": 0}
    assert kernels > 20
