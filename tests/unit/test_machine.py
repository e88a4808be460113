"""The machine read from fake sys trees and from hwloc files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.distributed.hwloc import from_hwloc, parse_mask
from bertkit.distributed.topology import Core, read_machine
from bertkit.errors import UserError
from launch_cases import GOLDEN

CPUS = "sys/devices/system/cpu"
NODES = "sys/devices/system/node"
OBJECTS = """<object type="Package" os_index="3"><object type="NUMANode" os_index="2" cpuset="0x00000003"/>
<object type="Core" os_index="0"><object type="PU" os_index="0"/><object type="PU" os_index="1"/></object>
</object>"""
FILE = '<topology version="2.0"><object type="Machine" {}>' + OBJECTS + "</object></topology>"


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text + "\n", encoding="utf-8")


def interleaved(root: Path) -> Path:
    """2 sockets x 2 cores x 2 threads: even CPUs on socket 0, CPU c + 4 beside c; one node a socket."""
    write(root, f"{CPUS}/online", "0-7")
    write(root, f"{NODES}/node0/cpulist", "0,2,4,6")
    write(root, f"{NODES}/node1/cpulist", "1,3,5,7")
    write(root, f"{NODES}/node7/cpulist", "")  # memory without CPUs
    for cpu in range(8):
        topology = f"{CPUS}/cpu{cpu}/topology"
        write(root, f"{topology}/physical_package_id", str(cpu % 2))
        write(root, f"{topology}/core_id", str(cpu % 4 // 2))
        write(root, f"{topology}/thread_siblings_list", f"{cpu % 4},{cpu % 4 + 4}")
    return root


def test_cores_are_in_order_of_socket_node_and_number(tmp_path: Path) -> None:
    machine = read_machine(interleaved(tmp_path), affinity=range(8))
    assert machine.cores == (
        Core((0, 4), socket=0, node=0),
        Core((2, 6), socket=0, node=0),
        Core((1, 5), socket=1, node=1),
        Core((3, 7), socket=1, node=1),
    )
    assert (machine.quota, machine.source, machine.whole) == (None, "sysfs", True)


def test_an_affinity_leaves_out_cpus(tmp_path: Path) -> None:
    write(interleaved(tmp_path), "proc/self/cgroup", "0::/")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000")
    machine = read_machine(tmp_path, affinity=[6, 1])
    assert machine.cores == (Core((6,), 0, 0), Core((1,), 1, 1))
    assert (machine.quota, machine.whole) == (1.5, False)


def test_without_sysfs_every_cpu_is_a_core(tmp_path: Path) -> None:
    machine = read_machine(tmp_path, affinity=[2, 0])
    assert machine.cores == (Core((0,), -1, -1), Core((2,), -1, -1))
    assert machine.source.startswith("no sysfs")


@pytest.mark.parametrize("rubbish", ["", "-1", "::", "3-1", "²", "9" * 5000, "x\0y"])
def test_rubbish_is_not_known(tmp_path: Path, rubbish: str) -> None:
    interleaved(tmp_path)
    for cpu in range(8):
        for leaf in ("physical_package_id", "core_id", "thread_siblings_list"):
            write(tmp_path, f"{CPUS}/cpu{cpu}/topology/{leaf}", rubbish)
    for node in ("node0", "node1", "nodex", f"node{'9' * 40}"):
        write(tmp_path, f"{NODES}/{node}/cpulist", rubbish)
    assert read_machine(tmp_path, affinity=range(8)).cores == tuple(Core((cpu,), -1, -1) for cpu in range(8))


def test_this_machine_can_be_read() -> None:
    assert read_machine().cores


@pytest.mark.parametrize(
    ("name", "cores", "whole"),
    [
        ("2sockets_smt", [((2 * n, 2 * n + 1), n // 4, n // 4) for n in range(8)], True),
        ("2sockets_4nodes", [((n,), n // 4, n // 2) for n in range(8)], True),
        ("2sockets_cpuset", [((n,), n // 4, n // 4) for n in (0, 1, 4, 5, 6, 7)], False),
        (
            "2sockets_interleaved",
            [((2 * n, 2 * n + 8), 0, 0) for n in range(4)] + [((2 * n + 1, 2 * n + 9), 1, 1) for n in range(4)],
            True,
        ),
    ],
)
def test_hwloc_files(name: str, cores: list[tuple[tuple[int, ...], int, int]], whole: bool) -> None:
    machine = from_hwloc(GOLDEN / "topologies" / f"{name}.xml")
    assert machine.cores == tuple(Core(*core) for core in cores)
    assert (machine.whole, machine.quota, machine.source) == (whole, None, f"hwloc file {name}.xml")


def hwloc_file(folder: Path, text: str) -> Path:
    write(folder, "x.xml", text)
    return folder / "x.xml"


def test_numbers_are_the_systems_own(tmp_path: Path) -> None:
    assert from_hwloc(hwloc_file(tmp_path, FILE.format(""))).cores == (Core((0, 1), 3, 2),)
    part = from_hwloc(hwloc_file(tmp_path, FILE.format('allowed_cpuset="0xf0000000,0x00000002"')))
    assert (part.cores, part.whole) == ((Core((1,), 3, 2),), False)


def test_a_cpu_without_core_or_package_is_a_core(tmp_path: Path) -> None:
    text = '<topology version="3.0"><object type="PU" os_index="4"/><object type="PU" os_index="1"/></topology>'
    assert from_hwloc(hwloc_file(tmp_path, text)).cores == (Core((1,), -1, -1), Core((4,), -1, -1))


BOMB = '<!DOCTYPE topology [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE topology SYSTEM "file:///etc/passwd">'
WITH_BOTH = '<!DOCTYPE topology SYSTEM "hwloc2.dtd" [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no element found"),
        ("lstopo", "syntax error"),
        (FILE.format("")[:-3], "is no hwloc file"),
        ("<a/>", "not of hwloc 2"),
        (FILE.format("").replace('version="2.0"', ""), "not of hwloc 2"),
        (FILE.format("").replace('version="2.0"', 'version="1.11"'), "not of hwloc 2"),
        (BOMB + FILE.format(""), "not hwloc's"),
        (OUTSIDE + FILE.format(""), "not hwloc's"),
        (WITH_BOTH + FILE.format(""), "not hwloc's"),
        (FILE.format("").replace('type="PU" os_index="1"', 'type="PU" os_index="-1"'), "no number"),
        (FILE.format("").replace('type="PU" os_index="1"', 'type="PU"'), "os_index"),
        (FILE.format('allowed_cpuset="0xf...f"'), "is no hwloc file"),
        (FILE.format('allowed_cpuset="0x0"'), "no CPU that may be used"),
        ('<topology version="2.0"/>', "no CPU that may be used"),
    ],
)
def test_bad_hwloc_files_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        from_hwloc(hwloc_file(tmp_path, text))
    assert caught.value.cure


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\0\0<topology")
    for name in ("absent", "bytes", "."):
        with pytest.raises(UserError):
            from_hwloc(tmp_path / name)


def test_hwlocs_own_document_type_is_taken(tmp_path: Path) -> None:
    declared = '<!DOCTYPE topology SYSTEM "hwloc2.dtd">' + FILE.format("")
    assert from_hwloc(hwloc_file(tmp_path, declared)).cores


@given(st.integers(0, 2**130))
def test_masks(mask: int) -> None:
    words = [mask >> shift & 0xFFFFFFFF for shift in range(128, -1, -32)]
    assert parse_mask(",".join(f"{word:#010x}" for word in words)) == mask
    assert parse_mask(",".join(f"{word:#x}" if word else "" for word in words)) == mask


@given(st.text(alphabet="0123456789abcdefx,.-", max_size=30))
def test_any_text_is_a_mask_or_refused(text: str) -> None:
    try:
        assert parse_mask(text) >= 0
    except ValueError:
        return
