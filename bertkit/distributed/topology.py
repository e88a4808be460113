"""The machine that this process may use: cores by socket and memory node, within its cpuset and cgroup.

A file that is absent or damaged means "not known" and is never an error. The formats: the Linux kernel's
Documentation/admin-guide/cputopology.rst and cgroup-v2.rst. `hwloc.py` reads a machine from a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bertkit.errors import UserError
from bertkit.files.inputs import read_text_if_there

# At most five digits: a damaged file must not ask for a range of gigabytes (Linux stops at 8192 CPUs).
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


@dataclass(frozen=True)
class Core:
    """One physical core."""

    cpus: tuple[int, ...]  # its logical CPUs that may be used, ascending
    socket: int  # -1: not known
    node: int  # memory (NUMA) node; -1: not known


@dataclass(frozen=True)
class Machine:
    """The cores that may be used, by socket, then node, then number."""

    cores: tuple[Core, ...]
    quota: float | None = None  # cgroup limit in cores; None: no limit
    source: str = ""  # how it is known
    whole: bool = True  # no cpuset or affinity leaves out a CPU


def machine_of(cores: Iterable[Core], quota: float | None = None, source: str = "", whole: bool = True) -> Machine:
    """The machine of these cores, in the order that `Machine` promises."""
    return Machine(tuple(sorted(cores, key=lambda core: (core.socket, core.node, core.cpus))), quota, source, whole)


def usable_cpus() -> tuple[int, ...]:
    """The logical CPUs that this process may run on, ascending."""
    # macOS and Windows have no sched_getaffinity
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return tuple(sorted(cpus))


def compute_threads(asked: int, local_size: int) -> int:
    """As many as asked for; 0: as OMP_NUM_THREADS says, which `bertkit launch` sets, or a share of the cores for each
    of this machine's `local_size` processes. Raises UserError for a number below 0."""
    if asked < 0:
        raise UserError(f"device.threads = {asked} is no number of threads", "leave it at 0, or name one")
    said = os.environ.get("OMP_NUM_THREADS", "")
    if asked or (said.isdecimal() and int(said)):
        return asked or int(said)
    machine = read_machine()
    cores = len(machine.cores) if machine.quota is None else min(len(machine.cores), int(max(1.0, machine.quota)))
    return max(1, cores // max(1, local_size))


def read_machine(root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Machine:
    """The machine described by the proc and sys trees under `root`; never raises.

    `affinity` are the CPUs that this process may run on; None asks the operating system. Where the system does
    not say which CPUs share a core, each is one.
    """
    cpus = tuple(sorted(set(usable_cpus() if affinity is None else affinity)))
    nodes = _nodes(root)
    members: dict[tuple[int | str, ...], list[int]] = {}
    sockets: dict[tuple[int | str, ...], int] = {}
    for cpu in cpus:
        core, socket = _core_of(root, cpu)
        members.setdefault(core, []).append(cpu)
        sockets[core] = max(socket, sockets.get(core, -1))
    cores = [Core(tuple(group), sockets[core], nodes.get(group[0], -1)) for core, group in members.items()]
    known = (root / "sys/devices/system/cpu").is_dir()
    online = read_cpu_list(root / "sys/devices/system/cpu/online")
    source = "sysfs" if known else "no sysfs: each CPU counts as a core"
    return machine_of(cores, read_quota(root), source, set(online) <= set(cpus))


def _core_of(root: Path, cpu: int) -> tuple[tuple[int | str, ...], int]:
    """What all CPUs of one core have in common and no other has, and the socket (-1: not known)."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    siblings = read_cpu_list(topology / "thread_siblings_list")
    package, core = read_text_if_there(topology / "physical_package_id"), read_text_if_there(topology / "core_id")
    # -1: not known; at most nine digits as in a kernel's int
    has_package, has_core = (word.isascii() and word.isdecimal() and len(word) < 10 for word in (package, core))
    # Siblings first: core ids repeat in the dies and clusters of one package.
    key = siblings if cpu in siblings else (package, core) if has_package and has_core else (cpu,)
    return key, int(package) if has_package else -1


def _nodes(root: Path) -> dict[int, int]:
    """The memory node of each logical CPU that has one."""
    found: dict[int, int] = {}
    try:
        folders = sorted((root / "sys/devices/system/node").glob("node*"))
    except OSError:
        return found
    for folder in folders:
        number = folder.name.removeprefix("node")
        if number.isascii() and number.isdecimal() and len(number) < 10:
            found |= dict.fromkeys(read_cpu_list(folder / "cpulist"), int(number))
    return found


def read_quota(root: Path = Path("/")) -> float | None:
    """The smallest CPU limit, in cores, of the process's own cgroup and its ancestors; None without one."""
    mount = root / "sys/fs/cgroup"
    limits: list[float | None] = []
    for line in read_text_if_there(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 names no controllers; version 1 mounts `cpu` alone or with the others of its line.
        tops = (mount / controllers, mount / "cpu") if controllers else (mount,)
        # A path with `..` is a group outside of this container: only the mounted top is ours.
        parts = [] if "/.." in path else [part for part in path.split("/") if part]
        limits += [_limit(top.joinpath(*parts[:depth])) for top in tops for depth in range(len(parts) + 1)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(group: Path) -> float | None:
    """One cgroup's own limit in cores. Quota and period are in µs; `max` and -1 mean no limit."""
    text = read_text_if_there(group / "cpu.max")
    text = text or f"{read_text_if_there(group / 'cpu.cfs_quota_us')} {read_text_if_there(group / 'cpu.cfs_period_us')}"
    try:
        quota, period = (int(word) for word in text.split())
        return quota / period if quota > 0 and period > 0 else None
    except (ValueError, OverflowError):
        return None


# ---- the kernel's lists of CPUs and memory nodes, as ``0-3,8`` ----


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """``0-3,8,10-11`` -> (0, 1, 2, 3, 8, 10, 11), ascending and distinct; () for an empty list.

    Raises ValueError for anything else than the kernel's list format.
    """
    numbers: set[int] = set()
    for item in text.split(",") if text.strip() else ():
        match = _RANGE.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{item.strip()!r} is neither a CPU's number nor a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {item.strip()!r} runs backwards")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The inverse of `parse_cpu_list`, with ranges as long as they can be; "" for no CPU."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def read_cpu_list(path: Path) -> tuple[int, ...]:
    """The list in a file; () where it is absent or malformed."""
    try:
        return parse_cpu_list(read_text_if_there(path))
    except ValueError:
        return ()
