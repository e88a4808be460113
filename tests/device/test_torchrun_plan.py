"""The torchrun plan, carried out with a small stand-in for each rank: all start, one that dies ends all, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bertkit.distributed.topology import Core, Machine
from bertkit.launch.interface import Request
from bertkit_torchrun import TorchrunLauncher
from command import free_port

pytest.importorskip("torch")
MACHINE = Machine(tuple(Core((number,), 0, 0) for number in range(4)))
STAND_IN = """
import json, os, signal, sys, time
rank, how = os.environ["RANK"], sys.argv[1]
def stop(number, frame):
    time.sleep(1 if how == "save" else 0)
    open(f"stopped{rank}", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
seen = {"argv": sys.argv[1:], "env": dict(os.environ)}
with open(f"part{rank}", "w") as file:
    json.dump(seen, file)
os.rename(f"part{rank}", f"seen{rank}.json")
if how == "die" and rank == "1":
    others = [f"seen{other}.json" for other in range(int(os.environ["WORLD_SIZE"]))]
    while not all(map(os.path.exists, others)):  # torchrun would end those that have not come so far
        time.sleep(0.05)
    sys.exit(3)
while how != "end":
    time.sleep(0.05)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return tmp_path


def start(folder: Path, request: Request) -> subprocess.Popen[str]:
    plan = TorchrunLauncher().plan(replace(request, python=sys.executable), MACHINE, {})
    argv = ["stand_in" if word == "bertkit.launch.rank_process" else word for word in plan.argv]
    assert argv.count("stand_in") == 1
    return subprocess.Popen(
        argv,
        cwd=folder,
        env=os.environ | dict(plan.env) | {"PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def seen(folder: Path, size: int) -> list[dict[str, dict[str, str]]]:
    """What each rank saw, once all have started."""
    until = time.monotonic() + 60
    files = [folder / f"seen{rank}.json" for rank in range(size)]
    while not all(file.exists() for file in files):
        assert time.monotonic() < until, "not all ranks started"
        time.sleep(0.05)
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("port", ["torchrun's", "ours"])
def test_all_ranks_start_and_know_each_other(folder: Path, port: str) -> None:
    words = ("end", "a b", "${local_rank}", "$$", "$(date)", "--nproc-per-node=7", "", "line\nbreak")
    number = free_port() if port == "ours" else 0
    with start(folder, Request(words, processes=3, port=number)) as process:
        _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    ranks = seen(folder, 3)
    assert [rank["env"]["RANK"] for rank in ranks] == ["0", "1", "2"]
    assert [rank["env"]["LOCAL_RANK"] for rank in ranks] == ["0", "1", "2"]
    assert {rank["env"]["WORLD_SIZE"] for rank in ranks} == {rank["env"]["LOCAL_WORLD_SIZE"] for rank in ranks} == {"3"}
    assert {rank["env"]["MASTER_ADDR"] for rank in ranks} == {"127.0.0.1"}
    ports = {int(rank["env"]["MASTER_PORT"]) for rank in ranks}
    assert len(ports) == 1
    assert not number or ports == {number}
    assert all(tuple(rank["argv"]) == words for rank in ranks)
    assert all(rank["env"]["OMP_NUM_THREADS"] == "1" and rank["env"]["BERTKIT_PLACES"] for rank in ranks)


def test_one_that_dies_ends_the_others_within_seconds(folder: Path) -> None:
    with start(folder, Request(("die",), processes=3)) as process:
        seen(folder, 3)
        since = time.monotonic()
        _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - since < 10  # measured: 1 s
    assert process.returncode == 1  # not the worker's 3
    assert "exitcode  : 3" in stderr
    assert (folder / "stopped0").exists()
    assert (folder / "stopped2").exists()


@pytest.mark.slow
def test_sigterm_lets_every_rank_save(folder: Path) -> None:
    with start(folder, Request(("save",), processes=2)) as process:
        seen(folder, 2)
        since = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert 1 <= time.monotonic() - since < 10  # measured: 0.5 s beyond the saving
    assert process.returncode == 1
    assert (folder / "stopped0").exists()
    assert (folder / "stopped1").exists()


def test_a_taken_port_ends_at_once(folder: Path, taken: int) -> None:
    with start(folder, Request(("end",), processes=2, port=taken)) as process:
        _, stderr = process.communicate(timeout=60)  # measured: 2 s; `c10d` would wait for minutes
    assert process.returncode != 0
    assert "EADDRINUSE" in stderr
    assert not list(folder.glob("seen*"))
