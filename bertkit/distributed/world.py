"""Which process am I among how many: a value, read once from the environment and passed along."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bertkit.distributed.clusters import HELP, Nodes, address_of, nodes_of, number, per_host
from bertkit.distributed.neighbours import local_numbers
from bertkit.errors import UserError


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
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),  # Ray Train's too
    "Open MPI": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "PALS": ("PMI_RANK", "PMI_SIZE", "PALS_LOCAL_RANKID", "PALS_LOCAL_SIZE"),  # HPE Cray's mpiexec
    "Hydra": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # Intel MPI, MPICH
}
MPIS = ("Open MPI", "PALS", "Hydra")  # start MPI's ranks
# What srun gives every process of a step.
SLURM = (
    "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID",
    "SLURM_STEP_NODELIST", "SLURM_JOB_ID",
)  # fmt: skip
NO_STEP = 0xFFFFFFF0  # from here on Slurm numbers batch scripts and interactive shells


def from_env(env: Mapping[str, str] = os.environ) -> World:
    """The world that the launcher's or the cluster's environment variables describe; without any, one process alone.

    Where each process is told its rank and no more, all ranks meet once to learn which share a host.

    Raises UserError where variables are set by half, do not fit together or contradict one another: guessing would let
    every process train a model of its own.
    """
    by_rank = _by_rank_alone(env)
    spelled = {name: names for name, names in SPELLINGS.items() if name != "torchrun" or not by_rank}
    found = [world for launcher, names in spelled.items() if (world := _spelled(launcher, names, env))]
    if _in_step(env):
        found.append(_slurm_world(env))
    if by_rank:
        rank, size = number("the environment", "RANK", env), number("the environment", "WORLD_SIZE", env)
        same = [world for world in found if (world.rank, world.size) == (rank, size)]
        if same:  # as scripts copy srun's or mpirun's
            return replace(same[0], address=address_of(env) or same[0].address)
        _refuse_contradictions([World(rank, size, launcher="torchrun"), *found], env)
        return _told_by_rank(rank, size, env)
    if not found:
        nodes = nodes_of(env)
        return World() if nodes is None else _of_nodes(nodes)
    _refuse_contradictions(found, env)
    return found[0]


def _by_rank_alone(env: Mapping[str, str]) -> bool:
    """Whether RANK and WORLD_SIZE of several are set, and LOCAL_WORLD_SIZE is not."""
    names = SPELLINGS["torchrun"]
    return bool(env.get(names[0]) and env.get(names[1]) and not env.get(names[3])) and _of_one(names, env) is env


def _spelled(launcher: str, names: tuple[str, str, str, str], env: Mapping[str, str]) -> World | None:
    present = [name for name in names if env.get(name)]
    if launcher == "PALS":
        if not env.get("PALS_RANKID"):
            return None
        if not (env.get("RANK") and env.get("WORLD_SIZE")):
            _whole(launcher, ("PALS_RANKID", *names[:2]), env)  # `mpiexec --pmi=pmix` tells nobody the number of ranks
    if not {names[0], names[1]} & set(present):
        return None
    if launcher == "Hydra" and (env.get("PALS_RANKID") or (_in_step(env) and not {names[2], names[3]} & set(present))):
        return None  # `srun --mpi=pmi2` sets PMI_RANK and PMI_SIZE too
    known = _of_one(names, env)
    _whole(launcher, names, known)
    rank, size, local_rank, local_size = (number(launcher, name, known) for name in names)
    return _checked(World(rank, size, local_rank, local_size, launcher, address_of(env)))


def _of_one(names: tuple[str, str, str, str], env: Mapping[str, str]) -> Mapping[str, str]:
    """`env` with what a job of one process leaves no doubt about."""
    if env.get(names[0], "").strip() != "0" or env.get(names[1], "").strip() != "1":
        return env
    return {names[2]: "0", names[3]: "1"} | {name: value for name, value in env.items() if value}


def _told_by_rank(rank: int, size: int, env: Mapping[str, str]) -> World:
    """A world of RANK and WORLD_SIZE without LOCAL_WORLD_SIZE, as Kubeflow, Azure ML, PAI, Volcano or a script set it.

    The processes of a host come from the cluster's own variables; else from the hosts of all ranks, which meet for it.
    """
    nodes = nodes_of(env)
    if nodes is not None and not env.get("LOCAL_RANK"):
        return _agreeing(_of_nodes(nodes), rank, size, nodes)
    source = nodes.source if nodes else "Azure ML" if env.get("AZUREML_NODE_COUNT") else "the environment"
    each, name = per_host(env)
    if each and env.get("LOCAL_RANK"):
        local = number(source, "LOCAL_RANK", env)
    elif each == 1:
        local = 0
    elif each:
        raise UserError(
            f"{name} means {each} processes on each host, but which of them this is no LOCAL_RANK says", HELP
        )
    else:
        return _met(rank, size, env)
    if env.get("NODE_RANK") and number(source, "NODE_RANK", env) * each + local != rank:
        raise UserError(
            f"RANK={rank} contradicts NODE_RANK={env['NODE_RANK']} and LOCAL_RANK={local}; processes on each host: "
            f"{each} ({name})",
            HELP,
        )
    return _checked(World(rank, size, local, each, source, address_of(env)))


def _met(rank: int, size: int, env: Mapping[str, str]) -> World:
    """The local numbers as the ranks tell one another where they run."""
    address = address_of(env)
    world = _checked(World(rank, size, 0, 1, "the environment", address))
    if not address:
        raise UserError(
            "the environment is set by half: it gives RANK and WORLD_SIZE but neither LOCAL_WORLD_SIZE nor MASTER_ADDR "
            "and MASTER_PORT",
            "export MASTER_ADDR and MASTER_PORT to every process (the first process's host and a free port)",
        )
    local_rank, local_size = local_numbers(rank, size, address)
    told = env.get("LOCAL_RANK")
    if told and number("the environment", "LOCAL_RANK", env) != local_rank:
        raise UserError(f"LOCAL_RANK={told}, but this is number {local_rank} of the processes of its host", HELP)
    return replace(world, local_rank=local_rank, local_size=local_size)


def _of_nodes(nodes: Nodes) -> World:
    """The world of one process on each host, which is what runs where a cluster starts a command once on each."""
    if nodes.processes > 1 and nodes.count > 1:
        raise UserError(
            f"{nodes.source} gives each of {nodes.count} hosts {nodes.processes} processes, and this one was started "
            f"alone ({nodes.names})",
            "start it with `bertkit launch -- …`, which reads the same variables",
        )
    if nodes.count == 1:
        return World()
    return World(nodes.rank, nodes.count, 0, 1, nodes.source, nodes.address)


def _agreeing(world: World, rank: int, size: int, nodes: Nodes) -> World:
    """`world`, of a cluster's hosts, where RANK and WORLD_SIZE say the same."""
    if (rank, size) == (world.rank, world.size):
        return world
    if size > 1 and nodes.count * nodes.processes == size:
        raise UserError(
            f"WORLD_SIZE={size}: {nodes.source} gives each host {nodes.processes} processes, and this one was started "
            "alone",
            "start it with `bertkit launch -- …`, which reads the same variables",
        )
    raise UserError(
        f"RANK={rank} of WORLD_SIZE={size} contradicts {nodes.source}'s host {nodes.rank} of {nodes.count} "
        f"({nodes.names})",
        HELP,
    )


def _refuse_contradictions(found: list[World], env: Mapping[str, str]) -> None:
    """Raises UserError where two sources tell of different worlds of the same processes.

    One launcher may start another's processes: torchrun within mpirun or srun, mpirun's daemons by srun. The inner one
    comes first in `found`, and has more processes.
    """
    first = found[0]
    if first.launcher == "torchrun" and env.get("TORCHELASTIC_RUN_ID"):
        return
    for other in found[1:]:
        nested = first.size > other.size or (first.launcher in MPIS and other.launcher == "Slurm")
        if not nested and (first.rank, first.size) != (other.rank, other.size):
            raise UserError(
                f"{SPELLINGS.get(first.launcher, SPELLINGS['torchrun'])[0]} says rank {first.rank} of {first.size}, "
                f"{other.launcher} rank {other.rank} of {other.size}",
                "unset the variables that are left over from elsewhere",
            )


def _whole(launcher: str, names: tuple[str, ...], env: Mapping[str, str]) -> None:
    missing = [name for name in names if not env.get(name)]
    if missing:
        first = next(name for name in names if env.get(name))
        raise UserError(
            f"the environment is set by half: {launcher} gives {first} but not {', '.join(missing)}",
            HELP,
        )


def _checked(world: World) -> World:
    if not (0 <= world.rank < world.size and 0 <= world.local_rank < world.local_size <= world.size):
        raise UserError(
            f"{world.launcher}'s environment is inconsistent: rank {world.rank} of {world.size}, "
            f"local {world.local_rank} of {world.local_size}",
            HELP,
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
        number("Slurm", name, env)
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
            raise UserError(f"SLURM_STEP_TASKS_PER_NODE = {text!r} is not understood at {part!r}", HELP)
        passed += int(found[2] or 1)
        if 0 <= node < passed:
            return int(found[1])
    raise UserError(f"SLURM_STEP_TASKS_PER_NODE = {text!r} tells of {passed} nodes, SLURM_NODEID is {node}", HELP)


def first_node(text: str) -> str:
    """The first host of Slurm's "gpu[003-004,7],x1": gpu003. Raises UserError."""
    found = re.match(r"(?:[^][,]|\[[0-9]+[-,0-9]*\])+(?=,|$)", text)
    if found is None:
        raise UserError(f"SLURM_STEP_NODELIST = {text!r} is not understood", HELP)
    return re.sub(r"\[([0-9]+)[^]]*\]", r"\1", found[0])
