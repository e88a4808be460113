"""A signal to stop during training: the update at hand is saved, the user is told how to go on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from command import NULL, checkpoints, events, run, same_result, settings, start, updates, wait_for

LONG = (*NULL, *settings(data__train_rows=160, data__eval_rows=8, checkpoint__every=25), "-b", "8", "-e", "3")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """The same run, never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    done = run(folder, *LONG, "--data-dir", sample_dir, "-o", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def training_began(folder: Path) -> bool:
    return any(event["event"] == "update" for event in events(folder))


@pytest.mark.slow_but("2-130-1")
@pytest.mark.parametrize(
    ("number", "code", "log_every"),
    [
        (signal.SIGTERM, 143, 1),
        (signal.SIGINT, 130, 1),
        (signal.SIGTERM, 143, 7),
        (signal.SIGUSR1, 143, 1),
        (signal.SIGALRM, 143, 1),
    ],
)
def test_a_signal_saves_the_update_at_hand(
    number: signal.Signals, code: int, log_every: int, sample_dir: Path, whole: Path, tmp_path: Path
) -> None:
    arguments = (*LONG, "--data-dir", sample_dir, "--set", f"log.every={log_every}")
    folder = tmp_path / "run"
    with start(tmp_path, *arguments, "-o", "run", *settings(device__step_seconds=0.05)) as process:
        wait_for(lambda: training_began(folder), process)
        time.sleep(0.17)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    step = updates(folder)[-1]
    assert 0 < step < 60
    assert checkpoints(folder)[-1] == step
    assert updates(folder) == list(range(1, step + 1))
    assert events(folder)[-1]["event"] == "stopped"
    assert f"stopped by {number.name} after update {step} of 60, which is saved" in stderr
    assert "--resume" in stderr
    assert not (folder / "record.json").exists()
    done = run(tmp_path, *arguments, "-o", "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert f"continuing after update {step} of 60" in done.stderr
    same_result(folder, whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGALRM, signal.SIGTERM])
def test_a_launched_job_is_stopped_by_what_a_batch_system_sends(
    number: signal.Signals, sample_dir: Path, tmp_path: Path
) -> None:
    slow = settings(device__step_seconds=0.05)
    command = ("launch", "-n", "1", "--", *LONG, *slow, "--data-dir", sample_dir, "-o", "run")
    with start(tmp_path, *command) as process:
        wait_for(lambda: training_began(tmp_path / "run"), process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 143, stderr
    step = updates(tmp_path / "run")[-1]
    assert 0 < step < 60
    assert checkpoints(tmp_path / "run")[-1] == step
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_second_interrupt_does_not_wait(sample_dir: Path, tmp_path: Path) -> None:
    slow = settings(device__step_seconds=30)
    with start(tmp_path, *LONG, *slow, "--data-dir", sample_dir, "-o", "run") as process:
        wait_for(lambda: events(tmp_path / "run"), process)
        time.sleep(1.0)  # the first update has begun
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=5)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "bertkit: stopped"


def test_an_interrupt_before_training_is_one_line(sample_dir: Path, tmp_path: Path) -> None:
    with start(tmp_path, *LONG, "--data-dir", sample_dir, "-o", "run") as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("settings: ")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Traceback" not in stderr
    assert stderr.splitlines()[-1] == "bertkit: stopped"
