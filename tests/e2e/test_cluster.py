"""`bertkit data prepare` on Dask's workers and on MPI's ranks: the bytes of one process, over kills of any of them."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from command import run, start, wait_for
from conftest import command_env
from launchers import MPIRUNS
from pretraining_files import WORDS, write_vocabulary

PREPARE = ("data", "prepare", "corpus", "--vocab", "vocab.txt", "-s", "64", "--shards", "80", "--duplicate-factor", "2")
FORM = ("--format", "tfrecord")
DASK = (sys.executable, "-P", "-m", "dask")
KILLS = 3  # of two workers; a task whose worker was killed is given up by the scheduler, and sent again


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 MB of text, and in `alone` what one process makes of it."""
    folder = tmp_path_factory.mktemp("cluster")
    stream = random.Random(0)  # noqa: S311
    (folder / "corpus").mkdir()
    for number in range(4):
        texts = (" ".join(stream.choices(WORDS, k=stream.randint(3, 20))) + "." for _ in range(4000))
        text = "\n".join(line + "\n" * (stream.random() < 0.05) for line in texts)
        (folder / "corpus" / f"{number}.txt").write_text(text)
    write_vocabulary(folder)
    done = run(folder, *PREPARE, *FORM, "--workers", "1", "-o", "alone")
    assert done.returncode == 0, done.stderr
    return folder


def started(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    env = command_env(folder) | {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}  # gives a task up at once
    with (folder / f"{words[0]}.log").open("ab") as log:
        return subprocess.Popen((*DASK, *words, "--no-dashboard"), cwd=folder, env=env, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def scheduler(folder: Path) -> Iterator[str]:
    """The name of its file."""
    pytest.importorskip("distributed", reason="Dask's distributed is not installed")
    local = ("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0")
    process = started(folder, "scheduler", *local, "--scheduler-file", str(folder / "scheduler.json"))
    yield "scheduler.json"
    process.terminate()
    process.wait(30)


@pytest.fixture
def workers(folder: Path, scheduler: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[int]:
    """The process whose children are so many workers, in a folder of their own."""
    own = ("--local-directory", str(tmp_path), "--host", "127.0.0.1", "--nthreads", "1")
    process = started(folder, "worker", "--scheduler-file", scheduler, "--nworkers", str(request.param), *own)
    yield process.pid
    process.terminate()
    process.wait(30)


def same(folder: Path, name: str) -> bool:
    made, wanted = ({path.name: path.read_bytes() for path in (folder / each).iterdir()} for each in (name, "alone"))
    return made == wanted


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 4], indirect=True)
def test_dasks_workers_give_the_bytes_of_one_process(folder: Path, scheduler: str, workers: int) -> None:
    out = f"dask-{workers}"
    done = run(folder, *PREPARE, *FORM, "--cluster", "dask", "--address", scheduler, "-o", out)
    assert done.returncode == 0, done.stderr
    assert same(folder, out)


def children(pid: int) -> list[int]:
    import psutil

    return [child.pid for child in psutil.Process(pid).children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2], indirect=True)
def test_killed_workers_and_a_killed_command_change_no_byte(folder: Path, scheduler: str, workers: int) -> None:
    command = (*PREPARE, *FORM, "--cluster", "dask", "--address", scheduler, "-o", "killed")
    notes = folder / "killed" / ".unfinished"
    with start(folder, *command) as first:
        for kill in range(KILLS):
            wait_for(lambda kill=kill: len([*notes.glob("write-*.json")]) > 20 * kill and children(workers), first)
            os.kill(random.choice(children(workers)), signal.SIGKILL)  # noqa: S311
        wait_for(lambda: len([*notes.glob("write-*.json")]) > 20 * KILLS, first)
        first.kill()
    assert not (folder / "killed" / "manifest.json").exists()
    done = run(folder, *command)
    assert done.returncode == 0, done.stderr
    assert "resuming the work of an earlier run" in done.stderr
    assert same(folder, "killed")


@pytest.mark.slow
def test_mpis_ranks_give_the_bytes_of_one_process(folder: Path) -> None:
    if not any(MPIRUNS.values()):
        pytest.skip("no mpirun of Open MPI")
    launch = ("launch", "--launcher", "mpi", "-n", "2", "--oversubscribe", "--")
    done = run(folder, *launch, *PREPARE, *FORM, "--workers", "1", "-o", "mpi")
    assert done.returncode == 0, done.stderr
    assert same(folder, "mpi")
