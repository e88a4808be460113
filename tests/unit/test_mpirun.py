"""Which mpirun is taken, and what it is. The programs here only print what real ones print."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertkit.distributed.topology import Core, Machine
from bertkit.errors import UserError
from bertkit.launch.interface import Request
from bertkit_mpi import MpiLauncher, mpirun
from bertkit_mpi.mpirun import Mpirun, own_library, parse_version, probe

OPEN_MPI_4 = "mpirun (Open MPI) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/"
OPEN_MPI_5 = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/"
INTEL = """\
Intel(R) MPI Library for Linux* OS, Version 2021.19.0 Build 20260929 (id: 1821d9b)
Copyright 2003-2026, Intel Corporation."""
MPICH = """\
HYDRA build details:
    Version:                                 5.0.2
    Release Date:                            Fri Sep 25 20:45:26 UTC 2026
    CC:                              cc"""


def program(path: Path, text: str, then: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{then}\ncat <<'END'\n{text}\nEND\n", encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OPEN_MPI_4, ("open-mpi-4", "4.1.4")),
        (OPEN_MPI_5, ("open-mpi-5", "5.0.11")),
        ("mpirun (Open MPI) 5.1.0rc2", ("open-mpi-5", "5.1.0rc2")),
        (INTEL, ("intel", "2021.19.0")),
        (MPICH, ("mpich", "5.0.2")),
    ],
)
def test_versions(text: str, expected: tuple[str, str]) -> None:
    assert parse_version(text) == expected


@pytest.mark.parametrize("text", ["", "mpirun 3", "mpirun (Open MPI) x", "mpirun (Open MPI) 3.1.6", "\0" * 500])
def test_other_programs_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="mpirun"):
        parse_version(text)


def test_a_sites_mpirun_comes_before_the_packages(tmp_path: Path) -> None:
    own = program(tmp_path / "venv/bin/mpirun", OPEN_MPI_5)
    python = str(program(tmp_path / "venv/bin/python", ""))
    search = f"{own.parent}:/usr/bin:/bin"
    only_cat = tmp_path / "cat"
    only_cat.mkdir()
    (only_cat / "cat").symlink_to("/bin/cat")
    (only_cat / "sh").symlink_to("/bin/sh")
    alone = {"PATH": f"{own.parent}::{tmp_path}/empty:{only_cat}"}
    assert probe(alone, python) == Mpirun(str(own), "open-mpi-5", "5.0.11")
    site = program(tmp_path / "site/bin/mpirun", OPEN_MPI_4)
    assert probe({"PATH": f"{own.parent}:{site.parent}:{only_cat}"}, python) == Mpirun(str(site), "open-mpi-4", "4.1.4")
    assert probe({"PATH": f"{site.parent}:{only_cat}"}, python).path == str(site)
    named = {"PATH": search, "BERTKIT_MPIRUN": str(own)}
    assert probe(named, python).path == str(own)


def test_without_any_the_cure_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"bertkit\[mpi\]"):
        probe({"PATH": str(tmp_path)}, str(tmp_path / "python"))
    with pytest.raises(UserError, match="BERTKIT_MPIRUN"):
        probe({"PATH": "", "BERTKIT_MPIRUN": str(tmp_path / "absent")}, "python")


def test_an_mpirun_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mpirun, "SECONDS", 0.2)
    slow = program(tmp_path / "mpirun", OPEN_MPI_5, then="exec sleep 5")
    with pytest.raises(UserError, match="timed out"):
        probe({"PATH": "/bin:/usr/bin", "BERTKIT_MPIRUN": str(slow)}, "python")
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    with pytest.raises(UserError, match="failed"):
        probe({"BERTKIT_MPIRUN": str(broken)}, "python")


def test_intels_script_is_passed_over(tmp_path: Path) -> None:
    script = program(tmp_path / "mpirun", INTEL)
    env = {"PATH": "/bin:/usr/bin", "BERTKIT_MPIRUN": str(script)}
    assert probe(env, "python").path == str(script)
    hydra = program(tmp_path / "mpiexec.hydra", "")
    assert probe(env, "python") == Mpirun(str(hydra), "intel", "2021.19.0")


def test_the_launcher_plans_for_what_it_finds(tmp_path: Path) -> None:
    path = program(tmp_path / "mpirun", MPICH)
    env = {"PATH": "/bin:/usr/bin", "BERTKIT_MPIRUN": str(path)}
    machine = Machine((Core((0,), 0, 0), Core((1,), 0, 0)))
    plan = MpiLauncher().plan(Request(("check",), processes=2, allocator="system", python="py"), machine, env)
    assert plan.argv[0] == str(path)
    assert plan.argv[-5:] == ("py", "-P", "-m", "bertkit.launch.rank_process", "check")
    assert plan.notes[0] == f"MPICH 5.0.2, {path}"


@pytest.mark.parametrize("place", ["lib", "lib64", "lib/x86_64-linux-gnu"])
def test_the_library_beside_an_mpirun_is_its_own(place: str, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    path = tmp_path / "bin" / "mpirun"
    path.touch()
    assert own_library(Mpirun(str(path), "open-mpi-4", "4.1.4")) == ""
    library = tmp_path / place / "libmpi.so.40"
    library.parent.mkdir(parents=True)
    library.touch()
    assert own_library(Mpirun(str(path), "open-mpi-4", "4.1.4")) == str(library)
    assert own_library(Mpirun(str(path), "mpich", "5.0.2")) == ""
