"""Which process am I among how many: a value, read once from the environment and passed along."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bertkit.errors import UserError
from bertkit.files.inputs import whole_number


@dataclass(frozen=True)
class World:
    """This process's place among the processes of one job."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "alone"
    address: str = ""  # "host:port" where the processes may meet; empty: the launcher gave none

    @property
    def is_first(self) -> bool:
        return self.rank == 0


# How launchers spell (rank, size, local rank, local size), the first that is set wins.
SPELLINGS: Mapping[str, tuple[str, str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "Hydra": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # Intel MPI, MPICH
}
# What srun gives every process of a step.
SLURM = (
    "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID",
    "SLURM_STEP_NODELIST", "SLURM_JOB_ID",
)  # fmt: skip
NO_STEP = 0xFFFFFFF0  # from here on Slurm numbers batch scripts and interactive shells
MOST = 1 << 31  # no job has as many processes, nor any of these variables a larger value
_HELP = "start the job through its launcher again, or unset these variables"


def from_env(env: Mapping[str, str] = os.environ) -> World:
    """The world that the launcher's environment variables describe; one process alone where there are none.

    Raises UserError where a launcher set some of its variables but not all, or what does not fit together:
    guessing would let every process train a model of its own.
    """
    step = _in_step(env)
    for launcher, names in SPELLINGS.items():
        present = [name for name in names if env.get(name)]
        if not {names[0], names[1]} & set(present):
            continue
        if launcher == "Hydra" and step and not {names[2], names[3]} & set(present):
            continue  # `srun --mpi=pmi2` sets PMI_RANK and PMI_SIZE too
        known = _of_one(names, env)
        _whole(launcher, names, known)
        rank, size, local_rank, local_size = (_number(launcher, name, known) for name in names)
        return _checked(World(rank, size, local_rank, local_size, launcher, _address(env)))
    return _slurm_world(env) if step else World()


def _of_one(names: tuple[str, str, str, str], env: Mapping[str, str]) -> Mapping[str, str]:
    """`env` with what a job of one process leaves no doubt about: Kubeflow's, for one, gives rank and size alone."""
    if env.get(names[0], "").strip() != "0" or env.get(names[1], "").strip() != "1":
        return env
    return {names[2]: "0", names[3]: "1"} | {name: value for name, value in env.items() if value}


def _address(env: Mapping[str, str]) -> str:
    host, port = env.get("MASTER_ADDR"), env.get("MASTER_PORT")
    return f"{host}:{port}" if host and port else ""


def _whole(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> None:
    missing = [name for name in names if not env.get(name)]
    if missing:
        first = next(name for name in names if env.get(name))
        raise UserError(
            f"the environment is set by half: {launcher} gives {first} but not {', '.join(missing)}",
            _HELP,
        )


def _number(launcher: str, name: str, env: Mapping[str, str]) -> int:
    return whole_number(env[name], f"{launcher}'s {name}", 0, MOST - 1, _HELP)


def _checked(world: World) -> World:
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        raise UserError(
            f"{world.launcher}'s environment is inconsistent: rank {world.rank} of {world.size}, "
            f"local {world.local_rank} of {world.local_size}",
            _HELP,
        )
    return world


# ---- Slurm ----


def _in_step(env: Mapping[str, str]) -> bool:
    """Whether srun started this process in a step. A batch script is in none, though SLURM_PROCID stands there."""
    step = env.get("SLURM_STEP_ID", "")
    known = step.isascii() and step.isdecimal() and len(step) <= 10
    return known and int(step) < NO_STEP and bool(env.get("SLURM_STEP_NUM_TASKS"))


def _slurm_world(env: Mapping[str, str]) -> World:
    _whole("Slurm", SLURM, env)
    rank, size, local_rank, node, job, step = (
        _number("Slurm", name, env)
        for name in (*SLURM[:3], "SLURM_NODEID", "SLURM_JOB_ID", "SLURM_STEP_ID")
    )  # fmt: skip
    local_size = tasks_on_node(env["SLURM_STEP_TASKS_PER_NODE"], node)
    host = env.get("MASTER_ADDR") or first_node(env["SLURM_STEP_NODELIST"])
    port = env.get("MASTER_PORT") or str(20000 + job % 10000 + step % 100)  # below the ports that systems deal out
    return _checked(World(rank, size, local_rank, local_size, "Slurm", f"{host}:{port}"))


def tasks_on_node(text: str, node: int) -> int:
    """Of Slurm's "4(x2),3" (4, 4 and 3 processes) the count of node number `node`, from 0. Raises UserError."""
    passed = 0
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,9})(?:\(x([0-9]{1,12})\))?", part)
        if found is None:
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE = {text!r} is not understood at {part!r}", _HELP)
        passed += int(found[2] or 1)
        if 0 <= node < passed:
            return int(found[1])
    raise UserError(f"SLURM_STEP_TASKS_PER_NODE = {text!r} tells of {passed} nodes, SLURM_NODEID is {node}", _HELP)


def first_node(text: str) -> str:
    """The first host of Slurm's "gpu[003-004,7],x1": gpu003. Raises UserError."""
    found = re.match(r"(?:[^][,]|\[[0-9]+[-,0-9]*\])+(?=,|$)", text)
    if found is None:
        raise UserError(f"SLURM_STEP_NODELIST = {text!r} is not understood", _HELP)
    return re.sub(r"\[([0-9]+)[^]]*\]", r"\1", found[0])
