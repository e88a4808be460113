"""Which mpirun there is: its path, whose it is, its version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertkit.plugin import UserError

Flavour = Literal["open-mpi-4", "open-mpi-5", "intel", "mpich"]
NAMES: Mapping[Flavour, str] = {
    "open-mpi-4": "Open MPI",
    "open-mpi-5": "Open MPI",
    "intel": "Intel MPI",
    "mpich": "MPICH",
}
ENV_NAME = "BERTKIT_MPIRUN"
SECONDS = 20.0  # that `mpirun --version` may take: a network file system can be slow


@dataclass(frozen=True)
class Mpirun:
    path: str  # absolute: Open MPI then finds its own parts on every host
    flavour: Flavour
    version: str

    @property
    def words(self) -> str:
        return f"{NAMES[self.flavour]} {self.version}"


def probe(env: Mapping[str, str], python: str) -> Mpirun:
    """The mpirun that BERTKIT_MPIRUN names, else the first on PATH that is not beside `python`, else that one.

    A site's own MPI knows its network; the one of the package beside `python` is for where there is none. Raises
    UserError where there is none at all, or it does not say what it is.
    """
    if named := env.get(ENV_NAME):
        path = shutil.which(named, path=env.get("PATH"))
        if path is None:
            raise UserError(f"{ENV_NAME}={named} is no program", "name an mpirun that is there, or unset it")
    else:
        path = _find(env.get("PATH", ""), python)
        if path is None:
            raise UserError(
                "no mpirun was found on PATH nor beside Python",
                "pip install 'bertkit[mpi]', or load the site's MPI module",
            )
    path = str(Path(path).absolute())
    flavour, version = parse_version(_ask(path, env), path)
    if flavour == "intel":
        # Intel's mpirun is a shell script that a signal ends, and it alone: the ranks would never hear of it.
        hydra = Path(path).with_name("mpiexec.hydra")
        path = str(hydra) if hydra.is_file() else path
    return Mpirun(path, flavour, version)


def _find(search: str, python: str) -> str | None:
    """The mpirun to take of those on the PATH `search` and the one beside `python`."""
    program = shutil.which(python, path=search)
    own = Path(program or python).parent.resolve()
    for folder in search.split(":"):
        if folder and Path(folder).resolve() != own and (path := shutil.which("mpirun", path=folder)):
            return path
    return shutil.which("mpirun", path=str(own))


def _ask(path: str, env: Mapping[str, str]) -> str:
    """What `mpirun --version` says. Intel's is a shell script that calls the program beside it by its bare name."""
    search = os.pathsep.join(part for part in (str(Path(path).parent), env.get("PATH", "")) if part)
    try:
        done = subprocess.run(  # errors="replace": it may speak another encoding
            (path, "--version"),
            env={**env, "PATH": search},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"{path} --version failed: {error}", f"repair it, or name another in {ENV_NAME}") from None
    return f"{done.stdout}\n{done.stderr}"


def parse_version(text: str, path: str = "mpirun") -> tuple[Flavour, str]:
    """Whose mpirun says `text`, and its version. Raises UserError for one that bertkit does not know."""
    if match := re.search(r"\(Open MPI\) ([0-9]{1,4})(\.[0-9][\w.]*)", text):
        if int(match[1]) < 4:
            raise UserError(f"{path} is Open MPI {match[1]}{match[2]}", "version 4 or newer is needed")
        return ("open-mpi-4" if match[1] == "4" else "open-mpi-5"), match[1] + match[2]
    if match := re.search(r"Intel\(R\) MPI Library.*Version ([0-9][\w.]*)", text):
        return "intel", match[1]
    if match := re.search(r"HYDRA build details:\s+Version:\s+([0-9][\w.]*)", text):
        return "mpich", match[1]
    said = " ".join(text.split())[:80]
    raise UserError(
        f"{path} --version is not recognized: {said!r}",
        f"Open MPI, Intel MPI and MPICH are known; name one of them in {ENV_NAME}",
    )
