"""From a launch plan to its end: shown, carried out, started again where it may be, and the end explained."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.distributed.topology import Machine, format_cpu_list
from bertkit.errors import PeersLost, UserError
from bertkit.launch.interface import TRAININGS, Launcher, LaunchPlan, Request, free_port, resumed
from bertkit.launch.script import RESUME, is_script
from bertkit.launch.supervisor import NOT_ALL, STOP_CODES, Ended, Failure, supervise

Plan = Callable[[Request], LaunchPlan]
PATIENCE = 120  # seconds for a batch system's answer


class JobFailed(UserError):
    """A process of the job failed."""

    def __init__(self, cause: str, cure: str = "", exit_code: int = 1) -> None:
        super().__init__(cause, cure)
        self.exit_code = exit_code


@dataclass(frozen=True)
class Way:
    """How a plan is carried out."""

    tag: bool = False  # show every rank's lines
    grace: float = 15.0  # seconds to save and end
    max_restarts: int = 0
    logs: Path | None = None  # folder for a file of each rank's lines


def planner(launcher: Launcher, machine: Machine, env: Mapping[str, str]) -> Plan:
    """Plans of `launcher` on this machine; a port that was asked for must be free."""

    def plan(request: Request) -> LaunchPlan:
        if request.port:
            free_port(request.port)
        if request.nodes and request.nodes.rank == 0:
            free_port(int(request.nodes.address.rpartition(":")[2]))
        return launcher.plan(request, machine, env)

    return plan


def carry_out(request: Request, plan: Plan, way: Way, display: Display) -> int:
    """Start the job, and again after a failure as often as `way` allows. Returns the exit code.

    Raises JobFailed, naming the rank that failed first.
    """
    if way.logs is not None:
        _open_logs(way.logs)
    for left in range(way.max_restarts, -1, -1):
        made = plan(request)
        introduce(made, display)
        ended = supervise(made, way.tag, way.grace, way.logs)
        if stopped := _stopped(ended, request):
            where = "stopped" if ended.stopped else "stopped by a signal to another host"
            display.say("; ".join(part for part in (where, _again(request)) if part))
            return stopped
        if ended.code == 0 and ended.failure is None:
            return 0
        failed = explain(ended, request, made.argv[0])
        if left == 0 or failed.exit_code == 2:  # wrongly used: it would fail again
            show_tail(ended.failure, way, display)
            raise failed
        display.warn(f"{failed.cause}; starting again, {left} of {way.max_restarts} restarts left")
        request = dataclasses.replace(request, command=resumed(request.command))
    raise AssertionError("the last round returns or raises")


def _stopped(ended: Ended, request: Request) -> int:
    """The exit code where a signal ended the job, 0 where none did.

    Where each host starts its own processes, a signal to one host ends the ranks of all.
    """
    elsewhere = request.nodes is not None and ended.codes and ended.codes <= set(STOP_CODES)
    return ended.stopped or (max(ended.codes) if elsewhere else 0)


def _open_logs(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("rank-*.log"):
            old.unlink()
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}", "choose another folder with --logs") from None


def introduce(plan: LaunchPlan, display: Display) -> None:
    for note in plan.notes:
        display.say(note)
    for warning in plan.warnings:
        display.warn(warning)


def explain(ended: Ended, request: Request, program: str) -> JobFailed:
    """One line: which rank failed first, how, and what helps."""
    failure = ended.failure
    if failure is None:
        for line in ended.launcher_lines:
            print(line, file=sys.stderr)
        how = "" if ended.code == NOT_ALL else f" with exit code {ended.code}"
        return JobFailed(f"{Path(program).name} ended{how} before all ranks had said how they ended", _again(request))
    where = f"rank {failure.rank} on {failure.host}"
    said = next((line for line in reversed(failure.tail) if line.startswith("bertkit: ")), "")
    still = f"; {ended.still}" if ended.still and failure.code == PeersLost.exit_code else ""
    if said:
        said = said.removeprefix("bertkit: ").removeprefix(f"rank {failure.rank} ")
        if failure.code == 2:  # wrongly used: there is nothing to go on with
            return JobFailed(f"{where}: {said}", exit_code=2)
        return JobFailed(f"{where}: {said}{still}", _again(request), _exit_code(failure, request))
    return JobFailed(f"{where} failed first: {failure.text}{still}", _again(request), _exit_code(failure, request))


def _exit_code(failure: Failure, request: Request) -> int:
    """A script's own; of a command of bertkit's it says nothing more."""
    return failure.code if is_script(request.command) else 1


def _again(request: Request) -> str:
    if is_script(request.command):
        return (
            f"with {RESUME}=1 in the environment the same command resumes its trainings from their latest checkpoints"
        )
    resumes = request.command[:1] in TRAININGS
    return "resume from the latest checkpoint with the same command and --resume" if resumes else ""


def show_tail(failure: Failure | None, way: Way, display: Display) -> None:
    """The last lines of the rank that failed, where they were not shown already."""
    if failure is None or way.tag or failure.rank == 0 or failure.code == 2:
        return
    for line in failure.tail:
        display.say(f"  [rank {failure.rank} on {failure.host}] {line}")


def to_mapping(plan: LaunchPlan) -> dict[str, Any]:
    """The plan for --json."""
    return dataclasses.asdict(plan)


def show(plan: LaunchPlan) -> list[str]:
    """The plan for people: what is started, and each process's host, cores, memory, environment and words."""
    if plan.script:
        return plan.script.splitlines()
    lines = [" ".join(plan.argv)]
    lines += [f"  {name}={value}" for name, value in plan.env.items()]
    for process in plan.processes:
        place = process.place
        cpus = f"CPUs {format_cpu_list(place.cpus)}" if place.cpus else "not bound"
        memory = f", memory of node {format_cpu_list(place.nodes)}" if place.nodes else ""
        own = "".join(f" {name}={value}" for name, value in process.env.items() if name not in plan.env)
        lines.append(f"rank {process.rank} on {process.host} (local {process.local_rank}): {cpus}{memory}{own}")
        lines.append(f"    {' '.join(process.argv)}")
    return lines


def hand_in(plan: LaunchPlan, path: Path) -> str:
    """Give the script to the program that the plan names; returns the job's number. Raises UserError with its words."""
    program = plan.argv[0]
    try:
        done = subprocess.run(
            [*plan.argv, str(path)], capture_output=True, text=True, timeout=PATIENCE, errors="replace", check=False
        )
    except FileNotFoundError:
        raise UserError(
            f"there is no {program} on this machine", f"run `{program} {path}` where it is, as on a login node"
        ) from None
    except OSError as error:
        raise UserError(f"{program} does not start: {error.strerror}", "look at its installation") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"{program} did not answer in {PATIENCE} s", "see whether it answers by itself") from None
    number = done.stdout.strip().split(";")[0]  # sbatch: "7", or "7;cluster"
    if done.returncode or not number:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise UserError(f"{program} refused {path}: {said}", "correct the batch options")
    return number
