"""Real processes that meet through each library, under both kinds of mpirun and without one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import free_port
from conftest import ROOT

SCRIPT = ROOT / "tests" / "ranks_at_work.py"
MPIRUNS = {"wheel": str(Path(sys.executable).parent / "mpirun"), "system": "/usr/bin/mpirun"}
Done = subprocess.CompletedProcess[str]


def environment(**more: str) -> dict[str, str]:
    """Without what the test's own launcher, if it has one, has set."""
    path = os.pathsep.join(str(ROOT / folder) for folder in (".", "backends", "launchers", "tests"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PMI_", "MASTER_", "SLURM_"))}
    return kept | {"PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])} | more


@pytest.fixture(params=MPIRUNS)
def mpirun(request: pytest.FixtureRequest) -> str:
    pytest.importorskip("mpi4py")
    program = MPIRUNS[request.param]
    if not shutil.which(program):
        pytest.skip(f"no {program}")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    if "Open MPI" not in said and "OpenRTE" not in said:
        pytest.skip(f"{program} is not Open MPI's")
    return program


def under(mpirun: str, size: int, *words: str, **env: str) -> Done:
    command = [mpirun, "--allow-run-as-root", "--oversubscribe", "-n", str(size), sys.executable, str(SCRIPT), *words]
    return subprocess.run(
        command, env=environment(**env), capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )


def by_variables(size: int, *words: str) -> list[Done]:
    """As torchrun starts them: all at once, each with its variables."""
    common = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    common["MASTER_PORT"] = str(free_port())
    command = [sys.executable, str(SCRIPT), *words]
    started = [
        subprocess.Popen(
            command, env=environment(RANK=str(rank), LOCAL_RANK=str(rank), **common), cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(size)
    ]  # fmt: skip
    done = []
    for process in started:
        try:
            out, err = process.communicate(timeout=120)
        finally:
            process.kill()
        done.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return done


@pytest.mark.slow_but("wheel-auto-window-2", "system-mpi-mpi-2")
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize(
    ("asked", "taken"), [("auto", "window"), ("window", "window"), ("mpi", "mpi"), ("gloo", "gloo")]
)
def test_ranks_of_mpi_sum_and_gather(mpirun: str, size: int, asked: str, taken: str) -> None:
    """gloo finds its meeting place through MPI."""
    done = under(mpirun, size, "works", asked)
    assert done.returncode == 0, done.stderr
    assert all(f"rank {rank}: {taken}: " in done.stdout for rank in range(size)), done.stdout


@pytest.mark.slow_but("2")
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_of_variables_sum_and_gather_by_gloo(size: int) -> None:
    for done in by_variables(size, "works", "auto"):
        assert done.returncode == 0, done.stderr
        assert "gloo: auto: torchrun starts no MPI" in done.stdout


@pytest.mark.slow_but("wheel-mpi")
@pytest.mark.parametrize("asked", ["mpi", "window", "gloo"])
def test_one_that_fails_ends_the_job_under_mpirun(mpirun: str, asked: str) -> None:
    start = time.monotonic()
    done = under(mpirun, 2, "fails", asked)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("bertkit: this rank has had enough; nothing helps") == 1
    assert time.monotonic() - start < 40  # the others do not wait for the watchdog


@pytest.mark.slow
def test_one_that_fails_is_told_from_those_that_lost_it() -> None:
    first, last = by_variables(2, "fails", "gloo")
    assert (first.returncode, last.returncode) == (75, 2)
    assert "bertkit: rank 0 lost the other ranks at update 7 in a sum: " in first.stderr
    assert "third_party" not in first.stderr
    assert last.stderr.splitlines()[-1] == "bertkit: this rank has had enough; nothing helps"


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["mpi", "window"])
def test_one_that_hangs_is_not_waited_for(mpirun: str, asked: str) -> None:
    done = under(mpirun, 2, "hangs", asked)
    assert done.returncode == 75, done.stderr
    assert "bertkit: rank 0 has waited 2 s for the other ranks at update 7 in a sum; one of them hangs" in done.stderr


@pytest.mark.slow
def test_one_that_hangs_is_not_waited_for_by_gloo() -> None:
    first, last = by_variables(2, "hangs", "gloo")
    assert first.returncode == 75
    assert "bertkit: rank 0 has waited 2 s" in first.stderr
    assert last.returncode == 75  # woke up, and the first was gone
    assert "bertkit: rank 1 lost the other ranks at update 7" in last.stderr


def test_a_taken_port_is_named() -> None:
    with socket.socket() as listener:
        port = free_port()
        listener.bind(("", port))
        listener.listen()
        done = first_rank(port)
    assert done.returncode == 2, done.stderr
    assert f"bertkit: port {port} on this machine is taken; export another MASTER_PORT" in done.stderr


def first_rank(port: int) -> Done:
    """The first of two ranks; the other never comes."""
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    return subprocess.run(
        [sys.executable, str(SCRIPT), "hangs", "gloo"],
        env=environment(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), **variables),
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_rank_that_nobody_joins_says_so() -> None:
    done = first_rank(free_port())
    assert done.returncode == 2, done.stderr
    assert "bertkit: rank 0 of 2 did not meet the others at 127.0.0.1:" in done.stderr


def test_a_launcher_of_another_mpi_is_refused() -> None:
    """Two processes whose environment says so, but whose MPI library sees one each."""
    pytest.importorskip("mpi4py")
    variables = {"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "works", "mpi"],
        env=environment(**variables), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if "does not load" in done.stderr:
        pytest.skip("no MPI library")
    assert done.returncode == 2, done.stderr
    for words in ("Hydra started rank 0 of 2", "sees rank 0 of 1", "2 processes would each train a model of their own"):
        assert words in done.stderr
