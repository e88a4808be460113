"""The run record: what ran, on what, on which data, how it was measured, and what came out.

Figures that are not known are null, never 0.
"""

from __future__ import annotations

import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import bertkit
from bertkit.backend import Engine, Peak
from bertkit.meter import WARMUP_RULE, Meter, Reading
from bertkit.world import World

SCHEMA = 1
PACKAGES = ("numpy", "tokenizers", "safetensors", "scikit-learn", "scipy", "torch", "tensorflow", "mpi4py")


def environment(world: World, engine: Engine | None = None) -> dict[str, Any]:
    """Versions, machine and, of a single engine, what it chose."""
    return {
        "command": shlex.join(["bertkit", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(Path(bertkit.__file__).parent),
        "versions": versions(),
        "hardware": {
            "host": platform.node(),
            "system": f"{platform.system()} {platform.release()}",
            "machine": platform.machine(),
            "logical_cpus": os.cpu_count(),
            "memory_bytes": memory_bytes(),
            "processes": world.size,
            "launcher": world.launcher,
            **(engine.describe() if engine else {}),
        },
    }


def versions() -> dict[str, str]:
    """Of bertkit, Python and the packages that shape a result, where they are installed."""
    found = {"bertkit": bertkit.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def memory_bytes() -> int | None:
    """Physical memory, None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; None outside a checkout of bertkit's own."""
    if not (folder.parent / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
            )
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.stdout.strip(), "changed": bool(status.stdout.strip())}


def throughput(reading: Reading, peak: Peak, world: World) -> dict[str, Any]:
    """The rates of a run, totals over all ranks and per device."""
    sequences, tokens = reading.per_second(reading.sequences), reading.per_second(reading.tokens)
    return {
        "sequences_per_second": number(sequences),
        "sequences_per_second_per_device": number(sequences / world.size),
        "tokens_per_second": number(tokens),
        "tokens_per_second_per_device": number(tokens / world.size),
        "padding_efficiency": number(reading.padding_efficiency),
        "model_flops_per_second": number(reading.per_second(reading.flops)),
        "mfu": number(reading.per_second(reading.flops) / (peak.flops * world.size)) if peak.flops else None,
        "peak_flops_per_device": number(peak.flops),
        "peak_source": peak.source,
        "counted": {"updates": reading.updates, "sequences": reading.sequences, "tokens": reading.tokens},
        "seconds": number(reading.seconds),
        "warmup_rule": WARMUP_RULE,
    }


def times(meter: Meter, reading: Reading) -> dict[str, Any]:
    """Where the time went, seconds, and percentiles of the updates' times on the first rank."""
    return {
        "training_seconds": number(reading.seconds),
        "waiting_for_data_seconds": number(reading.waiting_for_data),
        **{f"{name}_seconds": number(seconds) for name, seconds in sorted(meter.pauses.items())},
        "update_seconds": percentiles(meter.step_seconds),
    }


def percentiles(values: Sequence[float], wanted: Sequence[int] = (50, 90, 95, 99, 100)) -> dict[str, float | None]:
    """By nearest rank, so that each is a value that was measured."""
    ordered = sorted(values)
    return {
        f"p{p}": number(ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)]) if ordered else None for p in wanted
    }


def number(value: float | None) -> float | None:
    """A finite number to six significant digits, else None."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def settings(values: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    """The resolved configuration with, for what is not a default, where it came from."""
    return {**values, "sources": {key: source for key, source in sources.items() if source != "default"}}
