"""Processes of this machine, started and watched by torchrun; of several, where each starts its own.

What shaped the command, measured with torch 2.13.0 on two cores (tests/device/test_torchrun_plan.py):
- A worker that dies is noticed within `--monitor-interval` (0.1 s); the others get SIGTERM and, where they do not
  heed it, SIGKILL 30 s later. That wait is fixed: the shutdown time-out counts only after a signal to torchrun itself.
- SIGTERM to torchrun reaches every worker at once and torchrun waits for them, SHUTDOWN_SECONDS at most. They are
  asked for by an environment variable, which an older torch leaves alone; the option it would refuse.
- torchrun's own exit status is 1 whatever the worker's was, and it prints a traceback of its own.
- It fills in `${local_rank}` in the workers' arguments and halves `$$`: each `$` is doubled on the way.
- With several hosts `static` takes each one's number as it is told, so that ranks follow the hosts' order.
- `c10d` asked to serve a taken port waits for whatever listens there (over 60 s); `static` fails at once. `c10d`
  alone can be asked for port 0: torchrun binds one and tells the workers, so that nobody takes it in between.
"""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.plugin import (
    PLACES,
    LaunchPlan,
    Machine,
    Nodes,
    Process,
    Request,
    UserError,
    find_allocator,
    format_places,
    module_command,
    rank_command,
    rank_env,
    refuse_nested,
    thread_count,
    whole_number,
)
from bertkit.plugin import binding_places as places

SHUTDOWN_SECONDS = 120  # to save a checkpoint of a large model on a slow disk
HERE = "127.0.0.1"


class TorchrunLauncher:
    name = "torchrun"

    def check(self, request: Request, env: Mapping[str, str]) -> None:
        """There are no other machines that this one starts."""

    def plan(self, request: Request, machine: Machine, env: Mapping[str, str]) -> LaunchPlan:
        """The port is `request.port`, else MASTER_PORT of `env`, else one that torchrun finds.

        Raises UserError within another launcher, for several hosts, and where the processes do not fit.
        """
        refuse_nested(env)
        if request.hosts:
            raise UserError(
                "torchrun starts processes on this machine only",
                "for several hosts take mpi or slurm, or start it on each with --nnodes, --node-rank and --master",
            )
        nodes = request.nodes
        found = places(machine, request)
        counted = [thread_count(machine, place, len(found), request) for place in found]
        threads, reason = min(counted)  # torchrun gives every worker the same environment
        added = {
            **rank_env(threads, find_allocator(request.allocator)),
            PLACES: format_places(found),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
        }
        if nodes and request.interface:
            added["GLOO_SOCKET_IFNAME"] = request.interface
        first = nodes.rank * len(found) if nodes else 0
        argv = rank_command(request)
        return LaunchPlan(
            argv=(
                *_torchrun(request.python, len(found)),
                *(_meeting_of(nodes) if nodes else _meeting(_port(request, env))),
                argv[0],
                *(word.replace("$", "$$") for word in argv[1:]),
            ),
            env=added,
            processes=tuple(
                Process(first + local, HERE, local, place, argv, added) for local, place in enumerate(found)
            ),
            notes=(*_notes(nodes), f"threads {threads}: {reason}"),
        )


def _torchrun(python: str, processes: int) -> tuple[str, ...]:
    options = ("--nproc-per-node", str(processes), "--max-restarts", "0", "--monitor-interval", "0.1", "--no-python")
    return (*module_command(python, "torch.distributed.run"), *options)


def _meeting(port: int) -> tuple[str, ...]:
    """Of this host's processes alone."""
    if not port:
        return ("--nnodes", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{HERE}:0", "--local-addr", HERE)
    return ("--nnodes", "1", "--rdzv-backend", "static", "--master-addr", HERE, "--master-port", str(port))


def _meeting_of(nodes: Nodes) -> tuple[str, ...]:
    host, _, port = nodes.address.rpartition(":")
    which = ("--nnodes", str(nodes.count), "--node-rank", str(nodes.rank))
    return (*which, "--rdzv-backend", "static", "--master-addr", host, "--master-port", port)


def _notes(nodes: Nodes | None) -> tuple[str, ...]:
    if nodes is None:
        return ()
    where = f"host {nodes.rank} of {nodes.count} ({nodes.names} of {nodes.source}), which meet at {nodes.address}"
    return (where, "each host needs the same command, of the same version, and the run's folder")


def _port(request: Request, env: Mapping[str, str]) -> int:
    if request.port or not env.get("MASTER_PORT"):
        return request.port
    return whole_number(env["MASTER_PORT"], "MASTER_PORT", 1, 65535, "unset it, or set a port's number")
