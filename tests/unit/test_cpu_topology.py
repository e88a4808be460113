"""What `bertkit_cpu.topology` reads from fake proc, sys and cgroup trees, and the rule for threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit_cpu.topology import (
    Cpu,
    format_cpu_list,
    is_bound,
    native_bf16,
    parse_cpu_list,
    read_cpu,
    threads,
)

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


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
    return root


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


def cpu_of(physical: int, quota: float | None = None, flags: str = "") -> Cpu:
    return Cpu("test", tuple(range(physical)), physical, 1, quota, frozenset(flags.split()))


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


@pytest.mark.parametrize(
    ("physical", "quota", "local_size", "asked", "expected"),
    [
        (2, None, 1, 0, (2, "2 physical cores, 1 process")),
        (1, None, 1, 0, (1, "1 physical core, 1 process")),
        (16, None, 4, 0, (4, "16 physical cores, 4 processes")),
        (7, None, 2, 0, (3, "7 physical cores, 2 processes")),
        (2, None, 4, 0, (1, "2 physical cores, 4 processes")),
        (8, 1.5, 1, 0, (1, "cgroup limit of 1.5 cores, 1 process")),
        (8, 5.9, 2, 0, (2, "cgroup limit of 5.9 cores, 2 processes")),
        (8, 0.25, 1, 0, (1, "cgroup limit of 0.25 cores, 1 process")),
        (1, 0.25, 1, 0, (1, "1 physical core, 1 process")),
        (2, 1.0, 1, 0, (1, "cgroup limit of 1 core, 1 process")),
        (4, 16.0, 1, 0, (4, "4 physical cores, 1 process")),
        (4, 4.0, 1, 0, (4, "4 physical cores, 1 process")),
        (4, None, 0, 0, (4, "4 physical cores, 1 process")),
        (4, 1.0, 4, 64, (64, "asked for")),
        (4, None, 1, -1, (4, "4 physical cores, 1 process")),
    ],
)
def test_rule_for_threads(
    physical: int, quota: float | None, local_size: int, asked: int, expected: tuple[int, str]
) -> None:
    assert threads(cpu_of(physical, quota), local_size, asked) == expected


def test_a_bound_share_is_not_divided_again() -> None:
    assert threads(cpu_of(4), 2, bound=True) == (4, "4 physical cores, bound to CPUs 0-3")
    assert threads(cpu_of(4), 2, bound=False) == (2, "4 physical cores, 2 processes")


@pytest.mark.parametrize(("value", "number"), [("3", 3), (" 12 ", 12), ("6,2", 6)])
def test_omp_num_threads_wins_over_the_rule_only(value: str, number: int) -> None:
    env = {"OMP_NUM_THREADS": value}
    assert threads(cpu_of(8), 2, env=env) == (number, f"OMP_NUM_THREADS={value.strip()}")
    assert threads(cpu_of(8), 2, 5, env=env) == (5, "asked for")


@pytest.mark.parametrize("value", ["many", "0", "-2", "2.5", "²", "9" * 5000, ",2"])
def test_omp_num_threads_that_is_no_number_is_ignored_aloud(value: str) -> None:
    number, reason = threads(cpu_of(8), 2, env={"OMP_NUM_THREADS": value})
    assert number == 4
    assert reason.startswith("8 physical cores, 2 processes; OMP_NUM_THREADS=")
    assert reason.endswith("is not a positive whole number and was ignored")


def test_the_process_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "99")
    assert threads(cpu_of(4))[0] == 4
    assert threads(cpu_of(4), env={"OMP_NUM_THREADS": ""}) == (4, "4 physical cores, 1 process")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx512_bf16", (True, "avx512_bf16")),
        ("avx512_bf16 amx_tile amx_bf16", (True, "amx_bf16")),
        ("asimd bf16", (True, "bf16")),
    ],
)
def test_native_bf16(flags: str, expected: tuple[bool, str]) -> None:
    assert native_bf16(cpu_of(1, flags=flags)) == expected


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (
            "fpu avx512f avx512bw amx_int8",
            "this CPU has neither avx512_bf16 nor AMX: bf16 would be emulated and slower than fp32",
        ),
        ("fp asimd", "this CPU does not have Arm's bf16: bf16 would be emulated and slower than fp32"),
        ("", "this system does not list the CPU's features: bf16 is taken to be emulated"),
    ],
)
def test_no_native_bf16(flags: str, reason: str) -> None:
    assert native_bf16(cpu_of(1, flags=flags)) == (False, reason)


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,8,10-11", (0, 1, 2, 3, 8, 10, 11)),
        ("", ()),
        ("\n", ()),
        ("5\n", (5,)),
        ("7, 2-3 ,3", (2, 3, 7)),
        ("4-4", (4,)),
    ],
)
def test_parse_cpu_list(text: str, cpus: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["a", "3-1", "1,", ",", "-1", "1-", "1--2", "0-8:2", "1_0", "٣", "999999999"])
def test_parse_cpu_list_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"number nor a range|backwards"):
        parse_cpu_list(text)


@given(st.sets(st.integers(0, 200) | st.integers(0, 8191)))
def test_a_formatted_list_parses_back(cpus: set[int]) -> None:
    text = format_cpu_list(cpus)
    assert parse_cpu_list(text) == tuple(sorted(cpus))
    # As short as it can be: one item for each CPU whose predecessor is absent.
    assert len(text.split(",")) == max(1, sum(cpu - 1 not in cpus for cpu in cpus))


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 20)), min_size=1))
def test_ranges_may_overlap_in_any_order(ranges: list[tuple[int, int]]) -> None:
    text = ",".join(f"{first}-{first + more}" for first, more in ranges)
    union = set().union(*(range(first, first + more + 1) for first, more in ranges))
    assert parse_cpu_list(text) == tuple(sorted(union))


@given(st.text(alphabet="0123456789,- x\n", max_size=20))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        cpus = parse_cpu_list(text)
    except ValueError:
        return
    assert parse_cpu_list(format_cpu_list(cpus)) == cpus
