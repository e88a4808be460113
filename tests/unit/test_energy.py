"""Energy and hardware from files as Linux has them; what cannot be read is unknown, never 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertkit.distributed.world import World
from bertkit.engine.interface import DeviceFacts
from bertkit.records.energy import Rapl, energy_of
from bertkit.records.host import box, cpu_mhz, cpu_model, in_container


def domain(root: Path, number: str, name: str, microjoules: int, most: int = 262_143_328_850) -> Path:
    path = root / f"intel-rapl:{number}"
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{most}\n")
    return path


def spend(path: Path, microjoules: int) -> None:
    (path / "energy_uj").write_text(str(microjoules))


def test_packages_and_their_memory_are_added_up_and_nothing_twice(tmp_path: Path) -> None:
    first, second = domain(tmp_path, "0", "package-0", 5_000_000), domain(tmp_path, "1", "package-1", 0)
    dram, psys = domain(tmp_path, "0:1", "dram", 7), domain(tmp_path, "2", "psys", 0)
    core = domain(tmp_path, "0:0", "core", 0)  # a part of its package
    rapl = Rapl(tmp_path)
    assert rapl.joules() == 0.0
    for path, value in ((first, 8_000_000), (second, 1_000_000), (dram, 500_007), (psys, 9_000_000), (core, 2_000_000)):
        spend(path, value)
    assert rapl.joules() == 4.5


def test_a_counter_wraps_around(tmp_path: Path) -> None:
    path = domain(tmp_path, "0", "package-0", 9_000_000, most=10_000_000)
    rapl = Rapl(tmp_path)
    rapl.joules()
    spend(path, 2_000_000)
    assert rapl.joules() == 3.0
    spend(path, 2_500_000)
    assert rapl.joules() == 3.5


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert Rapl(tmp_path).joules() is None
    path = domain(tmp_path, "0", "package-0", 1)
    (path / "energy_uj").unlink()  # as where only root may read it
    assert Rapl(tmp_path).joules() is None


class Chip:
    """An engine as far as it is asked here."""

    def __init__(self, kind: str, joules: float | None = None) -> None:
        self.kind, self.joules = kind, joules

    def facts(self) -> DeviceFacts:
        return DeviceFacts(self.kind)  # type: ignore[arg-type]

    def energy(self) -> float | None:
        return self.joules

    def communication(self) -> float | None:
        return None


@pytest.mark.parametrize(
    ("engine", "counters", "joules", "scope"),
    [
        (Chip("cpu"), True, 0.0, "CPU packages and memory"),
        (Chip("cpu"), False, None, None),
        (Chip("accelerator", 30.0), True, 30.0, "accelerators, CPU packages and memory"),
        (Chip("accelerator", 30.0), False, 30.0, "accelerators"),
        (Chip("accelerator"), True, None, None),  # the host's share alone would flatter it
        (object(), True, None, None),
    ],
)
def test_whose_energy_it_is(
    engine: Chip, counters: bool, joules: float | None, scope: str | None, tmp_path: Path
) -> None:
    if counters:
        domain(tmp_path, "0", "package-0", 1_000_000)
    found = energy_of(engine, World(), tmp_path)  # type: ignore[arg-type]
    assert (found.joules(), found.scope) == (joules, scope)
    assert found.source.startswith("not read: ") == (joules is None)


def test_one_rank_of_a_box_reads_the_boxs_counters(tmp_path: Path) -> None:
    path = domain(tmp_path, "0", "package-0", 1_000_000)
    ranks = [energy_of(Chip("cpu"), World(rank, 2, rank, 2), tmp_path) for rank in range(2)]  # type: ignore[arg-type]
    spend(path, 4_000_000)
    assert [rank.joules() for rank in ranks] == [3.0, 0.0]


def test_the_cpu_by_name_and_clock(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    one = "processor\t: {}\nmodel name\t: Some  CPU @ 2 GHz\ncpu MHz\t\t: {}\n\n"
    (tmp_path / "proc/cpuinfo").write_text(one.format(0, 1000.5) + one.format(1, 2000.5))
    assert (cpu_model(tmp_path), cpu_mhz(tmp_path)) == ("Some CPU @ 2 GHz", 1500.5)
    (tmp_path / "proc/cpuinfo").write_text("CPU implementer\t: 0x41\nCPU part\t: 0xd40\n")
    assert (cpu_model(tmp_path), cpu_mhz(tmp_path)) == ("Arm implementer 0x41, part 0xd40", None)


def test_a_box_that_tells_nothing(tmp_path: Path) -> None:
    found = box(tmp_path)
    assert [found[name] for name in ("container", "sockets", "cores", "cpu_mhz", "cpu_mhz_most")] == [None] * 5


def test_containers(tmp_path: Path) -> None:
    assert in_container(tmp_path) is None
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/comm").write_text("systemd\n")
    assert in_container(tmp_path) is False
    (tmp_path / "proc/1/cgroup").write_text("0::/kubepods/besteffort/pod1\n")
    assert in_container(tmp_path) is True
    (tmp_path / "proc/1/cgroup").unlink()
    (tmp_path / ".dockerenv").touch()
    assert in_container(tmp_path) is True
