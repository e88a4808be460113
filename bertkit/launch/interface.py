"""What a launcher is: from what the user asked for, and the machine, to the processes that are to be started.

A launcher is a plug-in (entry points in `bertkit.launchers`). Its `plan` is a pure function, so that a plan can be
shown (`--dry-run`) and tested without starting anything; `bertkit/launch/supervisor.py` carries it out.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Literal, Protocol

from bertkit.distributed.clusters import Nodes
from bertkit.distributed.topology import Machine
from bertkit.distributed.world import NO_STEP
from bertkit.errors import UserError, nearest
from bertkit.launch.children import module_command
from bertkit.launch.script import is_script, resumed_script

GROUP = "bertkit.launchers"
Domain = Literal["machine", "socket", "numa"]
ThreadRule = Literal["share", "physical-minus-2", "logical-minus-2"]
Allocator = Literal["auto", "tcmalloc", "jemalloc", "system"]


@dataclass(frozen=True)
class SlurmOptions:
    """What a batch system is told besides; only launchers that write a script look at it."""

    nodes: int = 1
    options: tuple[str, ...] = ()  # the batch system's own, word for word, as "--time=02:00:00"
    container: str = ""  # image for the processes; empty: none
    mounts: tuple[str, ...] = ()  # into the container, "source:target" or "source:target:flags"
    requeue: bool = True  # go on in a new turn when the time is up or the job is pushed aside
    name: str = "bertkit"
    signal_seconds: int = 120  # how long before the end the processes are told to save
    output: str = ""  # file for everything printed, in the batch system's pattern; empty: its default
    apptainer: bool = False  # the container is started by apptainer; else by the batch system itself
    container_options: tuple[str, ...] = ()  # of apptainer, word for word


@dataclass(frozen=True)
class Request:
    """What is to be started, as the user said it."""

    command: tuple[str, ...]  # bertkit's own words, as ("train", "-t", "mrpc"), or a script's: ("python", "my.py")
    processes: int | None = None  # on each host; None: one for each card, else `per_domain` in each domain
    domain: Domain = "machine"  # what the processes are spread over and bound to
    per_domain: int = 1
    hosts: tuple[str, ...] = ()  # empty: this one
    nodes: Nodes | None = None  # where every host starts its own processes: how many do, and which this is
    cards: tuple[int, ...] = ()  # memory node of each accelerator of a host, -1: not known; empty: it has none
    thread_rule: ThreadRule = "share"
    reserve_cores: int = 0  # of each process's share, kept for communication
    allocator: Allocator = "auto"
    oversubscribe: bool = False  # more processes than cores
    interface: str = ""  # network, as eth0 or 10.0.0.0/24; empty: the launcher's own choice
    ssh_port: int = 0  # 0: ssh's own
    ssh_config: str = ""  # a file for `ssh -F`
    forward: tuple[str, ...] = ()  # names of further environment variables for every process
    port: int = 0  # of the rendezvous; 0: a free one
    python: str = "python3"  # that runs bertkit, on every host
    batch: SlurmOptions = SlurmOptions()


@dataclass(frozen=True)
class Binding:
    """What one process of a host is bound to."""

    cpus: tuple[int, ...] = ()  # logical CPUs; empty: not bound
    nodes: tuple[int, ...] = ()  # memory nodes of these; empty: not known
    cores: int = 1  # physical cores that it may count on


@dataclass(frozen=True)
class Process:
    """One process of the job, for showing: what will run, where, bound to what."""

    rank: int
    host: str
    local_rank: int
    place: Binding
    argv: tuple[str, ...]
    env: Mapping[str, str]


@dataclass(frozen=True)
class LaunchPlan:
    """What starts the processes, and what they will be."""

    argv: tuple[str, ...]  # started here; it starts all processes
    env: Mapping[str, str]  # added to this environment
    processes: tuple[Process, ...]
    notes: tuple[str, ...] = ()  # what was chosen, and by which rule
    warnings: tuple[str, ...] = ()
    script: str = ""  # to be handed in instead of starting `argv`
    stop_signal: int = field(default=15)  # what makes `argv`'s processes save and end
    lost_peer_codes: tuple[int, ...] = ()  # exit codes by which its library ends a rank that lost another


class Launcher(Protocol):
    """One way to start processes."""

    name: str

    def check(self, request: Request, env: Mapping[str, str]) -> None:
        """Ask the other machines of the request whether each can take part; called before anything is started.

        Raises UserError, naming the machine.
        """

    def plan(self, request: Request, machine: Machine, env: Mapping[str, str]) -> LaunchPlan:
        """Raises UserError where the request cannot be met here: a missing program, more processes than cores."""


def find_launcher(name: str) -> Launcher:
    """The installed launcher called `name`. Raises UserError, naming those there are."""
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        raise UserError(f"there is no launcher {name!r} here", nearest(name, points))
    try:
        launcher: Launcher = points[name].load()()
    except ImportError as error:
        raise UserError(f"the launcher {name!r} does not load: {error}", "reinstall its package") from error
    return launcher


def rank_command(request: Request) -> tuple[str, ...]:
    """What each process runs: the wrapper around a rank, which binds it and runs bertkit."""
    return module_command(request.python, "bertkit.launch.rank_process", *request.command)


TRAININGS = (("train",), ("distill",))  # commands that resume
OVERWRITE = ("--overwrite", "--overwrite_output_dir", "--overwrite-output-dir")


def resumed(command: tuple[str, ...]) -> tuple[str, ...]:
    """`command` as it is to be run again after a stop: trainings go on, anything else starts anew."""
    if is_script(command):
        return resumed_script(command)
    if command[:1] not in TRAININGS:
        return command
    kept = tuple(word for word in command if word not in OVERWRITE)
    return kept if "--resume" in kept else (*kept, "--resume")


NESTS = {
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
    "TORCHELASTIC_RUN_ID": "torchrun",
    "SLURM_STEP_ID": "srun",
}


def refuse_nested(env: Mapping[str, str]) -> None:
    """Raises UserError within another launcher, each of whose processes would start all processes again.

    A step of one process, as `srun --pty bash`, is a plain shell, and so is a batch script.
    """
    step = env.get("SLURM_STEP_ID", "")
    shell = not re.fullmatch("[0-9]{1,10}", step) or int(step) >= NO_STEP or env.get("SLURM_STEP_NUM_TASKS") == "1"
    for name, launcher in NESTS.items():
        value = env.get(name, "")
        alone = shell if launcher == "srun" else (name, value) == ("PMI_SIZE", "1")
        if value and not alone:
            raise UserError(
                f"this runs under {launcher} already ({name}={value})",
                f"start it once, outside {launcher}; it starts the processes itself",
            )


def free_port(asked: int) -> int:
    """`asked` if it can be bound here, for 0 one that the system picks. Raises UserError where it is taken."""
    if not 0 <= asked < 65536:
        raise UserError(f"port {asked} is no port", "take one between 1024 and 65535, or 0 for a free one")
    with socket.socket() as listener:
        # As servers do: a port whose last user has just left counts as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", asked))
        except PermissionError:
            raise UserError(f"port {asked} is not for users", "take one above 1023, or 0 for a free one") from None
        except OSError:
            raise UserError(f"port {asked} is taken on this machine", "take another one, or 0 for a free one") from None
        return int(listener.getsockname()[1])
