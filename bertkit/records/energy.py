"""Energy where the machine tells: the CPU packages' counters of Linux (RAPL), and those of an engine's own devices.

The files: the kernel's Documentation/power/powercap/powercap.rst. They count for the whole host, others' work included.
What cannot be read is not known, and never 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bertkit.distributed.world import World
from bertkit.engine.interface import Engine, Sensors
from bertkit.files.inputs import read_text_if_there

_COUNT = re.compile("[0-9]{1,19}")
PACKAGES = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Energy:
    """What is read, and how."""

    joules: Callable[[], float | None]  # since some moment; None: not known
    scope: str | None
    source: str


@dataclass
class Rapl:
    """The counters of a host's CPU packages and their memory, in microjoules; each wraps around at its own range."""

    root: Path = PACKAGES
    _before: dict[Path, int] = field(default_factory=dict)
    _total: float = 0.0

    def domains(self) -> list[Path]:
        """`intel-rapl:0` and the like, also on AMD; `psys` holds them all, and would count twice."""
        found = []
        for path in sorted(self.root.glob("intel-rapl:*")):
            name = read_text_if_there(path / "name")
            if name.startswith("package") or name == "dram":
                found.append(path)
        return found

    def joules(self) -> float | None:
        """Since the first call; None where a counter cannot be read. To be called more often than one wraps around."""
        domains = self.domains()
        values = {path: read_text_if_there(path / "energy_uj") for path in domains}
        if not domains or not all(_COUNT.fullmatch(value) for value in values.values()):
            return None
        for path, text in values.items():
            value, before = int(text), self._before.get(path, int(text))
            most = read_text_if_there(path / "max_energy_range_uj")
            wrapped = int(most) if _COUNT.fullmatch(most) else 0
            self._total += value - before + (0 if value >= before else wrapped)
            self._before[path] = value
        return self._total / 1e6


def energy_of(engine: Engine, world: World, root: Path = PACKAGES) -> Energy:
    """This rank's share: its own device, and on each host's first rank the host's CPU packages."""
    rapl = Rapl(root)
    readable = rapl.joules() is not None

    def packages() -> float | None:
        return rapl.joules() if world.local_rank == 0 else 0.0  # the host's first rank reads for all of them

    if not isinstance(engine, Sensors):
        return nothing("the engine does not say what it computes on")
    if engine.facts().kind == "cpu":
        if not readable:
            shown = (
                "the CPU's counters may not be read by this user" if rapl.domains() else "this system has no counters"
            )
            return nothing(shown)
        return Energy(packages, "CPU packages and memory", "RAPL, for the whole host")
    if engine.energy() is None:
        return nothing("the device does not tell")
    if not readable:
        return Energy(engine.energy, "accelerators", "the devices' own counters")

    def both() -> float | None:
        device, host = engine.energy(), packages()
        return None if device is None or host is None else device + host

    return Energy(both, "accelerators, CPU packages and memory", "the devices' own counters; RAPL, for the whole host")


def nothing(why: str) -> Energy:
    return Energy(lambda: None, None, f"not read: {why}")
