"""The plan of an MPI job, without starting anything: what is the same for every mpirun."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.plugin import (
    PLACES,
    Binding,
    LaunchPlan,
    Machine,
    Process,
    Request,
    UserError,
    format_places,
    rank_command,
    rank_env,
    refuse_nested,
    thread_count,
)
from bertkit.plugin import binding_places as places
from bertkit_mpi.hydra import intel, mpich
from bertkit_mpi.job import Job, Line
from bertkit_mpi.mpirun import Flavour, Mpirun
from bertkit_mpi.open_mpi import open_mpi_4, open_mpi_5

DEFAULT_PORT = "29500"  # torchrun's
# What a rank on another host needs of this environment to find the same programs, and bertkit's and OpenMP's own.
PATHS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
PREFIXES = ("OMP_", "KMP_", "BERTKIT_")
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_NETWORK = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FLAVOURS: Mapping[Flavour, Callable[[Job], Line]] = {
    "open-mpi-4": open_mpi_4,
    "open-mpi-5": open_mpi_5,
    "intel": intel,
    "mpich": mpich,
}


def mpi_plan(
    request: Request,
    machine: Machine,
    mpirun: Mpirun,
    env: Mapping[str, str],
    is_root: bool,
    *,
    allocator: str = "",
    numactl: bool = True,
) -> LaunchPlan:
    """The plan for `mpirun`, on hosts like `machine`; `env` is the environment that it will be started in.

    `allocator` is the path of a library to load into every rank, `numactl` whether that program is here. Raises
    UserError where the request does not fit, or this is already a process of a job.
    """
    refuse_nested(env)
    if request.nodes:
        raise UserError("mpirun starts the processes of all hosts", "drop --nnodes, or take --launcher torchrun")
    _check_words(request)
    where = places(machine, request)
    threads, formula = thread_count(machine, where[0], len(where), request)
    added = rank_env(threads, allocator, env)
    added["MASTER_ADDR"] = request.hosts[0] if request.hosts else "127.0.0.1"
    added["MASTER_PORT"] = str(request.port or env.get("MASTER_PORT") or DEFAULT_PORT)
    added[PLACES] = ""  # its value is known below; its name travels like the others
    job = Job(request, machine, where, mpirun, is_root, _forwarded(request, env, added))
    line = _FLAVOURS[mpirun.flavour](job)
    added[PLACES] = format_places(_left_to_rank(machine, where, line.binds))
    added |= {name: value for name, value in line.usual.items() if name not in env} | dict(line.env)
    program = rank_command(request)
    hosts = request.hosts or ("localhost",)
    processes = tuple(
        Process(host_index * len(where) + local, host, local, place, program, added)
        for host_index, host in enumerate(hosts)
        for local, place in enumerate(where)
    )
    return LaunchPlan(
        argv=(mpirun.path, *line.options, *program),
        env=added,
        processes=processes,
        notes=(line.words, f"threads of each process: {threads} ({formula})", *line.notes),
        warnings=_warnings(machine, where, numactl),
        stop_signal=line.stop_signal,
        lost_peer_codes=line.lost_peer_codes,
    )


def _check_words(request: Request) -> None:
    """What becomes part of a command line is a plain word, so that none is taken for an option or splits."""
    for host in request.hosts:
        if not _HOST.fullmatch(host):
            raise UserError(f"{host!r} is no name of a host", "write names or IPv4 addresses, without ports")
    if len(set(request.hosts)) < len(request.hosts):
        raise UserError("a host is named twice", "name each once and ask for more processes on each")
    if len(request.hosts) > 1 and (request.hosts[0] == "localhost" or request.hosts[0].startswith("127.")):
        raise UserError(
            f"{request.hosts[0]} is the first of several hosts", "name it as the others reach it: the ranks meet there"
        )
    if request.interface and not all(_NETWORK.fullmatch(part) for part in request.interface.split(",")):
        raise UserError(f"{request.interface!r} is no network", "write an interface as eth0, or a net as 10.0.0.0/24")
    for name in request.forward:
        if not _VARIABLE.fullmatch(name):
            raise UserError(f"{name!r} is no name of an environment variable", "name it only, without a value")
    if any(letter.isspace() for letter in request.ssh_config):
        raise UserError(f"the path {request.ssh_config!r} holds white space", "mpirun would split it: use another")


def _forwarded(request: Request, env: Mapping[str, str], added: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the variables that every rank gets, sorted. Values stay out of command lines: they may be secrets."""
    wanted = {*PATHS, *request.forward, *(name for name in env if name.startswith(PREFIXES))}
    return tuple(sorted({name for name in wanted if name in env} | set(added)))


def _left_to_rank(machine: Machine, where: tuple[Binding, ...], mpirun_binds: bool) -> tuple[Binding, ...]:
    """What each rank binds by itself: its CPUs where mpirun does not, its memory where there is a choice."""
    several = len({core.node for core in machine.cores} - {-1}) > 1
    return tuple(
        replace(place, cpus=() if mpirun_binds else place.cpus, nodes=place.nodes if several else ()) for place in where
    )


def _warnings(machine: Machine, where: tuple[Binding, ...], numactl: bool) -> tuple[str, ...]:
    found = []
    cores = len(machine.cores)
    bound = {cpu for place in where for cpu in place.cpus}
    idle = sum(not bound & set(core.cpus) for core in machine.cores)
    if bound and idle:
        found.append(f"{idle} of {cores} cores stay idle: every process gets as many as the others")
    if not bound:
        found.append(f"{len(where)} processes share {cores} cores, unbound: they take turns and wait for one another")
    if machine.quota is not None and machine.quota < cores:
        found.append(f"the cgroup's limit is {machine.quota:g} of {cores} cores: threads are counted by the limit")
    if not numactl and any(place.nodes for place in where) and len({core.node for core in machine.cores}) > 1:
        found.append("numactl is not installed: memory is not bound, the kernel takes the node that first uses it")
    return tuple(found)
