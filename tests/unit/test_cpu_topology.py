"""What `bertkit_cpu.topology` reads from fake proc, sys and cgroup trees."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from bertkit_cpu.topology import (
    Cpu,
    is_bound,
    read_cpu,
)
from made_trees import write

XEON = """\
processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R)  Test CPU @ 2.00GHz
flags\t\t: fpu avx512f avx512_bf16 amx_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
GRACE = """\
processor\t: 0
BogoMIPS\t: 2000.00
Features\t: fp asimd bf16 sve
CPU implementer\t: 0x41
CPU part\t: 0xd4f
"""
CPUS = "sys/devices/system/cpu"
GROUPS = "sys/fs/cgroup"


def two_sockets(root: Path, *, siblings: bool = True) -> Path:
    """2 sockets x 2 cores x 2 threads. CPUs 0-3 are the cores' first threads, 4-7 their second ones."""
    files = {f"{CPUS}/online": "0-7", "proc/cpuinfo": XEON}
    for cpu in range(8):
        socket, core = divmod(cpu % 4, 2)
        files[f"{CPUS}/cpu{cpu}/topology/physical_package_id"] = str(socket)
        files[f"{CPUS}/cpu{cpu}/topology/core_id"] = str(core)
        if siblings:
            files[f"{CPUS}/cpu{cpu}/topology/thread_siblings_list"] = f"{cpu % 4},{cpu % 4 + 4}"
    return write(root, files)


@pytest.mark.parametrize("siblings", [True, False])
def test_two_sockets_with_smt(tmp_path: Path, siblings: bool) -> None:
    cpu = read_cpu(two_sockets(tmp_path, siblings=siblings), affinity=range(8))
    assert cpu == Cpu(
        model="Intel(R) Xeon(R) Test CPU @ 2.00GHz",
        logical=(0, 1, 2, 3, 4, 5, 6, 7),
        physical=4,
        sockets=2,
        quota=None,
        flags=frozenset({"fpu", "avx512f", "avx512_bf16", "amx_bf16"}),
    )


@pytest.mark.parametrize(
    ("affinity", "physical", "sockets"),
    [
        ([4, 0], 1, 1),  # half a socket: one core's two threads
        ([0, 1], 2, 1),
        ([0, 2], 2, 2),  # core 0 of each socket
        ([2, 3, 6, 7, 7], 2, 1),
    ],
)
@pytest.mark.parametrize("siblings", [True, False])
def test_a_cpuset_covers_a_part(
    tmp_path: Path, affinity: list[int], physical: int, sockets: int, siblings: bool
) -> None:
    cpu = read_cpu(two_sockets(tmp_path, siblings=siblings), affinity=affinity)
    assert cpu.logical == tuple(sorted(set(affinity)))
    assert (cpu.physical, cpu.sockets) == (physical, sockets)


def test_core_ids_that_repeat_within_a_package(tmp_path: Path) -> None:
    two_sockets(tmp_path)
    write(tmp_path, {f"{CPUS}/cpu{cpu}/topology/core_id": "0" for cpu in range(8)})
    assert read_cpu(tmp_path, affinity=range(8)).physical == 4


def test_without_sysfs_each_cpu_is_a_core(tmp_path: Path) -> None:
    cpu = read_cpu(write(tmp_path, {"proc/cpuinfo": XEON}), affinity=[1, 3, 5])
    assert (cpu.logical, cpu.physical, cpu.sockets, cpu.quota) == ((1, 3, 5), 3, 1, None)
    assert not is_bound(cpu, tmp_path)


def test_arm_says_implementer_and_features(tmp_path: Path) -> None:
    cpu = read_cpu(write(tmp_path, {"proc/cpuinfo": GRACE}), affinity=[0])
    assert cpu.model == "Arm implementer 0x41, part 0xd4f"
    assert cpu.flags == {"fp", "asimd", "bf16", "sve"}


def test_without_proc_python_names_the_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert read_cpu(tmp_path) == Cpu("arm", (0, 1, 2), 3, 1, None, frozenset())
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert read_cpu(tmp_path) == Cpu("unknown CPU", (0,), 1, 1, None, frozenset())


def test_the_operating_system_gives_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {6, 2} if pid == 0 else set(), raising=False)
    cpu = read_cpu(two_sockets(tmp_path))
    assert (cpu.logical, cpu.physical) == ((2, 6), 1)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "25000 50000", "cpu.max": "900000 100000"}, 0.5),
        ({"a/b/cpu.max": "200000 100000", "a/cpu.max": "max 100000"}, 2.0),
        ({"cpu.max": "300000 100000"}, 3.0),  # the container's own group is mounted as the top
        ({"a/other/cpu.max": "100000 100000"}, None),
        ({"a/b/cpu.max": "max 100000"}, None),
    ],
)
def test_cgroup_2_takes_the_smallest_limit(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/a/b"})
    write(tmp_path, {f"{GROUPS}/{name}": text for name, text in files.items()})
    assert read_cpu(tmp_path, affinity=[0]).quota == quota


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_cgroup_1(tmp_path: Path, mount: str) -> None:
    write(tmp_path, {"proc/self/cgroup": "5:memory:/m\n4:cpu,cpuacct:/pod/box\n2:cpuset:/pod\n0::/"})
    leaf, parent = f"{GROUPS}/{mount}/pod/box", f"{GROUPS}/{mount}/pod"
    write(tmp_path, {f"{leaf}/cpu.cfs_quota_us": "-1", f"{leaf}/cpu.cfs_period_us": "100000"})
    assert read_cpu(tmp_path, affinity=[0]).quota is None
    write(tmp_path, {f"{parent}/cpu.cfs_quota_us": "125000", f"{parent}/cpu.cfs_period_us": "50000"})
    write(tmp_path, {f"{GROUPS}/memory/m/cpu.cfs_quota_us": "1", f"{GROUPS}/memory/m/cpu.cfs_period_us": "1"})
    assert read_cpu(tmp_path, affinity=[0]).quota == 2.5


def test_a_cgroup_path_does_not_leave_the_mount(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/../../other", "sys/other/cpu.max": "100000 100000"})
    write(tmp_path, {f"{GROUPS}/cpu.max": "200000 100000"})
    assert read_cpu(tmp_path, affinity=[0]).quota == 2.0


@pytest.mark.parametrize(
    "text", ["", "150000", "a b", "1 2 3", "100000 0", "0 100000", "-5 100", "nan 1", "9" * 400 + " 1"]
)
def test_a_malformed_limit_is_no_limit(tmp_path: Path, text: str) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/a", f"{GROUPS}/a/cpu.max": text})
    assert read_cpu(tmp_path, affinity=[0]).quota is None
    write(tmp_path, {f"{GROUPS}/cpu.max": "700000 100000"})
    assert read_cpu(tmp_path, affinity=[0]).quota == 7.0


@pytest.mark.parametrize("rubbish", ["", "-1", "::", "3-1", "\0:\0:\0/\0", "0::/\0", "x" * 300, "4:cpu", "²"])
def test_malformed_files_are_not_known(tmp_path: Path, rubbish: str) -> None:
    two_sockets(tmp_path)
    names = [f"{CPUS}/online", "proc/cpuinfo", "proc/self/cgroup", f"{GROUPS}/cpuset.cpus.effective"]
    for number in range(4):
        topology = f"{CPUS}/cpu{number}/topology"
        names += [f"{topology}/{leaf}" for leaf in ("thread_siblings_list", "physical_package_id", "core_id")]
    write(tmp_path, dict.fromkeys(names, rubbish))
    cpu = read_cpu(tmp_path, affinity=range(4))
    assert (cpu.physical, cpu.sockets, cpu.quota, cpu.flags) == (4, 1, None, frozenset())
    assert cpu.model
    assert not is_bound(cpu, tmp_path)


def test_files_that_are_not_text_or_not_files(tmp_path: Path) -> None:
    (tmp_path / "proc/cpuinfo").mkdir(parents=True)
    (tmp_path / "proc/self").mkdir()
    (tmp_path / "proc/self/cgroup").write_bytes(b"\xff\xfe\x00\xd8")
    cpu = read_cpu(tmp_path, affinity=[0, 1])
    assert (cpu.physical, cpu.quota, cpu.flags) == (2, None, frozenset())


@pytest.mark.parametrize(
    ("affinity", "files", "bound"),
    [
        (range(8), {}, False),
        (range(4), {}, True),
        (range(4), {"cpuset.cpus.effective": "0-3"}, False),  # a container of half the machine
        (range(2), {"cpuset.cpus.effective": "0-3"}, True),  # a launcher inside of it
        (range(4), {"cpuset/cpuset.cpus": "0-3"}, False),
        (range(4), {"cpuset.cpus.effective": "0-7"}, True),
        (range(4), {"cpuset.cpus.effective": ""}, True),
    ],
)
def test_bound(tmp_path: Path, affinity: range, files: dict[str, str], bound: bool) -> None:
    two_sockets(tmp_path)
    write(tmp_path, {f"{GROUPS}/{name}": text for name, text in files.items()})
    assert is_bound(read_cpu(tmp_path, affinity), tmp_path) is bound
