"""Whether the real mpiruns place ranks where the plan says, on machines that are not here (hwloc files)."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bertkit.distributed.topology import parse_cpu_list, read_machine
from bertkit.errors import UserError
from bertkit.launch.affinity import parse_places
from bertkit.launch.interface import Request
from bertkit_mpi.mpirun import Flavour, Mpirun, parse_version, probe
from bertkit_mpi.plan import mpi_plan
from launch_cases import CASES, GOLDEN, machine_of
from launchers import WHEELS, mpirun_of_wheel

# The first of these that is of the version: the package's beside Python, the system's.
CANDIDATES = (str(Path(sys.executable).with_name("mpirun")), "/usr/bin/mpirun", shutil.which("mpirun") or "")


def mpirun_of(flavour: Flavour) -> Mpirun:
    for path in CANDIDATES:
        if not os.path.isfile(path):
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
        try:
            found, version = parse_version(said)
        except UserError:
            continue
        if found == flavour:
            return Mpirun(path, flavour, version)
    pytest.skip(f"no mpirun of {flavour} is here")


def options_of(case: str, mpirun: Mpirun) -> tuple[list[str], list[tuple[int, ...]]]:
    """The plan's own options for mapping and binding, and the CPUs that each rank is planned to have."""
    topology, request = CASES[case]
    here = replace(request, hosts=("localhost",) if not request.hosts else (platform.node(), "other"), ssh_config="")
    plan = mpi_plan(here, machine_of(topology), mpirun, {"MASTER_PORT": "1"}, is_root=os.geteuid() == 0)
    argv = list(plan.argv[1 : plan.argv.index(request.python)])
    binds = "core" in argv
    kept = []
    while argv:
        word = argv.pop(0)
        if word in ("-x", "--mca", "--prtemca"):  # nothing of these concerns the mapping
            del argv[: 1 if word == "-x" else 2]
        else:
            kept.append(word)
    return kept, [one.place.cpus if binds else () for one in plan.processes]


def run(mpirun: Mpirun, words: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        [mpirun.path, *words, "true"],
        env={name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PRTE_"))} | env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES)
def test_open_mpi_5(case: str) -> None:
    mpirun = mpirun_of("open-mpi-5")
    options, planned = options_of(case, mpirun)
    topology = GOLDEN / "topologies" / f"{CASES[case][0]}.xml"
    dry = ["--runtime-options", "donotlaunch", "--display", "map-devel"]
    said = run(mpirun, ["--prtemca", "hwloc_use_topo_file", str(topology), *dry, *options], {})
    found = re.findall(
        r"Data for proc: \[\S+@1,(\d+)\].*?Binding: (?:UNBOUND|package\[\d+\]\[core:L([\d,-]+)\])", said, re.S
    )
    cores = machine_of(CASES[case][0]).cores  # in hwloc's order: checked by the plan before mpirun may bind
    placed = {int(rank): [cpu for core in parse_cpu_list(named) for cpu in cores[core].cpus] for rank, named in found}
    assert {rank: tuple(sorted(cpus)) for rank, cpus in placed.items()} == dict(enumerate(planned)), said


@pytest.mark.parametrize("case", CASES)
def test_open_mpi_4(case: str) -> None:
    mpirun = mpirun_of("open-mpi-4")
    options, planned = options_of(case, mpirun)
    topology = GOLDEN / "topologies" / f"{CASES[case][0]}.xml"
    # Its displayed maps stay empty for a foreign machine, but the mapper tells each rank's CPUs when it is verbose.
    dry = ["--do-not-launch", "--mca", "rmaps_base_verbose", "10"]
    said = run(mpirun, ["--mca", "hwloc_base_topo_file", str(topology), *dry, *options], {"HWLOC_THISSYSTEM": "0"})
    found = re.findall(r"PROC \[\[\d+,1\],(\d+)\] BITMAP ([\d,-]+)", said)
    bound = {rank: cpus for rank, cpus in enumerate(planned) if cpus}
    assert {int(rank): parse_cpu_list(cpus) for rank, cpus in found} == bound, said
    if not bound:
        assert f"Num procs: {len(planned)}" in run(
            mpirun,
            ["--mca", "hwloc_base_topo_file", str(topology), "--do-not-launch", "--display-devel-map", *options],
            {"HWLOC_THISSYSTEM": "0"},
        ).replace("\t", " ")


@pytest.mark.parametrize(
    "flavour", ["open-mpi-4", "open-mpi-5", *(pytest.param(name, marks=pytest.mark.slow) for name in WHEELS)]
)
def test_a_whole_plan_starts(flavour: Flavour, request: pytest.FixtureRequest) -> None:
    """Every option of a plan for this machine is taken, every rank gets the variables, and nobody shares a core."""
    if flavour in WHEELS:
        path = mpirun_of_wheel(WHEELS[flavour], request.config.cache.mkdir("mpis"))
        mpirun = probe({**os.environ, "BERTKIT_MPIRUN": str(path)}, sys.executable)
    else:
        mpirun = mpirun_of(flavour)
    machine = read_machine()
    count = min(2, len(machine.cores))
    env = dict(os.environ) | {"SECRET": "x y", "MASTER_PORT": "1"}
    asked = Request(("none",), processes=count, forward=("SECRET",), python=sys.executable)
    plan = mpi_plan(asked, machine, mpirun, env, is_root=os.geteuid() == 0)
    # One write: Hydra mixes the pieces that two ranks write at the same time.
    said = "f\"{os.environ['SECRET']} {os.environ['BERTKIT_PLACES']} {sorted(os.sched_getaffinity(0))}\\n\""
    report = f"import os; os.write(1, {said}.encode())"
    words = (*plan.argv[: plan.argv.index(sys.executable)], sys.executable, "-c", report)
    done = subprocess.run(words, env=env | dict(plan.env), capture_output=True, text=True, timeout=120, check=False)
    by_itself = [
        bool(place.cpus) for place in parse_places(plan.env["BERTKIT_PLACES"])
    ]  # later: the rank's own process
    cpus = [
        sorted(os.sched_getaffinity(0) if later else one.place.cpus)
        for one, later in zip(plan.processes, by_itself, strict=True)
    ]
    expected = sorted(f"x y {plan.env['BERTKIT_PLACES']} {mine}" for mine in cpus)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, expected), done.stderr
