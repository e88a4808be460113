"""Two commands that write into one folder at once: one is refused, the other goes on as if it had been alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bertkit.files.locks import NAME, alone_in
from command import NULL, events, record, run, settings, start, updates, wait_for
from conftest import assert_one_line_error

TRAIN = (*NULL, *settings(data__train_rows=80, data__eval_rows=8, log__every=1), "-b", "8")
SLOW = settings(device__step_seconds=1)  # so that it is still under way when the second command has started
STARTS = int(os.environ.get("BERTKIT_TEST_STARTS", "3"))


@pytest.fixture(scope="module")
def words(sample_dir: Path) -> tuple[str | Path, ...]:
    """30 updates into `run`."""
    return (*TRAIN, "-e", "3", "--data-dir", sample_dir, "-o", "run")


LAUNCH = ("launch", "-n", "1", "--")
UNSYNCED = settings(ranks__synchronise="false")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "ending"),
    [
        ((), (), ()),
        ((), (), ("--resume",)),
        ((), (), ("--overwrite",)),
        ((), LAUNCH, ("--resume",)),
        (LAUNCH, (), ("--resume",)),
        (LAUNCH, LAUNCH, ("--overwrite",)),
    ],
    ids=["train-train", "train-resume", "train-overwrite", "train-launch", "launch-train", "launch-launch"],
)
def test_a_second_command_is_refused(
    first: tuple[str, ...],
    second: tuple[str, ...],
    ending: tuple[str, ...],
    words: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    with start(tmp_path, *first, *words, *SLOW) as process:
        wait_for(lambda: updates(tmp_path / "run"), process)
        assert_one_line_error(run(tmp_path, *second, *words, *ending), "run: a training is under way there (process ")
        stop(process)
    assert_ended_alone(tmp_path / "run")
    done = run(tmp_path, *words, "--resume")
    assert done.returncode == 0, done.stderr
    assert "taken over" not in done.stderr
    assert updates(tmp_path / "run") == list(range(1, 31))
    assert record(tmp_path / "run")["updates"] == 30


def stop(process: subprocess.Popen[str]) -> str:
    """Have it save and end; what it said."""
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode in (130, 143), stderr
    return stderr


def assert_ended_alone(folder: Path, starts: int = 1) -> None:
    """So many starts, every update once, nothing of a lock left."""
    steps = updates(folder)
    assert 0 < len(steps) < 30
    assert steps == list(range(1, len(steps) + 1))
    assert [event["event"] for event in events(folder)].count("start") == starts
    assert not list(folder.rglob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["--resume", "--overwrite"])
def test_two_that_go_on_or_start_anew(ending: str, words: tuple[str | Path, ...], tmp_path: Path) -> None:
    """Of a run that was killed; its lock is taken over by the first."""
    with start(tmp_path, *words, *SLOW) as process:
        wait_for(lambda: updates(tmp_path / "run"), process)
        process.kill()
        process.communicate()
    assert (tmp_path / "run" / NAME).exists()
    begun = time.time()
    with start(tmp_path, *words, *SLOW, ending) as process:
        wait_for(lambda: begun < max((e["time"] for e in events(tmp_path / "run") if "loss" in e), default=0), process)
        assert_one_line_error(run(tmp_path, *words, ending), "a training is under way there")
        assert "is taken over: process " in stop(process)
    assert_ended_alone(tmp_path / "run", 2 if ending == "--resume" else 1)


@pytest.mark.slow
def test_workers_that_are_not_synchronised(words: tuple[str | Path, ...], tmp_path: Path) -> None:
    """Their common folder, and each one's own."""
    many = ("launch", "-n", "2", "--grace", "60", "--oversubscribe", "--", *words, *UNSYNCED)
    alone = (*words[:-1], "run/worker-1")
    with start(tmp_path, *many, *SLOW) as process:
        wait_for(lambda: updates(tmp_path / "run" / "worker-1"), process)
        assert_one_line_error(run(tmp_path, *many, "--overwrite"), "run: a training is under way there")
        assert_one_line_error(run(tmp_path, *words, "--overwrite"), "run: a training is under way there")
        assert_one_line_error(run(tmp_path, *alone, "--resume"), "worker-1: a training is under way there")
        stop(process)
    for worker in ("worker-0", "worker-1"):
        assert_ended_alone(tmp_path / "run" / worker)
    again = run(tmp_path, *many, "--overwrite")
    assert again.returncode == 0, again.stderr
    assert updates(tmp_path / "run" / "worker-1") == list(range(1, 31))


@pytest.mark.slow
def test_commands_that_read_need_no_lock(words: tuple[str | Path, ...], tmp_path: Path) -> None:
    assert run(tmp_path, *words).returncode == 0
    with alone_in(tmp_path / "run", "a training"):
        for command in (("predict", "run", "-o", "answers"), (*words, "--dry-run"), ("compare", "run")):
            done = run(tmp_path, *command)
            assert done.returncode == 0, done.stderr
        assert_one_line_error(run(tmp_path, *words, "--resume"), "a training is under way there")


def test_a_refused_start_leaves_nothing(words: tuple[str | Path, ...], tmp_path: Path) -> None:
    assert_one_line_error(run(tmp_path, *words, *settings(model__vocab="absent.txt")))
    assert not (tmp_path / "run").exists()


def at_once(folder: Path, words: tuple[str | Path, ...]) -> subprocess.CompletedProcess[str]:
    """Start the command twice; have the one that is not refused save and end. What the other said."""
    both = [start(folder, *words) for _ in range(2)]
    end = time.monotonic() + 60
    while all(process.poll() is None for process in both) and time.monotonic() < end:
        time.sleep(0.02)
    refused, other = sorted(both, key=lambda process: process.poll() is None)
    begun = len(updates(folder / "run"))
    wait_for(lambda: len(updates(folder / "run")) > begun, other)
    stop(other)
    stdout, stderr = refused.communicate()
    return subprocess.CompletedProcess(refused.args, refused.returncode, stdout, stderr)


@pytest.mark.slow_but("new folder")
@pytest.mark.parametrize("killed", [False, True], ids=["new folder", "killed run's folder"])
def test_of_two_starts_at_once_one_is_refused(killed: bool, words: tuple[str | Path, ...], tmp_path: Path) -> None:
    """BERTKIT_TEST_STARTS=50 for fifty."""
    ending = ("--resume",) if killed else ()
    for number in range(STARTS):
        folder = tmp_path / str(number)
        folder.mkdir()
        if killed:
            with start(folder, *words, *SLOW) as process:
                wait_for(lambda place=folder: updates(place / "run"), process)  # type: ignore[misc]
                process.kill()
                process.communicate()
        refused = at_once(folder, (*words, *SLOW, *ending))
        assert_one_line_error(refused, "a training is under way there")
        assert_ended_alone(folder / "run", 2 if killed else 1)


@pytest.mark.slow
def test_a_suites_folder(tmp_path: Path) -> None:
    suite = tmp_path / "two.toml"
    suite.write_text(
        '[two]\ntitle = "two"\nkind = "train"\n[[two.grids]]\nfrom = "here"\nmodels = ["tiny"]\n'
        'lengths = "16"\ncuts = [16]\nbatches = [1, 2]\nprecisions = ["fp32"]\n'
    )
    words = ("bench", "--suite", suite, "--backend", "null", "--seconds", "3", "-o", "cells")
    with start(tmp_path, *words) as process:
        wait_for(lambda: (tmp_path / "cells" / NAME).exists(), process)
        assert_one_line_error(run(tmp_path, *words), "cells: a suite is under way there")
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert not list((tmp_path / "cells").glob(".*"))


@pytest.mark.slow
def test_prepared_datas_folder(tmp_path: Path) -> None:
    from bertkit.data.tasks.sample import vocabulary

    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    text = "one two three .\nfour five six .\n\n" * 40_000
    (tmp_path / "text.txt").write_text(text)
    words = ("data", "prepare", "text.txt", "--vocab", "vocab.txt", "-o", "out", "--workers", "1", "--shards", "2")
    with start(tmp_path, *words) as process:
        wait_for(lambda: (tmp_path / "out" / NAME).exists(), process)
        assert_one_line_error(run(tmp_path, *words), "out: `data prepare` is under way there")
        assert_one_line_error(run(tmp_path, *words, "--overwrite"), "out: `data prepare` is under way there")
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    assert not list((tmp_path / "out").glob(".*"))
