"""What CPU this is, and how many threads one process may sensibly use.

A file that is absent or damaged means "not known" and is never an error. The formats: the Linux kernel's
Documentation/admin-guide/cputopology.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import math
import os
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# At most five digits: a damaged file must not ask for a range of gigabytes (Linux stops at 8192 CPUs).
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_BF16_FLAGS = ("amx_bf16", "avx512_bf16", "bf16")  # fastest first; `bf16` is Arm's


@dataclass(frozen=True)
class Cpu:
    """The part of the machine's CPUs that this process may use."""

    model: str
    logical: tuple[int, ...]  # numbers of the CPUs that this process may run on, ascending
    physical: int  # distinct cores among them; len(logical) where the system does not say
    sockets: int  # distinct packages among them, at least 1
    quota: float | None  # cgroup limit in cores; None: no limit
    flags: frozenset[str]  # as the kernel spells them; empty where it lists none


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


def read_cpu(root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Cpu:
    """The CPU described by the proc and sys trees under `root`; never raises.

    `affinity` are the CPUs that this process may run on; None asks the operating system.
    """
    if affinity is None:  # macOS and Windows have no sched_getaffinity
        affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    logical = tuple(sorted(set(affinity)))
    model, flags = _cpuinfo(root)
    physical, sockets = _cores(root, logical)
    return Cpu(model, logical, physical, sockets, _quota(root), flags)


def is_bound(cpu: Cpu, root: Path = Path("/")) -> bool:
    """Whether this process may use only a part of the machine's CPUs, as one that a launcher bound.

    A container's cpuset counts as its machine: all its processes share it. False where no CPUs are listed.
    """
    machine = set(_cpu_list(root / "sys/devices/system/cpu/online"))
    groups = root / "sys/fs/cgroup"
    # In a container the top of the mounted hierarchy is the container's own group.
    for name in ("cpuset.cpus.effective", "cpuset/cpuset.cpus"):
        machine &= set(_cpu_list(groups / name)) or machine
    return not machine.issubset(cpu.logical)


def threads(
    cpu: Cpu,
    local_size: int = 1,
    asked: int = 0,
    *,
    bound: bool = False,
    env: Mapping[str, str] | None = None,
) -> tuple[int, str]:
    """The number of compute threads for this process, at least 1, and the reason in words.

    `asked` wins where it is above 0, then OMP_NUM_THREADS in `env` (None: empty), then the cores shared by
    the `local_size` processes of this machine, a quota rounded down: with one thread too many, all wait for
    the one that the scheduler stops. `bound` (see `is_bound`): the affinity is already a share of its own.
    """
    if asked > 0:
        return asked, "asked for"
    remark = ""
    if omp := (env or {}).get("OMP_NUM_THREADS", "").strip():
        outer = omp.split(",")[0].strip()  # OpenMP's list gives one number for each level of nesting
        if outer.isdecimal() and len(outer) < 10 and int(outer) > 0:
            return int(outer), f"OMP_NUM_THREADS={omp}"
        remark = f"; OMP_NUM_THREADS={omp[:20]!r} is not a positive whole number and was ignored"
    cores, source = cpu.physical, _count(cpu.physical, "physical core")
    if cpu.quota is not None and max(1.0, cpu.quota) < cores:
        cores, source = math.floor(max(1.0, cpu.quota)), f"cgroup limit of {_count(cpu.quota, 'core')}"
    if bound:
        return max(1, cores), f"{source}, bound to CPUs {format_cpu_list(cpu.logical)}{remark}"
    processes = max(1, local_size)
    return max(1, cores // processes), f"{source}, {_count(processes, 'process', 'es')}{remark}"


def native_bf16(cpu: Cpu) -> tuple[bool, str]:
    """Whether this CPU multiplies bf16 in hardware, and the flag that says so or why not, in one line."""
    if flag := next((flag for flag in _BF16_FLAGS if flag in cpu.flags), ""):
        return True, flag
    if not cpu.flags:
        return False, "this system does not list the CPU's features: bf16 is taken to be emulated"
    lacks = "does not have Arm's bf16" if "asimd" in cpu.flags else "has neither avx512_bf16 nor AMX"
    return False, f"this CPU {lacks}: bf16 would be emulated and slower than fp32"


def has_int8(cpu: Cpu) -> bool:
    """Whether this CPU multiplies int8 in hardware by instructions that oneDNN's quantised products use."""
    return any(flag in cpu.flags for flag in ("avx512_vnni", "avx_vnni", "amx_int8"))


def _count(number: float, noun: str, plural: str = "s") -> str:
    return f"{number:g} {noun}{'' if number == 1 else plural}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):  # ValueError: a NUL in a path that came from a damaged file
        return ""


def _cpu_list(path: Path) -> tuple[int, ...]:
    try:
        return parse_cpu_list(_read(path))
    except ValueError:
        return ()


def _cpuinfo(root: Path) -> tuple[str, frozenset[str]]:
    """Model and flags of the first processor listed."""
    fields: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), " ".join(value.split()))
    model = fields.get("model name", "")
    if not model and "CPU implementer" in fields:
        model = f"Arm implementer {fields['CPU implementer']}, part {fields.get('CPU part') or 'unknown'}"
    flags = frozenset((fields.get("flags") or fields.get("Features", "")).split())
    return model or platform.processor() or platform.machine() or "unknown CPU", flags


def _cores(root: Path, logical: tuple[int, ...]) -> tuple[int, int]:
    """(distinct physical cores, distinct sockets) among the CPUs `logical`."""
    cores: set[tuple[int | str, ...]] = set()
    packages: set[str] = set()
    for cpu in logical:
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        siblings = _cpu_list(topology / "thread_siblings_list")
        package, core = _read(topology / "physical_package_id"), _read(topology / "core_id")
        known = package.isdecimal() and core.isdecimal()  # -1: not known
        # Siblings first: core ids repeat in the dies and clusters of one package.
        cores.add(siblings if cpu in siblings else (package, core) if known else (cpu,))
        packages |= {package} if package.isdecimal() else set()
    return len(cores), max(1, len(packages))


def _quota(root: Path) -> float | None:
    """The smallest CPU limit, in cores, of the process's own cgroup and its ancestors; None without one."""
    mount = root / "sys/fs/cgroup"
    limits: list[float | None] = []
    for line in _read(root / "proc/self/cgroup").splitlines():
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
    text = _read(group / "cpu.max")
    text = text or f"{_read(group / 'cpu.cfs_quota_us')} {_read(group / 'cpu.cfs_period_us')}"
    try:
        quota, period = (int(word) for word in text.split())
        return quota / period if quota > 0 and period > 0 else None
    except (ValueError, OverflowError):
        return None
