"""`bertkit launch`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o


def launch(
    context: typer.Context,
    command: Annotated[
        list[str],
        typer.Argument(metavar="-- COMMAND …", help="Command to start: of bertkit, as `train -t mrpc`, or `python my.py`."),
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
    slurm: Annotated[Path | None, typer.Option(help="Write a Slurm batch script to this file instead.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit with sbatch.")] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Slurm: number of nodes.")] = 1,
    sbatch: Annotated[
        list[str] | None, typer.Option(help="Slurm: option of sbatch, as --time=2:00:00; repeatable.")
    ] = None,
    container: Annotated[str, typer.Option(help="Slurm: container image (pyxis/enroot).")] = "",
    mount: Annotated[list[str] | None, typer.Option(help="Slurm: container mount FROM:TO; repeatable.")] = None,
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

      bertkit launch --slurm run.sbatch --nodes 2 -n 8 --sbatch=--time=2:00:00 -- train -m large -t squad
    """
    from bertkit.cli.launching import Words, run_launch

    words = Words(
        tuple(command), processes, mpi_sockets, per_socket, numa, hosts, slurm, submit, nodes, tuple(sbatch or ()),
        container, tuple(mount or ()), launcher, threads, reserve_cores, allocator, oversubscribe, ssh_port,
        ssh_config, interface, tuple(forward or ()), port, max_restarts, grace, tag_output, logs, topology,
        dry_run, json_,
    )  # fmt: skip
    return run_launch(words, context.find_root().command)
