"""The mpi launcher's plans. `BERTKIT_TEST_WRITE_GOLDEN=1` writes tests/golden/mpi anew: read the diff."""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import replace
from typing import Any

import pytest

from bertkit.distributed.topology import Core
from bertkit.distributed.topology import machine_of as build
from bertkit.errors import UserError
from bertkit.launch.affinity import format_places, parse_places, places
from bertkit.launch.interface import LaunchPlan, Request
from bertkit_mpi.mpirun import Flavour, Mpirun
from bertkit_mpi.open_mpi import native_mapping
from bertkit_mpi.plan import mpi_plan
from launch_cases import CASES, COMMAND, GOLDEN, machine_of

FLAVOURS: dict[Flavour, str] = {"open-mpi-4": "4.1.4", "open-mpi-5": "5.0.11", "intel": "2021.18", "mpich": "5.0.2"}
ENV = {"PATH": "/usr/bin", "HOME": "/root", "OMP_PROC_BIND": "true", "TOKEN": "s3cret", "MASTER_PORT": "40001"}


def plan_of(case: str, flavour: Flavour, env: dict[str, str] | None = None, **changes: Any) -> LaunchPlan:
    topology, request = CASES[case]
    mpirun = Mpirun("/opt/mpi/bin/mpirun", flavour, FLAVOURS[flavour])
    machine = changes.pop("machine", None) or machine_of(topology)
    options: dict[str, Any] = {"allocator": "/usr/lib/libtcmalloc.so.4", "is_root": True, "numactl": True}
    options |= {name: changes.pop(name) for name in list(changes) if name in options}
    return mpi_plan(replace(request, **changes), machine, mpirun, ENV if env is None else env, **options)


def as_json(plan: LaunchPlan) -> dict[str, Any]:
    """All that a plan holds, the processes in one line each; what they all share is left to `argv` and `env`."""
    return {
        "argv": shlex.join(plan.argv),
        "env": dict(plan.env),
        "processes": [
            f"{one.rank} {one.host} {one.local_rank}: {format_places([one.place])} {one.place.cores} cores"
            for one in plan.processes
        ],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "stop_signal": int(plan.stop_signal),
    }


@pytest.mark.parametrize("case", CASES)
def test_golden(case: str) -> None:
    path = GOLDEN / "mpi" / f"{case}.json"
    found = {flavour: as_json(plan_of(case, flavour)) for flavour in FLAVOURS}
    if os.environ.get("BERTKIT_TEST_WRITE_GOLDEN"):
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_text(encoding="utf-8"))


def test_no_golden_file_is_left_over() -> None:
    assert {path.stem for path in (GOLDEN / "mpi").iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_what_every_plan_keeps(case: str, flavour: Flavour) -> None:
    plan = plan_of(case, flavour)
    request = CASES[case][1]
    program = (request.python, "-P", "-m", "bertkit.launch.rank_process", *COMMAND)
    assert plan.argv[-len(program) :] == program
    assert all(one.argv == program for one in plan.processes)
    assert [one.rank for one in plan.processes] == list(range(len(plan.processes)))
    assert plan.argv[1:3] == ("-n", str(len(plan.processes)))
    assert not any("s3cret" in word for word in plan.argv), "a value on the command line"
    local = [one for one in plan.processes if one.host == plan.processes[0].host]
    asked = parse_places(plan.env["BERTKIT_PLACES"])
    assert len(asked) == len(local)
    if not ({"core", "-bind-to"} & set(plan.argv) or "I_MPI_PIN_DOMAIN" in plan.env):
        assert [place.cpus for place in asked] == [one.place.cpus for one in local], "nobody would bind the ranks"
    words = set(plan.argv)
    assert words.isdisjoint({"package", "--use-hwthread-cpus"})
    hydra = {"-genvlist", "-ppn", "-hosts", "-iface", "-bind-to"}
    assert words.isdisjoint(hydra if flavour.startswith("open-mpi") else {"-x", "--mca", "--prtemca", "--map-by"})


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_only_names_that_are_set_travel(flavour: Flavour) -> None:
    argv = plan_of("two_hosts", flavour).argv
    text = " ".join(argv).replace(",", " ").split()
    for name in ("PATH", "OMP_PROC_BIND", "TOKEN", "MASTER_ADDR", "MASTER_PORT", "BERTKIT_PLACES", "LD_PRELOAD"):
        assert name in text
    assert not {"ABSENT", "HOME", "PYTHONPATH"} & set(text)


def test_the_rendezvous() -> None:
    assert plan_of("two_hosts", "mpich").env["MASTER_ADDR"] == "alpha"
    assert plan_of("two_hosts", "mpich").env["MASTER_PORT"] == "12345"
    assert plan_of("2sockets", "mpich").env["MASTER_ADDR"] == "127.0.0.1"
    assert plan_of("2sockets", "mpich").env["MASTER_PORT"] == "40001"
    assert plan_of("2sockets", "mpich", env={}).env["MASTER_PORT"] == "29500"


@pytest.mark.parametrize(
    ("flavour", "names"),
    [
        ("open-mpi-4", {"OMPI_MCA_btl", "OMPI_MCA_mtl"}),
        ("open-mpi-5", {"OMPI_MCA_btl", "OMPI_MCA_mtl"}),
        ("mpich", {"UCX_NET_DEVICES", "FI_TCP_IFACE"}),
        ("intel", set()),
    ],
)
def test_ranks_of_one_host_listen_on_no_network(flavour: Flavour, names: set[str]) -> None:
    """The real ones are asked in tests/e2e/test_mpis.py."""
    here = plan_of("2sockets", flavour)
    assert names <= here.env.keys()
    assert names.isdisjoint(plan_of("two_hosts", flavour).env)
    for name in names:
        assert plan_of("2sockets", flavour, env={name: "mine"}).env.get(name) is None
    if flavour == "mpich":
        assert names <= set(here.argv[here.argv.index("-genvlist") + 1].split(","))


def test_without_root_nothing_is_said_of_it() -> None:
    assert "--allow-run-as-root" not in plan_of("2sockets", "open-mpi-5", is_root=False).argv


def test_an_allocator_joins_what_is_preloaded() -> None:
    env = plan_of("1socket", "mpich", env={"LD_PRELOAD": "/a.so /b.so"}).env
    assert env["LD_PRELOAD"] == "/a.so:/b.so:/usr/lib/libtcmalloc.so.4"
    assert "LD_PRELOAD" not in plan_of("1socket", "mpich", allocator="").env


def test_warnings() -> None:
    machine = replace(machine_of("2sockets"), quota=2.5)
    plan = plan_of("2sockets", "open-mpi-4", machine=machine, numactl=False)
    assert [warning.split(":")[0] for warning in plan.warnings] == [
        "the cgroup's limit is 2.5 of 8 cores",
        "numactl is not installed",
    ]
    assert plan.env["OMP_NUM_THREADS"] == "1"  # 2.5 cores, 2 processes
    assert plan_of("2sockets", "open-mpi-4").warnings == ()
    assert plan_of("1socket", "open-mpi-4", numactl=False).warnings == ()  # one node: nothing to bind
    assert plan_of("2sockets_idle_core", "intel").warnings[0].startswith("2 of 8 cores stay idle")


@pytest.mark.parametrize(
    ("env", "inside"),
    [
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "mpirun"),
        ({"PMI_SIZE": "2"}, "mpirun"),
        ({"TORCHELASTIC_RUN_ID": "none"}, "torchrun"),
        ({"SLURM_STEP_ID": "0"}, "srun"),
        ({"SLURM_STEP_ID": "4294967290"}, ""),  # salloc's interactive step
        ({"PMI_SIZE": ""}, ""),
        ({"SLURM_JOB_ID": "7"}, ""),
    ],
)
def test_a_job_within_a_job_is_refused(env: dict[str, str], inside: str) -> None:
    if not inside:
        assert plan_of("2sockets", "open-mpi-5", env=env).processes
        return
    with pytest.raises(UserError, match=f"under {inside} already"):
        plan_of("2sockets", "open-mpi-5", env=env)


@pytest.mark.parametrize(
    "changes",
    [
        {"hosts": ("-oProxyCommand=x",)},
        {"hosts": ("a:3",)},
        {"hosts": ("a,b",)},
        {"hosts": ("",)},
        {"hosts": ("a", "a")},
        {"hosts": ("localhost", "b")},
        {"hosts": ("127.0.0.1", "b")},
        {"interface": "--mca"},
        {"interface": "eth0,"},
        {"forward": ("A=1",)},
        {"forward": ("-x",)},
        {"ssh_config": "/my files/config"},
    ],
)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_words_that_would_be_options_are_refused(changes: dict[str, Any], flavour: Flavour) -> None:
    with pytest.raises(UserError):
        plan_of("2sockets", flavour, **changes)


def test_hydra_takes_one_interface_by_name() -> None:
    assert "10.0.0.0/24" in plan_of("two_hosts", "open-mpi-4", interface="10.0.0.0/24").argv
    with pytest.raises(UserError, match="takes one interface"):
        plan_of("two_hosts", "intel", interface="10.0.0.0/24")


def test_mpirun_is_not_trusted_with_what_hwloc_orders_differently() -> None:
    """Socket 1 holds the first CPUs: hwloc calls it the first package, so mpirun's ranks would be the other way."""
    cores = [Core((cpu,), socket=1 - cpu // 2, node=0) for cpu in range(4)]
    request = Request(COMMAND, domain="socket")
    swapped = build(cores)
    assert native_mapping(swapped, places(swapped, request), "socket") is None
    usual = build([replace(core, socket=1 - core.socket) for core in cores])
    assert native_mapping(usual, places(usual, request), "socket") == (1, "socket", 2)
