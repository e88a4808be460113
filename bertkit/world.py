"""Which process am I among how many: a value, read once from the environment and passed along."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from bertkit.errors import UserError


@dataclass(frozen=True)
class World:
    """This process's place among the processes of one job."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    launcher: str = "alone"

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
    "Hydra": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
}


def from_env(env: Mapping[str, str] = os.environ) -> World:
    """The world that the launcher's environment variables describe; one process alone where there are none.

    Raises UserError where a launcher set some of its variables but not all, or no rendezvous address:
    guessing would let every process train a model of its own.
    """
    for launcher, names in SPELLINGS.items():
        present = [name for name in names if env.get(name)]
        if not present or not {names[0], names[1]} & set(present):
            continue
        missing = [name for name in names if not env.get(name)]
        if missing:
            raise UserError(
                f"the environment is set by half: {launcher} gives {present[0]} but not {', '.join(missing)}",
                "start the job through its launcher again, or unset these variables",
            )
        world = _parse(launcher, names, env)
        if world.size > 1 and not (env.get("MASTER_ADDR") and env.get("MASTER_PORT")):
            raise UserError(
                f"{launcher} started {world.size} processes but MASTER_ADDR and MASTER_PORT are not set",
                "export both to every process (the first process's host and a free port)",
            )
        return world
    return World()


def _parse(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> World:
    try:
        rank, size, local_rank, local_size = (int(env[name]) for name in names)
    except ValueError as error:
        raise UserError(f"{launcher}'s environment holds no number: {error}", "unset it or start again") from None
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        raise UserError(
            f"{launcher}'s environment is inconsistent: rank {rank} of {size}, local {local_rank} of {local_size}",
            "start the job through its launcher again, or unset these variables",
        )
    return World(rank, size, local_rank, local_size, launcher)
