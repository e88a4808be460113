"""Starting jobs by each launcher at hand, and seeing what they leave behind."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from conftest import ROOT, command_env

NULL_JOB = (
    "train", "--backend", "null", "-t", "sample", "-m", "tiny", "-s", "32", "-d", "fp32", "-b", "8",
    "--set", "train.steps=40", "--set", "checkpoint.every=2", "--set", "log.every=1",
    "--set", "device.step_seconds=0.1", "--set", "data.eval_rows=8",
)  # fmt: skip


def _mpirun(path: Path, version: str) -> bool:
    """Whether this is Open MPI's mpirun of that version."""
    if not path.exists():
        return False
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return re.search(rf"Open MPI\) {version}\.", said) is not None


MPIRUNS = {
    "open-mpi-4": next((p for p in map(Path, ("/usr/bin/mpirun",)) if _mpirun(p, "4")), None),
    "open-mpi-5": next((p for p in (Path(sys.executable).with_name("mpirun"),) if _mpirun(p, "5")), None),
}


def launchers(*names: str, slow: tuple[str, ...] = ()) -> list[ParameterSet]:
    """Parameters of a test: launchers by name, skipped where absent; those in `slow` only among the slow tests."""
    found = []
    for name in names:
        missing = name in MPIRUNS and MPIRUNS[name] is None
        marks = [pytest.mark.skip(reason=f"no {name} on this machine")] if missing else []
        found.append(pytest.param(name, marks=[*marks, *([pytest.mark.slow] if name in slow else [])]))
    return found


# MPIs that cannot lie beside Open MPI's wheel, whose programs have the same names: where the wheel has its mpirun.
WHEELS = {"mpich": "mpich", "intel": "impi-rt"}


def mpirun_of_wheel(package: str, cache: Path) -> Path:
    """The mpirun of a wheel, which is installed into the folder `cache` once; skips where it is not to be had."""
    home = cache / package
    if not home.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            words = ["--no-deps", "--prefix", folder, "-c", str(ROOT / "constraints.txt"), package]
            pip = [sys.executable, "-m", "pip", "install", "-q", "--retries", "1", "--timeout", "15", *words]
            try:
                done = subprocess.run(pip, capture_output=True, text=True, timeout=150, check=False)
            except subprocess.TimeoutExpired:
                pytest.skip(f"the wheel {package} did not come in 150 s")
            if done.returncode:
                pytest.skip(f"no wheel {package}: {(done.stderr.splitlines() or ['pip failed'])[-1]}")
            with contextlib.suppress(OSError):  # another test was faster
                Path(folder).rename(home)
                Path(folder).mkdir()  # for its end
    return home / "bin" / "mpirun"


LAUNCHERS = launchers("torchrun", *MPIRUNS)
USUAL = launchers("torchrun", *MPIRUNS, slow=("open-mpi-4",))


class Started:
    """A job under way: `bertkit launch` in a subprocess, with a mark in its environment by which all of it is found."""

    def __init__(
        self, folder: Path, launcher: str, size: int, *words: str | Path, options: tuple[str, ...] = (),
        inside: tuple[str, ...] = (), local: bool = True, **env: str,
    ) -> None:  # fmt: skip
        """`inside`: words before the command, which start it elsewhere; `local`: `size` processes are for here."""
        self.folder = folder
        self.mark = f"LAUNCH_TEST_MARK={folder.name}-{time.monotonic_ns()}"
        name, value = self.mark.split("=")
        chosen = {} if launcher == "torchrun" else {"BERTKIT_MPIRUN": str(MPIRUNS.get(launcher))}
        how = ("--launcher", "torchrun" if launcher == "torchrun" else "mpi") if local else ()
        how = (*how, "-n", str(size), "--oversubscribe")
        command = [*inside, sys.executable, "-m", "bertkit", "launch", *how, *options, "--forward", name, "--", *words]
        self.process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env=command_env(folder) | chosen | env | {name: value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, seconds: float = 180) -> subprocess.CompletedProcess[str]:
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for pid in self.left():
                os.kill(pid, 9)
            self.process.kill()
            raise AssertionError(f"hangs: {self.process.communicate()}") from None
        return subprocess.CompletedProcess(self.process.args, self.process.returncode, out, err)

    def left(self) -> list[int]:
        """Processes of this job that live, the starting one included."""
        end = time.monotonic() + 3  # the kernel takes a moment to end what was killed
        while (found := self.alive()) and self.process.poll() is not None and time.monotonic() < end:
            time.sleep(0.1)
        return found

    def alive(self) -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                continue
        return sorted(found)


def ranks_of(job: Started) -> dict[int, int]:
    """Rank -> process that computes it (not the one that watches over it)."""
    found = {}
    for pid in job.alive():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            env = dict(
                entry.partition(b"=")[::2] for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if entry
            )
        except OSError:
            continue
        rank = env.get(b"OMPI_COMM_WORLD_RANK", env.get(b"RANK", env.get(b"PMI_RANK")))
        if rank is not None and b"train" in words and b"bertkit" in words:
            found[int(rank)] = pid
    return found


def wait_until(condition: Callable[[], object], job: Started, seconds: float = 90) -> None:
    """Until `condition` holds, while the job lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert job.process.poll() is None, job.process.communicate()[1]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def listening(job: Started) -> list[str]:
    """Addresses other than loopback's at which the ranks of a job listen, in the kernel's hexadecimal.

    Not those that they inherited: MPICH's proxies listen too, and their children hold a copy.
    """
    ranks = set(ranks_of(job).values())
    others = {inode for path in Path("/proc").glob("[0-9]*") if int(path.name) not in ranks for inode in _sockets(path)}
    own = {inode for pid in ranks for inode in _sockets(Path(f"/proc/{pid}"))} - others
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in own and not fields[1].startswith("0100007F"):  # 0A: listens
                found.append(fields[1])
    return found


def _sockets(process: Path) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    with contextlib.suppress(OSError):
        for path in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                target = os.readlink(path)
                if target.startswith("socket:["):
                    found.add(target[8:-1])
    return found
