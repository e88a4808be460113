"""The MPI library that belongs to an mpirun: looked for beside it, and tried before any rank relies on it.

mpi4py takes a library that lies in its own environment first, whatever mpirun started it. And not all that is called
libmpi.so is one: in the wheels of MPICH and Open MPI that name is a linker's script of 20 bytes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bertkit_mpi.mpirun import Mpirun

SECONDS = 60.0  # that loading a library may take: a network file system can be slow
# MPI_Get_library_version may be called before MPI is begun; the longest text is MPICH's, 8192 bytes.
TRY = """import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
text, length = ctypes.create_string_buffer(8193), ctypes.c_int()
library.MPI_Get_library_version(text, ctypes.byref(length))
print(text.value.decode(errors="replace").splitlines()[0])"""


def own_library(mpirun: Mpirun, env: Mapping[str, str]) -> tuple[str, str]:
    """(the library of this mpirun, for MPI4PY_LIBMPI; a warning). "" where none beside it loads; "": all is well.

    `env`: the environment that the ranks will have. Runs a Python for each library that is tried.
    """
    failures = []
    for path in candidates(mpirun):
        reason = _unusable(path, mpirun, env)
        if not reason:
            return str(path), ""
        failures.append(f"{path}: {reason}")
    return "", f"no MPI library beside {mpirun.path} can be used ({failures[0]})" if failures else ""


def candidates(mpirun: Mpirun) -> Iterator[Path]:
    """Files that may be the library, the likeliest first: programs are linked to a name with a number."""
    home = Path(mpirun.path).resolve().parent.parent
    # lib/release: Intel MPI before 2021.11; the last is Debian's, who calls MPICH's libmpich.so
    folders = [home / "lib", home / "lib/release", home / "lib64", *sorted(home.glob("lib/*-linux-gnu"))]
    seen = set()
    for folder in folders:
        found = (path for pattern in ("libmpi.so*", "libmpich.so*") for path in folder.glob(pattern))
        for path in sorted(found, key=lambda path: (path.name.endswith(".so"), len(path.name), path.name)):
            if path.is_file() and path.resolve() not in seen:
                seen.add(path.resolve())
                yield path


def _unusable(path: Path, mpirun: Mpirun, env: Mapping[str, str]) -> str:
    """Why `path` is no library for the ranks of `mpirun`; "": it is one."""
    try:
        with path.open("rb") as file:
            if file.read(4) != b"\x7fELF":
                return "is no library"
        done = subprocess.run(
            [sys.executable, "-I", "-c", TRY, str(path)],
            env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode:
        last = (done.stderr.splitlines() or [f"exit code {done.returncode}"])[-1]
        return "does not load: " + re.sub(r"^\w+Error: ", "", last)
    if ("Open MPI" in done.stdout) != mpirun.flavour.startswith("open-mpi"):
        return f"is {done.stdout.strip()}"
    return ""
