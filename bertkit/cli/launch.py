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
        typer.Argument(metavar="-- COMMAND …", help="A command of bertkit's, as `train -t mrpc`, or `python my.py`."),
    ],
    processes: Annotated[
        int | None,
        typer.Option("-n", "--processes", min=1, help="Processes on each host; one for each card by itself."),
    ] = None,
    mpi_sockets: Annotated[
        bool, typer.Option("--mpi-sockets", help="One process for each CPU socket, bound to it, over MPI.")
    ] = False,
    per_socket: Annotated[int, typer.Option(min=1, help="So many for each socket (or node) instead of one.")] = 1,
    numa: Annotated[bool, typer.Option("--numa", help="With --mpi-sockets: by memory node, not by socket.")] = False,
    hosts: Annotated[
        str, typer.Option(help="Boxes, with commas between, over MPI and ssh; MULTI_HLS_IPS does the same.")
    ] = "",
    slurm: Annotated[Path | None, typer.Option(help="Write a Slurm batch script to this file instead.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Hand the script in with sbatch.")] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Slurm: boxes.")] = 1,
    sbatch: Annotated[list[str] | None, typer.Option(help="Slurm: an option of sbatch's, as --time=2:00:00.")] = None,
    container: Annotated[str, typer.Option(help="Slurm: image for pyxis/enroot.")] = "",
    mount: Annotated[list[str] | None, typer.Option(help="Slurm: FROM:TO, seen in the container.")] = None,
    launcher: Annotated[str, typer.Option(help="An installed launcher by name, in place of the one that fits.")] = "",
    threads: Annotated[
        str, typer.Option(help="Rule for the threads of a process: share, physical-minus-2, logical-minus-2.")
    ] = "share",
    reserve_cores: Annotated[int, typer.Option(min=0, help="Of each share, kept for communication.")] = 0,
    allocator: Annotated[str, typer.Option(help="Preloaded: auto, tcmalloc, jemalloc or system.")] = "auto",
    oversubscribe: Annotated[bool, typer.Option("--oversubscribe", help="Allow more processes than cores.")] = False,
    ssh_port: Annotated[int, typer.Option(min=0, max=65535, help="Of the boxes' ssh; 0: its own default.")] = 0,
    ssh_config: Annotated[str, typer.Option(help="File for ssh -F: keys, known hosts, ports.")] = "",
    interface: Annotated[str, typer.Option(help="Network between boxes, as eth0 or 10.0.0.0/24.")] = "",
    forward: Annotated[list[str] | None, typer.Option(help="A further environment variable for all ranks.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where ranks find each other; 0: a free one.")] = 0,
    max_restarts: Annotated[int, typer.Option(min=0, help="Start again from the last checkpoint so often.")] = 0,
    grace: Annotated[float, typer.Option(min=0, help="Seconds to save and end before a kill.")] = 15.0,
    tag_output: Annotated[bool, typer.Option("--tag-output", help="Show every rank's lines, with its name.")] = False,
    logs: Annotated[Path | None, typer.Option(help="Folder for a file of each rank's lines.")] = None,
    topology: Annotated[
        Path | None, typer.Option(help="Plan for the machine in this hwloc XML file (lstopo); with --dry-run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be started; start nothing.")] = False,
    json_: o.Json = False,
) -> int:
    """Start a command of bertkit's, or a Python script, on several processes, bind them, and end them all together.

    Examples:

      bertkit launch -n 2 -- train -m base -t mrpc -b 16

      bertkit launch -n 2 -- python my.py

      bertkit launch --mpi-sockets --dry-run -- train -m base -t mrpc

      bertkit launch --mpi-sockets -- train --recipe intel-unsynced -m base -t squad

      bertkit launch --hosts box1,box2 -n 8 --ssh-port 3022 -- train -m large -t squad

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
