"""`bertkit launch`"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from bertkit.cli import options as o
from bertkit.cli.launch_container import by_apptainer, check_container, device_options, launch_in_container
from bertkit.cli.launch_options import LaunchOptions
from bertkit.errors import UserError, nearest
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.console import Display
    from bertkit.engine.registry import Choice
    from bertkit.launch.hosts import Network
    from bertkit.launch.interface import Allocator, Domain, LaunchPlan, Request, SlurmOptions, ThreadRule

STARTED = (
    "train",
    "distill",
    "evaluate",
    "predict",
    "bench",
    "data prepare",
    "tune",
)  # what several processes can do together


def launch(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(
            metavar="-- COMMAND …", help="Command to start: of bertkit, as `train -t mrpc`, or `python my.py`."
        ),
    ],
    processes: Annotated[
        int | None,
        typer.Option("-n", "--processes", min=1, help="Processes per host; default: one process per GPU."),
    ] = None,
    mpi_sockets: Annotated[
        bool, typer.Option("--mpi-sockets", help="Start one process per CPU socket, bound to it, over MPI.")
    ] = False,
    per_socket: Annotated[int, typer.Option(min=1, help="Processes per socket (or NUMA node).")] = 1,
    numa: Annotated[
        bool, typer.Option("--numa", help="With --mpi-sockets: bind to NUMA nodes instead of sockets.")
    ] = False,
    hosts: Annotated[str, typer.Option(help="Hosts, comma-separated, over MPI and ssh; default: MULTI_HLS_IPS.")] = "",
    hostfile: Annotated[
        Path | None, typer.Option(help="File of hosts, over MPI and ssh: lines as `node1 slots=8` or `node1:8`.")
    ] = None,
    nnodes: Annotated[
        int | None,
        typer.Option(min=1, help="Hosts that each start this command, without ssh; default: those of the cluster."),
    ] = None,
    node_rank: Annotated[int | None, typer.Option(min=0, help="With --nnodes: number of this host, from 0.")] = None,
    master: Annotated[str, typer.Option(metavar="HOST:PORT", help="With --nnodes: where host 0 is reached.")] = "",
    slurm: Annotated[Path | None, typer.Option(help="Write a Slurm batch script to this file instead.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit with sbatch.")] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Slurm: number of nodes.")] = 1,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Slurm: option of sbatch, as --time=2:00:00; repeatable.")
    ] = None,
    container: Annotated[
        str, typer.Option(metavar="IMAGE", help="Run the processes in a container of this image or .sif file.")
    ] = "",
    container_engine: Annotated[
        str, typer.Option(help="Program for containers: docker, podman, apptainer; with --slurm apptainer or pyxis.")
    ] = "",
    container_option: Annotated[
        list[str] | None,
        typer.Option(help="Further option of that program, as --container-option=--pid=host; repeatable."),
    ] = None,
    mount: Annotated[
        list[str] | None, typer.Option(help="Folder or file for the container, FROM:TO or FROM:TO:ro; repeatable.")
    ] = None,
    shm_size: Annotated[
        str, typer.Option(help="Shared memory of the container, as 1g; default: half of the memory.")
    ] = "",
    launcher: Annotated[str, typer.Option(help="Launcher to use; default: chosen by the other options.")] = "",
    threads: Annotated[
        str, typer.Option(help="Threads per process: share, physical-minus-2 or logical-minus-2.")
    ] = "share",
    reserve_cores: Annotated[int, typer.Option(min=0, help="Cores per process reserved for communication.")] = 0,
    allocator: Annotated[
        str, typer.Option(help="Memory allocator to preload: auto, tcmalloc, jemalloc or system.")
    ] = "auto",
    oversubscribe: Annotated[bool, typer.Option("--oversubscribe", help="Allow more processes than cores.")] = False,
    ssh_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of ssh on the hosts; 0: the default of ssh.")
    ] = 0,
    ssh_config: Annotated[str, typer.Option(help="Configuration file of ssh (ssh -F).")] = "",
    interface: Annotated[str, typer.Option(help="Network between hosts, as eth0 or 10.0.0.0/24.")] = "",
    forward: Annotated[
        list[str] | None, typer.Option(help="Environment variable to forward to all ranks; repeatable.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Rendezvous port of the ranks; 0: a free one.")] = 0,
    max_restarts: Annotated[int, typer.Option(min=0, help="Maximum restarts, each from the latest checkpoint.")] = 0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds to save and exit before processes are killed.")] = 15.0,
    tag_output: Annotated[
        bool, typer.Option("--tag-output", help="Show the output of every rank, with its rank.")
    ] = False,
    logs: Annotated[Path | None, typer.Option(help="Folder for log files, one per rank.")] = None,
    topology: Annotated[
        Path | None, typer.Option(help="With --dry-run: plan for the machine in this hwloc XML file (lstopo).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan without starting processes.")] = False,
    json_: o.Json = False,
) -> int:
    """Start a bertkit command or a Python script on several processes, on one host or many.

    Examples:

      bertkit launch -n 2 -- train -m base -t mrpc -b 16

      bertkit launch -n 2 -- python my.py

      bertkit launch --mpi-sockets --dry-run -- train -m base -t mrpc

      bertkit launch --mpi-sockets -- train --recipe intel-unsynced -m base -t squad

      bertkit launch --hosts node1,node2 -n 8 --ssh-port 3022 -- train -m large -t squad

      bertkit launch --nnodes 2 --node-rank 0 --master node1:29500 -n 8 -- train -m large -t squad

      bertkit launch --slurm run.sbatch --nodes 2 -n 8 --sbatch=--time=2:00:00 -- train -m large -t squad

      bertkit launch --container bertkit:cpu --mount /data:/data -n 2 -- train -m base -t mrpc --data-dir /data/glue
    """
    options = LaunchOptions(
        tuple(command), processes, mpi_sockets, per_socket, numa, hosts, hostfile, nnodes, node_rank, master, slurm,
        submit, nodes, tuple(sbatch or ()), container, container_engine, tuple(container_option or ()),
        tuple(mount or ()), shm_size, launcher, threads, reserve_cores, allocator,
        oversubscribe, ssh_port, ssh_config, interface, tuple(forward or ()), port, max_restarts, grace, tag_output,
        logs, topology, dry_run, json_,
    )  # fmt: skip
    return run_launch(options, context.find_root().command)


def run_launch(options: LaunchOptions, root: Any) -> int:
    """Plan, then show, write or start. `root`: bertkit's whole command line. Returns the exit code."""
    from bertkit.console import Display
    from bertkit.distributed.hwloc import from_hwloc
    from bertkit.distributed.topology import read_machine
    from bertkit.files.disk import to_json
    from bertkit.launch.hosts import network_of
    from bertkit.launch.interface import find_launcher
    from bertkit.launch.job import Way, carry_out, introduce, planner, show, to_mapping

    _check(options)
    if options.dry_run or options.slurm:  # else the ranks themselves say what is wrong
        _check_inner(options, root)
    if options.container and not options.slurm:
        return launch_in_container(options, _backend(options.command, elsewhere=True))
    network = network_of(options.hosts, options.ssh_port, options.interface, os.environ, options.hostfile)
    name = _launcher_name(options, network)
    launcher = find_launcher(name)
    machine = from_hwloc(options.topology) if options.topology else read_machine()
    request = _request(options, network, name)
    plan = planner(launcher, machine, os.environ)
    display = Display()
    if options.dry_run or options.slurm:
        made = plan(request)
        introduce(made, display)
        if options.json:
            put_json(to_json(to_mapping(made), indent=2))
        elif options.dry_run:
            put("\n".join(show(made)))
        if options.slurm and not options.dry_run:
            _hand_in(made, options.slurm, options.submit, display)
        return 0
    launcher.check(request, os.environ)
    way = Way(options.tag_output, options.grace, options.max_restarts, options.logs)
    return carry_out(request, plan, way, display)


def _check(options: LaunchOptions) -> None:
    """Raises UserError for options that do not go together."""
    from bertkit.launch.interface import Allocator, ThreadRule
    from bertkit.launch.script import check_script, is_script

    named = " ".join(options.command[: 2 if options.command[0] == "data" else 1])
    if is_script(options.command):
        check_script(options.command, here=not (options.slurm or options.hosts or options.hostfile))
    elif named not in STARTED:
        raise UserError(f"{named!r} is no command for several processes", nearest(named, (*STARTED, "python")))
    for value, known in ((options.threads, ThreadRule), (options.allocator, Allocator)):
        if value not in get_args(known):
            raise UserError(f"{value!r} is not known", "choose " + ", ".join(get_args(known)))
    if options.topology and not options.dry_run:
        raise UserError("--topology describes another machine", "add --dry-run")
    if options.slurm and (options.hosts or options.max_restarts):
        raise UserError("Slurm chooses the hosts and restarts jobs itself", "drop --hosts and --max-restarts")
    if _meets(options) and (options.slurm or options.hosts or options.hostfile or options.mpi_sockets):
        raise UserError("with --nnodes every host starts its own processes", "drop the options of ssh, MPI and Slurm")
    check_container(options)
    if options.submit and not options.slurm:
        raise UserError("--submit needs --slurm FILE", "name the file")


def _check_inner(options: LaunchOptions, root: Any) -> None:
    """What a script does is not known before it runs."""
    from bertkit.cli.inner import check as check_inner
    from bertkit.launch.script import is_script

    if not is_script(options.command):
        check_inner(root, options.command)


def _launcher_name(options: LaunchOptions, network: Network) -> str:
    if options.launcher:
        return options.launcher
    if options.slurm:
        return "slurm"
    return "mpi" if options.mpi_sockets or network.hosts else "torchrun"


def _meets(options: LaunchOptions) -> bool:
    """Whether the hosts are said to start their own processes."""
    return (options.nnodes or 1) > 1 or options.node_rank is not None or bool(options.master)


def _processes(options: LaunchOptions, network: Network, each: int) -> int | None:
    """On each host, as the options, the file of hosts or the cluster says; `each`: the cluster's, 0: it does not."""
    if options.processes and 0 < network.slots < options.processes and not options.oversubscribe:
        raise UserError(
            f"-n {options.processes}, but {options.hostfile} gives each host {network.slots} slots",
            "start fewer, or add --oversubscribe",
        )
    return options.processes or network.slots or each or None


def _request(options: LaunchOptions, network: Network, name: str) -> Request:
    """`name`: the launcher's."""
    from bertkit.distributed.clusters import nodes_of
    from bertkit.launch.hosts import nodes_asked
    from bertkit.launch.interface import Request

    choice = _backend(options.command, options.dry_run or options.slurm is not None)
    probe = choice.backend.probe()
    cards = probe.cards
    domain: Domain = "machine" if not options.mpi_sockets else "numa" if options.numa else "socket"
    nodes, each = None, 0
    if name == "torchrun" or _meets(options):  # the others start the processes of all hosts themselves
        nodes = nodes_asked(options.nnodes, options.node_rank, options.master, options.port, os.environ)
        told = nodes_of(os.environ)
        each = told.processes if told else 0
    processes = _processes(options, network, each)
    if processes is None and not cards and domain == "machine" and not network.hosts:
        raise UserError("how many processes?", "give -n N, or --mpi-sockets for one process per CPU socket")
    prefixes = choice.backend.capabilities.environment
    forward = {name for name in os.environ if prefixes and name.startswith(prefixes)} | set(options.forward)
    return Request(
        options.command,
        processes=processes,
        domain=domain,
        per_domain=options.per_socket,
        hosts=network.hosts,
        nodes=nodes,
        cards=cards,
        thread_rule=cast("ThreadRule", options.threads),
        reserve_cores=options.reserve_cores,
        allocator=cast("Allocator", options.allocator),
        # the plan is for a machine with the cards, which this one is not: its cores say nothing
        oversubscribe=options.oversubscribe or (not probe.ready and not options.slurm),
        interface=network.interface,
        ssh_port=network.ssh_port,
        ssh_config=options.ssh_config,
        forward=tuple(sorted(forward)),
        port=0 if nodes else options.port,  # theirs holds it
        python="python3" if options.container else sys.executable,  # an image has its own
        batch=_batch(options, choice),
    )


def _batch(options: LaunchOptions, choice: Choice) -> SlurmOptions:
    from bertkit.launch.containers import APPTAINER
    from bertkit.launch.interface import SlurmOptions
    from bertkit.launch.script import job_name

    apptainer = bool(options.slurm and options.container) and by_apptainer(options)
    devices = device_options(choice, APPTAINER, options.container_options) if apptainer else ()
    return SlurmOptions(
        options.nodes,
        options.sbatch,
        options.container,
        options.mounts,
        name=job_name(options.command),
        container_options=(*devices, *options.container_options),
        apptainer=apptainer,
    )


def _backend(command: Sequence[str], elsewhere: bool) -> Choice:
    """The backend that the command will run on, where its words or the environment name one or `auto` finds it.

    `elsewhere`: nothing is started here, so it need not be ready.
    """
    from bertkit.engine.registry import choose
    from bertkit.launch.script import is_script

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
    from bertkit.files.disk import write_text
    from bertkit.launch.job import hand_in

    write_text(path, plan.script)
    if submit:
        display.say(f"submitted as job {hand_in(plan, path)}")
    else:
        display.say(f"written: {path}; submit it with `{shlex.join([plan.argv[0], str(path)])}`")
