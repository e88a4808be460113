"""What a record is made of: versions, machine, rates, times, energy. Figures that are not known are null, never 0."""

from __future__ import annotations

import dataclasses
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.distributed.world import World
from bertkit.engine.interface import DeviceFacts, Engine, Peak, Sensors
from bertkit.records.energy import Energy
from bertkit.records.host import box
from bertkit.records.meter import Reading
from bertkit.version import __version__

PACKAGES = ("numpy", "tokenizers", "safetensors", "scikit-learn", "scipy", "torch", "tensorflow", "jax", "mpi4py")


def environment(world: World, engine: Engine | None = None) -> dict[str, Any]:
    """Versions, machine and, of a single engine, its device and what it chose."""
    return {
        "command": shlex.join(["bertkit", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(Path(__file__).resolve().parents[1]),
        "versions": versions(),
        "hardware": {
            "device": device(engine, world),
            **box(),
            "hosts": None,
            "processes": world.size,
            "launcher": world.launcher,
            "engine": dict(engine.describe()) if engine else {},
        },
    }


def device(engine: Engine | None, world: World) -> dict[str, Any]:
    """What one rank computes on; null where the engine does not say."""
    facts = engine.facts() if isinstance(engine, Sensors) else None
    known = (
        dataclasses.asdict(facts) if facts else dict.fromkeys(field.name for field in dataclasses.fields(DeviceFacts))
    )
    return known | {"count": world.size}


def versions() -> dict[str, str]:
    """Of bertkit, Python and the packages that shape a result, where they are installed."""
    found = {"bertkit": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


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


def best_peak(peaks: Sequence[Peak]) -> Peak:
    """The highest of several measurements: what else ran on the host can only lower one."""
    known = [peak for peak in peaks if not math.isnan(peak.flops)]
    if not known:
        return peaks[0]
    best = max(known, key=lambda peak: peak.flops)
    return dataclasses.replace(best, source=f"{best.source}; best of {len(known)}") if known[1:] else best


def _mfu(rate: float, peak: Peak, world: World) -> tuple[float | None, str]:
    """(share of the peak, how the peak is known). None above 1: what was measured is then no peak."""
    share = number(rate / (peak.flops * world.size)) if peak.flops else None
    if share is not None and share > 1:
        return None, f"{peak.source}; no MFU: the work ran at {share:.2f} times this rate, so it is not the chip's peak"
    return share, peak.source


def throughput(reading: Reading, peak: Peak, world: World) -> dict[str, Any]:
    """The rates of a run, totals over all ranks and per device."""
    mfu, source = _mfu(reading.per_second(reading.flops), peak, world)
    sequences, tokens = reading.per_second(reading.sequences), reading.per_second(reading.tokens)
    busy = reading.seconds - reading.waiting_for_data
    return {
        "sequences_per_second": number(sequences),
        "sequences_per_second_per_device": number(sequences / world.size),
        "tokens_per_second": number(tokens),
        "tokens_per_second_per_device": number(tokens / world.size),
        "sequences_per_second_whole": ratio(reading.whole_sequences, reading.whole_seconds),
        "sequences_per_second_core": ratio(reading.sequences, busy),
        "padding_efficiency": number(reading.padding_efficiency),
        "model_flops_per_second": number(reading.per_second(reading.flops)),
        "mfu": mfu,
        "peak_flops_per_device": number(peak.flops),
        "peak_source": source,
        "counted": {
            "updates": reading.updates,
            "sequences": reading.sequences,
            "tokens": reading.tokens,
            "slots": reading.slots,
        },
        "seconds": number(reading.seconds),
    }


def ratio(amount: float, seconds: float) -> float | None:
    """A rate; null where nothing was counted or no time went by."""
    return number(amount / seconds) if amount and seconds > 0 else None


def times(
    reading: Reading, world: World, steps: Sequence[float], step_of: str, all_legs: float | None = None
) -> dict[str, Any]:
    """Where the time went, seconds, and percentiles of `steps`."""
    # one rank exchanges nothing
    communication = 0.0 if world.size == 1 else reading.communication
    rest = None if communication is None else reading.seconds - reading.waiting_for_data - communication
    return {
        "whole_seconds": number(reading.whole_seconds),
        "warmup_seconds": number(reading.warmup_seconds),
        "training_seconds": number(reading.seconds),
        "waiting_for_data_seconds": number(reading.waiting_for_data),
        # ranks that wait differ, so the slowest's parts may add up to more than the slowest's whole
        "compute_seconds": None if rest is None else number(max(0.0, rest)),
        "communication_seconds": number(communication),
        "evaluation_seconds": number(reading.pauses.get("evaluation", 0.0)),
        "checkpoint_seconds": number(reading.pauses.get("checkpoint", 0.0)),
        "training_seconds_of_all_legs": number(all_legs),
        "step_of": step_of,
        "step_seconds": percentiles(steps),
        "steps_timed": len(steps),
    }


def energy(reading: Reading, found: Energy) -> dict[str, Any]:
    """Joules in the seconds that count."""
    joules = None if reading.joules is None else number(reading.joules)
    return {
        "joules": joules,
        "seconds": None if joules is None else number(reading.seconds),
        "sequences": None if joules is None else reading.sequences,
        "scope": None if joules is None else found.scope,
        "source": found.source,
    }


def peak_memory(mine: int | None, gather: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """Bytes of the rank that needed most; None where one does not know. A collective."""
    most = float(gather(np.array([np.nan if mine is None else float(mine)])).max())
    return None if np.isnan(most) else int(most)


def step_of(waits: int) -> str:
    """What a measured step is, where the device is waited for after at most so many updates."""
    return "an update" if waits <= 1 else f"a mean of up to {waits} updates"


def percentiles(values: Sequence[float], wanted: Sequence[int] = (50, 90, 95, 99, 100)) -> dict[str, float | None]:
    """By nearest rank, so that each is a value that was measured."""
    ordered = sorted(values)
    return {
        f"p{p}": number(ordered[max(0, math.ceil(p / 100 * len(ordered)) - 1)]) if ordered else None for p in wanted
    }


def lengths(found: np.ndarray) -> dict[str, Any]:
    """What a part of the data tells of its (N,) sequences' lengths."""
    quantiles = np.quantile(found, [0.5, 0.9, 0.99, 1.0], method="inverted_cdf")
    tokens = {f"p{p}": int(value) for p, value in zip((50, 90, 99, 100), quantiles, strict=True)}
    return {"mean_tokens": number(float(found.mean())), "tokens": tokens}


def number(value: float | None) -> float | None:
    """A finite number to six significant digits, else None."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.6g}")


def settings(values: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    """The resolved configuration and, for what is not a default, where it came from."""
    return {
        "config": dict(values),
        "config_sources": {key: source for key, source in sources.items() if source != "default"},
    }
