"""Which mpirun is taken, and what it is. The programs here only print what real ones print."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bertkit.distributed.topology import Core, Machine
from bertkit.errors import UserError
from bertkit.launch.interface import Request
from bertkit_mpi import MpiLauncher, mpirun
from bertkit_mpi.matching import own_library
from bertkit_mpi.mpirun import Flavour, Mpirun, parse_version, probe

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


def test_intels_script_finds_the_program_beside_it(tmp_path: Path) -> None:
    """It calls mpiexec.hydra by that name alone, and its folder need not be on PATH."""
    program(tmp_path / "mpiexec.hydra", INTEL)
    script = tmp_path / "mpirun"
    script.write_text('#!/bin/sh\nmpiexec.hydra "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    found = probe({"PATH": "/bin:/usr/bin", "BERTKIT_MPIRUN": str(script)}, "python")
    assert found == Mpirun(str(tmp_path / "mpiexec.hydra"), "intel", "2021.19.0")


# ---- the library that belongs to it ----

OPEN_MPI = "Open MPI v5.0.11, package: Open MPI"
FLAVOURS: dict[Flavour, str] = {
    "open-mpi-4": "Open MPI v4.1.4", "open-mpi-5": OPEN_MPI, "mpich": "MPICH Version:      5.0.2",
    "intel": "Intel(R) MPI Library 2021.19 for Linux* OS",
}  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Small shared libraries with one function of MPI's."""
    compiler = shutil.which("cc") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("libraries")

    @functools.cache
    def build(said: str) -> bytes:
        source, target = folder / "mpi.cpp", folder / "mpi.so"
        source.write_text(
            "#include <string.h>\n"
            'extern "C" int MPI_Get_library_version(char *text, int *length)'
            f' {{ strcpy(text, "{said}"); *length = {len(said)}; return 0; }}\n'
        )
        subprocess.run([compiler, "-shared", "-fPIC", "-o", target, source], check=True)
        return target.read_bytes()

    return build


def placed(folder: Path, **files: bytes) -> Path:
    """An mpirun, with these files in folders beside its own; "__" in a name is "/", "_so" is ".so"."""
    (folder / "bin").mkdir()
    (folder / "bin" / "mpirun").touch()
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_so", ".so").replace("so_", "so.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "bin" / "mpirun"


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("place", ["lib", "lib64", "lib__x86_64-linux-gnu", "lib__release"])
def test_the_library_beside_an_mpirun_is_its_own(
    place: str, flavour: Flavour, tmp_path: Path, built: Callable[[str], bytes]
) -> None:
    script, version = b"INPUT(libmpi.so.40)\n", "12" if flavour in ("mpich", "intel") else "40"
    files = {f"{place}__libmpi_so": script, f"{place}__libmpi_so_{version}": built(FLAVOURS[flavour])}
    path = placed(tmp_path, **files)
    found = own_library(Mpirun(str(path), flavour, "1"), os.environ)
    assert found == (f"{tmp_path}/{place.replace('__', '/')}/libmpi.so.{version}", "")


def test_anothers_library_in_the_same_folder_is_passed_over(tmp_path: Path, built: Callable[[str], bytes]) -> None:
    """As in Debian, where libmpi.so.40 is Open MPI's and libmpich.so.12 the other's."""
    files = {"lib__libmpi_so_40": built(OPEN_MPI), "lib__libmpich_so_12": built(FLAVOURS["mpich"])}
    path = str(placed(tmp_path, **files))
    assert own_library(Mpirun(path, "mpich", "5"), os.environ)[0].endswith("libmpich.so.12")
    assert own_library(Mpirun(path, "open-mpi-4", "4"), os.environ)[0].endswith("libmpi.so.40")


def test_what_does_not_load_is_warned_of_by_name(tmp_path: Path, built: Callable[[str], bytes]) -> None:
    path = placed(tmp_path, lib__libmpi_so=b"INPUT(libmpi.so.40)\n", lib__libmpi_so_40=built(OPEN_MPI)[:200])
    library, warning = own_library(Mpirun(str(path), "open-mpi-5", "5.0.11"), os.environ)
    assert library == ""
    assert f"no MPI library beside {path} can be used ({tmp_path}/lib/libmpi.so.40: does not load: " in warning
    (tmp_path / "lib" / "libmpi.so.40").unlink()
    assert own_library(Mpirun(str(path), "open-mpi-5", "5.0.11"), os.environ)[1].endswith("libmpi.so: is no library)")
    (tmp_path / "lib" / "libmpi.so").unlink()
    assert own_library(Mpirun(str(path), "open-mpi-5", "5.0.11"), os.environ) == ("", "")


def test_the_plan_names_the_library_to_the_ranks(tmp_path: Path, built: Callable[[str], bytes]) -> None:
    placed(tmp_path, lib__libmpi_so_12=built(FLAVOURS["mpich"]))
    path = program(tmp_path / "bin" / "mpirun", MPICH)
    machine = Machine((Core((0,), 0, 0), Core((1,), 0, 0)))
    request = Request(("check",), processes=2, allocator="system", python="py")
    env = {"PATH": "/bin:/usr/bin", "BERTKIT_MPIRUN": str(path)}
    plan = MpiLauncher().plan(request, machine, env)
    assert plan.env["MPI4PY_LIBMPI"] == str(tmp_path / "lib" / "libmpi.so.12")
    assert "MPI4PY_LIBMPI" in plan.argv[plan.argv.index("-genvlist") + 1].split(",")
    assert plan.warnings == ()
    kept = MpiLauncher().plan(request, machine, env | {"MPI4PY_LIBMPI": "/site/libmpi.so.12"})
    assert "MPI4PY_LIBMPI" not in kept.env  # the user's own, which travels
    assert "MPI4PY_LIBMPI" in kept.argv[kept.argv.index("-genvlist") + 1].split(",")
    (tmp_path / "lib" / "libmpi.so.12").write_bytes(b"INPUT(elsewhere)")
    assert "libmpi.so.12: is no library" in MpiLauncher().plan(request, machine, env).warnings[-1]
