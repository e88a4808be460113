"""A batch script for Slurm: it starts the ranks, lets them save before the end, and queues itself again.

Nothing is started here: the script is to be read, and handed in with `sbatch FILE`.
"""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.plugin import (
    Binding,
    LaunchPlan,
    Machine,
    Process,
    Request,
    UserError,
    find_allocator,
    rank_command,
    rank_env,
    refuse_nested,
    thread_count,
)
from bertkit_slurm.options import check_batch, cpus_asked
from bertkit_slurm.script import Step, script


class SlurmLauncher:
    name = "slurm"

    def check(self, request: Request, env: Mapping[str, str]) -> None:
        """There are no other machines that this one starts."""

    def plan(self, request: Request, machine: Machine, env: Mapping[str, str]) -> LaunchPlan:
        """The nodes are taken to be as `machine` where the user says nothing of their CPUs.

        Raises UserError within another launcher, and for what cannot stand in a batch script.
        """
        refuse_nested(env)
        batch = request.batch
        check_batch(batch)
        _refuse_what_slurm_decides(request)
        processes = _processes(request, machine)
        asked = cpus_asked(batch.options)
        place = Binding(cores=asked or max(len(machine.cores) // processes, 1))
        threads, reason = thread_count(machine, place, processes, request)
        if asked:
            reason = f"the batch options ask for {asked} cores a process"
        allocator = "" if batch.container else find_allocator(request.allocator)  # an image has its own files
        rank = rank_env(threads, allocator)
        step = Step(processes, place.cores, rank, request)
        argv = rank_command(request)
        return LaunchPlan(
            argv=("sbatch", "--parsable"),  # reads the script from standard input
            env={},
            processes=tuple(
                Process(node * processes + local, f"node {node + 1} of {batch.nodes}", local, place, argv, rank)
                for node in range(batch.nodes)
                for local in range(processes)
            ),
            notes=(f"threads {threads}: {reason}", *_notes(request)),
            warnings=_warnings(request, machine, asked),
            script=script(step),
        )


def _refuse_what_slurm_decides(request: Request) -> None:
    if request.hosts:
        raise UserError(
            "Slurm chooses the hosts", "give their number as nodes, and names as the batch option --nodelist=a,b"
        )
    if request.nodes:
        raise UserError("Slurm numbers the hosts", "give their number with --nodes")
    if request.ssh_port or request.ssh_config:
        raise UserError("Slurm starts processes without ssh", "drop the ssh settings")
    if request.oversubscribe:
        raise UserError("Slurm gives every process cores of its own", "start fewer, without --oversubscribe")
    if "/" in request.interface:
        raise UserError(
            f"the network {request.interface} cannot be looked up on nodes that Slurm has yet to choose",
            "give the interface's name, as ib0",
        )
    if "=" in request.python:  # `env` would take it for a variable
        raise UserError(f"{request.python}: a program's path with = in it", "name another one, as a link to it")
    if request.processes is not None and request.processes < 1:
        raise UserError(f"{request.processes} processes on each node", "start 1 or more")


def _processes(request: Request, machine: Machine) -> int:
    """On each node: as asked, else one for each card, else `per_domain` in each domain of a machine like this."""
    if request.processes or request.cards:
        return request.processes or len(request.cards)
    domains = {
        "machine": {0},
        "socket": {core.socket for core in machine.cores},
        "numa": {core.node for core in machine.cores},
    }[request.domain]
    return max(len(domains), 1) * request.per_domain


def _notes(request: Request) -> tuple[str, ...]:
    notes = ["binding: Slurm's own, whole cores"]
    if request.forward:
        notes.append("environment: sbatch passes all of it on, " + ", ".join(request.forward) + " too")
    if request.cards:
        notes.append("devices: request them as this cluster names them, as in the batch option --gpus-per-node=8")
    return tuple(notes)


def _warnings(request: Request, machine: Machine, asked: int) -> tuple[str, ...]:
    """Where the plan rests on this machine instead of a node."""
    if asked and (request.processes or request.cards or request.domain == "machine"):
        return ()
    return (
        f"the nodes are taken to be like this machine, {len(machine.cores)} cores: where they are not, "
        "give the number of processes and the batch option --cpus-per-task=CORES",
    )
