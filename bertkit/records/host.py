"""What host this is, for the record: CPU, sockets, clocks, memory, container. What the system does not tell is None."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from bertkit.distributed.topology import read_machine
from bertkit.files.inputs import read_text_if_there

CONTAINER_FILES = (".dockerenv", "run/.containerenv", "run/systemd/container")
CONTAINER_GROUPS = ("docker", "kubepods", "containerd", "libpod", "lxc", "machine.slice")
INITS = ("systemd", "init", "launchd", "openrc-init", "runit")


def box(root: Path = Path("/")) -> dict[str, Any]:
    """Facts of the host that this process runs on."""
    machine = read_machine(root)
    sockets = {core.socket for core in machine.cores} - {-1}
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "container": in_container(root),
        "cpu_model": cpu_model(root),
        "sockets": len(sockets) or None,
        "cores": len(machine.cores) if machine.source == "sysfs" else None,
        "logical_cpus": os.cpu_count(),
        "cpu_mhz": cpu_mhz(root),
        "cpu_mhz_most": _mhz(root / "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq"),
        "memory_bytes": memory_bytes(),
    }


def cpuinfo(root: Path = Path("/")) -> dict[str, list[str]]:
    """Field -> its value for each processor listed."""
    fields: dict[str, list[str]] = {}
    for line in read_text_if_there(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip():
            fields.setdefault(key.strip(), []).append(" ".join(value.split()))
    return fields


def cpu_model(root: Path = Path("/")) -> str | None:
    """As the first processor listed has it; Arm's has numbers in place of a name."""
    fields = cpuinfo(root)
    if fields.get("model name", [""])[0]:
        return fields["model name"][0]
    if "CPU implementer" in fields:
        part = fields.get("CPU part", [""])[0]
        return f"Arm implementer {fields['CPU implementer'][0]}, part {part or 'unknown'}"
    return platform.processor() or None


def cpu_mhz(root: Path = Path("/")) -> float | None:
    """The clock now, mean over the CPUs that this process may see."""
    try:
        found = [float(text) for text in cpuinfo(root).get("cpu MHz", [])]
    except ValueError:
        return None
    if found:
        return round(sum(found) / len(found), 1)
    return _mhz(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")


def _mhz(path: Path) -> float | None:
    """Of a file that counts in kHz."""
    text = read_text_if_there(path)
    return int(text) / 1e3 if text.isascii() and text.isdecimal() and len(text) < 12 else None


def in_container(root: Path = Path("/")) -> bool | None:
    """Whether this is a container; None where neither signs of one nor an init system are seen."""
    if any((root / name).exists() for name in CONTAINER_FILES):
        return True
    if any(word in read_text_if_there(root / "proc/1/cgroup") for word in CONTAINER_GROUPS):
        return True
    return False if read_text_if_there(root / "proc/1/comm") in INITS else None


def process_peak_memory() -> int:
    """Bytes of this process in memory, the most so far."""
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def memory_bytes() -> int | None:
    """Physical memory, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
