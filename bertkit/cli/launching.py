"""What `bertkit launch` does once its options are read. Kept apart so that `--help` imports none of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from bertkit.cli.inner import check as check_inner
from bertkit.console import Display
from bertkit.distributed.hwloc import from_hwloc
from bertkit.distributed.topology import read_machine
from bertkit.engine.registry import Choice, choose
from bertkit.errors import UserError, nearest
from bertkit.files.disk import to_json, write_text
from bertkit.files.streams import put, put_json
from bertkit.launch.hosts import Network, network_of
from bertkit.launch.interface import Allocator, Domain, LaunchPlan, Request, SlurmOptions, ThreadRule, find_launcher
from bertkit.launch.job import Way, carry_out, hand_in, introduce, planner, show, to_mapping
from bertkit.launch.script import check_script, is_script, job_name

STARTED = ("train", "evaluate", "predict", "bench", "data prepare")  # what several processes can do together


@dataclass(frozen=True)
class Words:
    """The options of `bertkit launch`, in the order of its signature."""

    command: tuple[str, ...]
    processes: int | None
    mpi_sockets: bool
    per_socket: int
    numa: bool
    hosts: str
    slurm: Path | None
    submit: bool
    nodes: int
    sbatch: tuple[str, ...]
    container: str
    mounts: tuple[str, ...]
    launcher: str
    threads: str
    reserve_cores: int
    allocator: str
    oversubscribe: bool
    ssh_port: int
    ssh_config: str
    interface: str
    forward: tuple[str, ...]
    port: int
    max_restarts: int
    grace: float
    tag_output: bool
    logs: Path | None
    topology: Path | None
    dry_run: bool
    json: bool


def run_launch(words: Words, root: Any) -> int:
    """Plan, then show, write or start. `root`: bertkit's whole command line. Returns the exit code."""
    _check(words)
    if words.dry_run or words.slurm:  # else the ranks themselves say what is wrong
        _check_inner(words, root)
    network = network_of(words.hosts, words.ssh_port, words.interface, os.environ)
    launcher = find_launcher(_launcher_name(words, network))
    machine = from_hwloc(words.topology) if words.topology else read_machine()
    request = _request(words, network)
    plan = planner(launcher, machine, os.environ)
    display = Display()
    if words.dry_run or words.slurm:
        made = plan(request)
        introduce(made, display)
        if words.json:
            put_json(to_json(to_mapping(made), indent=2))
        elif words.dry_run:
            put("\n".join(show(made)))
        if words.slurm and not words.dry_run:
            _hand_in(made, words.slurm, words.submit, display)
        return 0
    launcher.check(request, os.environ)
    way = Way(words.tag_output, words.grace, words.max_restarts, words.logs)
    return carry_out(request, plan, way, display)


def _check(words: Words) -> None:
    """Raises UserError for words that do not go together."""
    named = " ".join(words.command[: 2 if words.command[0] == "data" else 1])
    if is_script(words.command):
        check_script(words.command, here=not words.slurm and not words.hosts)
    elif named not in STARTED:
        raise UserError(f"{named!r} is no command for several processes", nearest(named, (*STARTED, "python")))
    for value, known in ((words.threads, ThreadRule), (words.allocator, Allocator)):
        if value not in get_args(known):
            raise UserError(f"{value!r} is not known", "choose " + ", ".join(get_args(known)))
    if words.topology and not words.dry_run:
        raise UserError("--topology describes another machine", "add --dry-run")
    if words.slurm and (words.hosts or words.max_restarts):
        raise UserError("Slurm chooses the hosts and restarts jobs itself", "drop --hosts and --max-restarts")
    if words.submit and not words.slurm:
        raise UserError("--submit needs --slurm FILE", "name the file")


def _check_inner(words: Words, root: Any) -> None:
    """What a script does is not known before it runs."""
    if not is_script(words.command):
        check_inner(root, words.command)


def _launcher_name(words: Words, network: Network) -> str:
    if words.launcher:
        return words.launcher
    if words.slurm:
        return "slurm"
    return "mpi" if words.mpi_sockets or network.hosts else "torchrun"


def _request(words: Words, network: Network) -> Request:
    choice = _backend(words.command, words.dry_run or words.slurm is not None)
    probe = choice.backend.probe()
    cards = probe.cards
    domain: Domain = "machine" if not words.mpi_sockets else "numa" if words.numa else "socket"
    if words.processes is None and not cards and domain == "machine" and not network.hosts:
        raise UserError("how many processes?", "give -n N, or --mpi-sockets for one process per CPU socket")
    prefixes = choice.backend.capabilities.environment
    forward = {name for name in os.environ if prefixes and name.startswith(prefixes)} | set(words.forward)
    return Request(
        words.command,
        processes=words.processes,
        domain=domain,
        per_domain=words.per_socket,
        hosts=network.hosts,
        cards=cards,
        thread_rule=cast(ThreadRule, words.threads),
        reserve_cores=words.reserve_cores,
        allocator=cast(Allocator, words.allocator),
        # the plan is for a machine with the cards, which this one is not: its cores say nothing
        oversubscribe=words.oversubscribe or (not probe.ready and not words.slurm),
        interface=network.interface,
        ssh_port=network.ssh_port,
        ssh_config=words.ssh_config,
        forward=tuple(sorted(forward)),
        port=words.port,
        python=sys.executable,
        batch=SlurmOptions(words.nodes, words.sbatch, words.container, words.mounts, name=job_name(words.command)),
    )


def _backend(command: Sequence[str], elsewhere: bool) -> Choice:
    """The backend that the command will run on, where its words or the environment name one or `auto` finds it.

    `elsewhere`: nothing is started here, so it need not be ready.
    """
    name = os.environ.get("BERTKIT_BACKEND", "auto")
    for at, word in enumerate(() if is_script(command) else command):
        if word == "--backend" and at + 1 < len(command):
            name = command[at + 1]
        elif word.startswith("--backend="):
            name = word.removeprefix("--backend=")
        elif word.startswith("backend=") and at and command[at - 1] == "--set":
            name = word.removeprefix("backend=")
    return choose(name, elsewhere)


def _hand_in(plan: LaunchPlan, path: Path, submit: bool, display: Display) -> None:
    """Write the script; with --submit give it to the program that the plan names."""
    write_text(path, plan.script)
    if submit:
        display.say(f"submitted as job {hand_in(plan, path)}")
    else:
        display.say(f"written: {path}; submit it with `{shlex.join([plan.argv[0], str(path)])}`")
