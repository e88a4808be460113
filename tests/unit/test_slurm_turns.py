"""Slurm's batch script over several turns: told to stop, it lets the ranks save, queues itself again, and goes on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from bertkit.distributed.topology import Core, Machine
from bertkit.launch.interface import Request, SlurmOptions
from bertkit_slurm import SlurmLauncher
from slurm_stand_in import calls, run_script, slurm, start_script

__all__ = ["slurm"]  # a fixture
MACHINE = Machine(tuple(Core((number,), 0, 0) for number in range(8)))


def script(requeue: bool = True, command: str = "train -t mrpc --overwrite -o runs/a") -> str:
    request = Request(tuple(command.split()), processes=4, allocator="system", batch=SlurmOptions(requeue=requeue))
    return SlurmLauncher().plan(request, MACHINE, {}).script


def stop_while_running(text: str, slurm: Path, folder: Path, times: int = 1, **env: str) -> tuple[int, str]:
    """Start the script and send its shell USR1 once srun runs, as Slurm does with --signal=B:USR1."""
    with start_script(text, slurm, folder, RUNS="long", **env) as process:
        until = time.monotonic() + 30
        while not any("command" in call for call in calls(folder)):
            assert time.monotonic() < until, "srun was not called"
            time.sleep(0.02)
        for _ in range(times):
            process.send_signal(signal.SIGUSR1)
            time.sleep(0.05)
        _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr


def requeues(folder: Path) -> list[list[str]]:
    return [call["argv"] for call in calls(folder) if call["name"] == "scontrol" and "requeue" in call["argv"]]


@pytest.mark.parametrize("times", [1, 2])
def test_usr1_saves_queues_again_and_the_next_turn_resumes(slurm: Path, tmp_path: Path, times: int) -> None:
    code, stderr = stop_while_running(script(), slurm, tmp_path, times)
    made = calls(tmp_path)
    assert code == 143
    assert made[1]["command"][4:] == ["train", "-t", "mrpc", "--overwrite", "-o", "runs/a"]
    assert [call["signal"] for call in made if "signal" in call][:1] == [signal.SIGUSR1]
    saved = next(number for number, call in enumerate(made) if "saved" in call)
    assert made[saved + 1 :] == [{"name": "scontrol", "argv": ["requeue", "7"]}]  # after the saving, once
    assert "job 7 is queued again" in stderr
    done, made = run_script(script(), slurm, tmp_path, SLURM_RESTART_COUNT="1")
    assert done.returncode == 0
    assert made[1]["command"][4:] == ["train", "-t", "mrpc", "-o", "runs/a", "--resume"]
    assert requeues(tmp_path) == []


def test_without_requeue_it_saves_and_ends(slurm: Path, tmp_path: Path) -> None:
    code, _ = stop_while_running(script(requeue=False), slurm, tmp_path)
    assert code == 143
    assert any("saved" in call for call in calls(tmp_path))
    assert requeues(tmp_path) == []


def test_a_cluster_that_does_not_queue_again_is_told_of(slurm: Path, tmp_path: Path) -> None:
    code, stderr = stop_while_running(script(), slurm, tmp_path, REQUEUE_CODE="1")
    assert code == 143
    assert "submit it with --resume" in stderr


@pytest.mark.parametrize("code", [0, 1, 2, 137, 143])
def test_what_ends_by_itself_is_not_queued_again(slurm: Path, tmp_path: Path, code: int) -> None:
    """143 is scancel's SIGTERM; a failure would fail again."""
    done, _ = run_script(script(), slurm, tmp_path, SRUN_CODE=str(code))
    assert done.returncode == code
    assert requeues(tmp_path) == []


def test_a_preemption_by_sigterm_alone_is_queued_again(slurm: Path, tmp_path: Path) -> None:
    done, _ = run_script(script(), slurm, tmp_path, SRUN_CODE="143", PREEMPTED="2026-11-20T21:05:40")
    assert done.returncode == 143
    assert requeues(tmp_path) == [["requeue", "7"]]


def test_what_is_no_training_starts_anew(slurm: Path, tmp_path: Path) -> None:
    _, made = run_script(script(command="predict -m runs/a"), slurm, tmp_path, SLURM_RESTART_COUNT="2")
    assert made[1]["command"][4:] == ["predict", "-m", "runs/a"]
