"""What CPU this is, and how many threads one process may sensibly use.

A file that is absent or damaged means "not known" and is never an error. The formats: the Linux kernel's
Documentation/admin-guide/cputopology.rst and cgroup-v2.rst.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bertkit.plugin import cpu_model, cpuinfo, format_cpu_list, read_cpu_list, read_machine, usable_cpus

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


def read_cpu(root: Path = Path("/"), affinity: Iterable[int] | None = None) -> Cpu:
    """The CPU described by the proc and sys trees under `root`; never raises.

    `affinity` are the CPUs that this process may run on; None asks the operating system.
    """
    logical = tuple(sorted(set(usable_cpus() if affinity is None else affinity)))
    model, flags = _cpuinfo(root)
    machine = read_machine(root, logical)
    sockets = {core.socket for core in machine.cores} - {-1}
    return Cpu(model, logical, len(machine.cores), max(1, len(sockets)), machine.quota, flags)


def is_bound(cpu: Cpu, root: Path = Path("/")) -> bool:
    """Whether this process may use only a part of the machine's CPUs, as one that a launcher bound.

    A container's cpuset counts as its machine: all its processes share it. False where no CPUs are listed.
    """
    machine = set(read_cpu_list(root / "sys/devices/system/cpu/online"))
    groups = root / "sys/fs/cgroup"
    # In a container the top of the mounted hierarchy is the container's own group.
    for name in ("cpuset.cpus.effective", "cpuset/cpuset.cpus"):
        machine &= set(read_cpu_list(groups / name)) or machine
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


def idle_under_torchrun(cpu: Cpu, local_size: int, bound: bool, env: Mapping[str, str]) -> str:
    """A warning where cores stay idle, since torchrun sets OMP_NUM_THREADS=1 for several processes; "" where none do.

    Nobody can tell that 1 from one that the user meant, so it is heeded.
    """
    share, _ = threads(cpu, local_size)
    started = env.get("TORCHELASTIC_RUN_ID") and not bound  # `bertkit launch` binds, and sets the number itself
    if not started or local_size < 2 or share < 2 or env.get("OMP_NUM_THREADS", "").strip() != "1":
        return ""
    return (
        f"torchrun sets OMP_NUM_THREADS=1 where it is not set: each process uses 1 of its {share} cores; "
        f"set it to {share}, or device.threads={share}, or start with bertkit launch"
    )


def native_bf16(cpu: Cpu) -> tuple[bool, str]:
    """Whether this CPU multiplies bf16 in hardware, and the flag that says so or why not, in one line."""
    if flag := next((flag for flag in _BF16_FLAGS if flag in cpu.flags), ""):
        return True, flag
    if not cpu.flags:
        return False, "this system does not list the CPU's features: bf16 is taken to be emulated"
    lacks = "does not have Arm's bf16" if "asimd" in cpu.flags else "has neither avx512_bf16 nor AMX"
    return False, f"this CPU {lacks}: bf16 would be emulated and slower than fp32"


def uses_amx(cpu: Cpu, env: Mapping[str, str]) -> tuple[bool, str]:
    """Whether oneDNN multiplies by AMX, and which variable forbids it where the CPU has it; "" otherwise.

    Source: oneDNN's developer guide, "CPU dispatcher control".
    """
    if "amx_bf16" not in cpu.flags:
        return False, ""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):  # the first that is set counts
        if limit := env.get(name, ""):
            forbidden = limit.upper().startswith(("SSE", "AVX")) and "AMX" not in limit.upper()
            return not forbidden, f"{name}={limit}" if forbidden else ""
    return True, ""


def _count(number: float, noun: str, plural: str = "s") -> str:
    return f"{number:g} {noun}{'' if number == 1 else plural}"


def _cpuinfo(root: Path) -> tuple[str, frozenset[str]]:
    """Model and flags of the first processor listed."""
    fields = cpuinfo(root)
    flags = fields.get("flags") or fields.get("Features") or [""]
    return cpu_model(root) or platform.machine() or "unknown CPU", frozenset(flags[0].split())
