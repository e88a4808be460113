"""Is the stand-in of a Gaudi faithful? The contract's rows (`gaudi_standin/rows`), in a process for each mode."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gaudi_standin_env import FOLDER

ROWS = FOLDER / "rows"
Env = Callable[..., dict[str, str]]


def start(rows: str, out: Path, env: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", str(ROWS / f"{rows}.py"), str(out), str(out.parent)]
    return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def verdict(process: subprocess.Popen[str], out: Path, at_least: int) -> None:
    """Fails with every row that failed; a table that shrank fails too."""
    _, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    found: dict[str, Any] = json.loads(out.read_text())
    assert not found["failed"], "\n".join(f"{row}\n{error}" for row, error in found["failed"].items())
    assert found["rows"] >= at_least


@pytest.mark.slow
def test_the_rows_of_the_contract(gaudi_env: Env, tmp_path: Path) -> None:
    # One test: the last process reads files that the first two wrote.
    for mode, lazy, rows in (("eager", False, 42), ("lazy", True, 46)):
        out = tmp_path / f"{mode}.json"
        verdict(start(mode, out, gaudi_env(lazy)), out, rows)
    out = tmp_path / "host.json"
    verdict(start("host", out, gaudi_env(False, HPU_STANDIN_LIBRARY="/none")), out, 2)


@pytest.mark.slow
def test_two_ranks_that_open_mpi_describes(gaudi_env: Env, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    lower, fp32 = tmp_path / "lower.txt", tmp_path / "fp32.txt"
    lower.write_text("matmul\nlinear\n")
    fp32.write_text("softmax\n")
    shared = {
        "HPU_STANDIN_DEVICE": "GAUDI",
        "HPU_STANDIN_REPORT": str(tmp_path / "report.json"),
        "HABANA_VISIBLE_MODULES": "4,6",
        "OMPI_COMM_WORLD_SIZE": "2",
        "MASTER_PORT": port,  # MASTER_ADDR is left to its default, right for one box
        "PT_HPU_AUTOCAST_LOWER_PRECISION_OPS_LIST": str(lower),
        "PT_HPU_AUTOCAST_FP32_OPS_LIST": str(fp32),
    }
    out = tmp_path / "ranks.json"
    own = [{"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_RANK": rank} for rank in ("0", "1")]
    ranks = [start("ranks", out, gaudi_env(False, **shared, **names)) for names in own]
    try:
        for rank, process in enumerate(ranks):
            verdict(process, Path(f"{out}.{rank}"), 9)
    finally:
        for process in ranks:
            process.kill()
    report = json.loads((tmp_path / "report.json.1").read_text())
    assert report["environment"]["HLS_MODULE_ID"] == "6"
    assert {"op": "allreduce_", "first": "Long[1]", "bytes": 8} in report["collectives"]
