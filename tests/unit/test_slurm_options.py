"""What Slurm would misread, or cannot do, is refused before a script is written."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bertkit.distributed.topology import Core, Machine
from bertkit.errors import UserError
from bertkit.launch.interface import LaunchPlan, Request, SlurmOptions
from bertkit_slurm import SlurmLauncher

MACHINE = Machine(tuple(Core((number,), 0, 0) for number in range(8)))
REQUEST = Request(("train", "-t", "mrpc"), processes=4, allocator="system")


def plan(request: Request) -> LaunchPlan:
    return SlurmLauncher().plan(request, MACHINE, {})


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        (SlurmOptions(options=("--time=1\n#SBATCH --uid=0",)), "line break"),
        (SlurmOptions(options=("--time=1\r",)), "line break"),
        (SlurmOptions(options=("time=1",)), "does not begin with an option's name"),
        (SlurmOptions(options=("-",)), "does not begin with an option's name"),
        (SlurmOptions(options=("",)), "does not begin with an option's name"),
        (SlurmOptions(options=("--nodes=4",)), "--nodes is bertkit's to write; use nodes instead"),
        (SlurmOptions(options=("-N4",)), "-N is bertkit's to write"),
        (SlurmOptions(options=("--signal=INT",)), "--signal is bertkit's to write"),
        (SlurmOptions(options=("--array=1-4",)), "a job array would train several times into one folder"),
        (SlurmOptions(options=("-c x",)), "gives no number of CPUs"),
        (SlurmOptions(options=("--cpus-per-task=0",)), "gives no number of CPUs"),
        (SlurmOptions(name="a b"), "no name for a job"),
        (SlurmOptions(name=""), "no name for a job"),
        (SlurmOptions(output='a"b'), "cannot stand in a script's #SBATCH line"),
        (SlurmOptions(output="a\nb"), "cannot stand in a script's #SBATCH line"),
        (SlurmOptions(nodes=0), "0 nodes"),
        (SlurmOptions(signal_seconds=70000), "a signal 70000 s before the end"),
        (SlurmOptions(container="i", mounts=("/a",)), "the mount '/a' is none"),
        (SlurmOptions(container="i", mounts=("/a:/b,/c:/d",)), "is none"),
        (SlurmOptions(mounts=("/a:/b",)), "mounts without a container"),
    ],
)
def test_what_slurm_would_misread_is_refused(batch: SlurmOptions, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        plan(replace(REQUEST, batch=batch))


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (replace(REQUEST, hosts=("a",)), "Slurm chooses the hosts"),
        (replace(REQUEST, ssh_port=22), "without ssh"),
        (replace(REQUEST, interface="10.0.0.0/24"), "cannot be looked up"),
        (replace(REQUEST, processes=0), "0 processes"),
        (replace(REQUEST, python="/a=b/python"), "a program's path with ="),
        (replace(REQUEST, oversubscribe=True), "cores of its own"),
        (replace(REQUEST, command=("train", "a\0b")), "zero byte"),
    ],
)
def test_what_slurm_cannot_do_is_refused(request_: Request, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan(request_)


def test_within_a_step_it_is_refused() -> None:
    with pytest.raises(UserError, match="under srun already"):
        SlurmLauncher().plan(REQUEST, MACHINE, {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"})
