"""A run that was killed, again and again, ends exactly as one that was not."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from command import (
    CPU,
    NULL,
    checkpoints,
    events,
    record,
    remove_checkpoint,
    run,
    same_result,
    settings,
    start,
    tensors,
    updates,
    wait_for,
    weights,
)  # fmt: skip
from conftest import assert_one_line_error


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run, and how long its parts took."""

    folder: Path
    arguments: tuple[str | Path, ...]
    startup_s: float
    training_s: float

    def again(self, *more: str | Path) -> tuple[str | Path, ...]:
        """The same run into the folder `run`."""
        return (*self.arguments, "-o", "run", "--resume", *more)


def uninterrupted(folder: Path, *arguments: str | Path) -> Reference:
    begun = time.time()
    done = run(folder, *arguments, "-o", "whole")
    assert done.returncode == 0, done.stderr
    times = [event["time"] for event in events(folder / "whole") if event["event"] == "update"]
    return Reference(folder / "whole", arguments, times[0] - begun, times[-1] - times[0])


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Reference:
    """60 updates over 6 epochs, with dropout."""
    rows = settings(data__train_rows=320, data__eval_rows=64, evaluation__every=20, checkpoint__every=3, log__every=1)
    more = (*rows, "--lr", "5e-4", "-b", "32", "-e", "6", "--data-dir", sample_dir)
    return uninterrupted(tmp_path_factory.mktemp("cpu"), *CPU, *more)


@pytest.fixture(scope="module")
def on_null(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Reference:
    """30 updates over 3 epochs, a checkpoint after each."""
    rows = settings(data__train_rows=80, data__eval_rows=8, device__step_seconds=0.02, log__every=1)
    more = (*rows, *settings(checkpoint__every=1), "-b", "8", "-e", "3", "--data-dir", sample_dir)
    return uninterrupted(tmp_path_factory.mktemp("null"), *NULL, *more)


def kill_chain(folder: Path, reference: Reference, kills: int, seed: int) -> int:
    """Kill and go on `kills` times, then let the run end.

    Every other kill comes at any moment of the start, the others at any moment once the leg has made an update.
    Returns how many of the kills came after such an update and before the run's last checkpoint.
    """
    stream = random.Random(seed)  # noqa: S311 - moments, not secrets
    target, last = folder / "run", record(reference.folder)["updates"]
    done = during = 0
    for leg in range(2 * kills):
        before = max(checkpoints(target), default=0)

        def progressed(begun: float = time.time()) -> bool:
            return any(event["event"] == "update" and event["time"] > begun for event in events(target))

        with start(folder, *reference.again()) as process:
            if leg % 2 and before < last:
                wait_for(progressed, process)
                time.sleep(stream.uniform(0, 2 * reference.training_s / kills))
            else:
                time.sleep(stream.uniform(0, 1.2 * reference.startup_s))
            process.kill()  # nothing happens to one that has ended
            _, stderr = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), stderr
        done += process.returncode != 0
        during += process.returncode != 0 and progressed() and max(checkpoints(target), default=0) < last
        if done == kills:
            break
    finished = run(folder, *reference.again())
    assert finished.returncode == 0, finished.stderr
    assert done == kills
    return during


@pytest.mark.slow
def test_twenty_kills_change_nothing(on_cpu: Reference, tmp_path: Path) -> None:
    during = kill_chain(tmp_path, on_cpu, kills=20, seed=7)
    same_result(tmp_path / "run", on_cpu.folder)
    assert during >= 5


def test_kills_while_saving_change_nothing(on_null: Reference, tmp_path: Path) -> None:
    during = 0
    for number, kills in enumerate([10] * (KILLS // 10)):
        folder = tmp_path / str(number)
        folder.mkdir()
        during += kill_chain(folder, on_null, kills, seed=3 + number)
        same_result(folder / "run", on_null.folder)
        assert files(folder) == files(on_null.folder.parent)
    assert during >= KILLS // 5


def files(folder: Path) -> set[str]:
    """All files of the run and of the cache beside it, hidden ones too."""
    places = [path for name in ("run", "whole", "cache") for path in (folder / name).rglob("*")]
    return {str(path.relative_to(folder)).replace("whole/", "run/") for path in places if path.is_file()}


def save_chain(folder: Path, reference: Reference, kills: int, seed: int) -> int:
    """Kill the run again and again in the middle of a save, then let it end. Returns how many kills were within one."""
    stream = random.Random(seed)  # noqa: S311 - moments, not secrets
    place = folder / "run" / "checkpoints"

    def writing() -> bool:
        return place.is_dir() and any(name.endswith(".part") for name in os.listdir(place))

    within = 0
    for _ in range(kills):
        wanted = max(checkpoints(folder / "run"), default=0) + stream.choice((0, 1, 1, 2))
        with start(folder, *reference.again()) as process:
            while process.poll() is None:
                if max(checkpoints(folder / "run"), default=0) >= wanted and writing():
                    time.sleep(stream.choice((0, 0, 0.001, 0.003)))
                    break
            process.kill()
            process.communicate()
        within += writing()
        if process.returncode == 0:
            shutil.rmtree(folder / "run")  # it ended before it was killed: the next kills are another run's
    finished = run(folder, *reference.again())
    assert finished.returncode == 0, finished.stderr
    return within


KILLS = int(os.environ.get("BERTKIT_TEST_KILLS", "10"))
KILLS_WITHIN = int(os.environ.get("BERTKIT_TEST_KILLS", "5"))  # each needs a whole start of the command


@pytest.mark.slow
def test_kills_within_saves_change_nothing_and_leave_nothing(on_null: Reference, tmp_path: Path) -> None:
    """BERTKIT_TEST_KILLS=100: half of the two hundred, with `test_kills_while_saving_change_nothing`."""
    within = save_chain(tmp_path, on_null, KILLS_WITHIN, seed=5)
    same_result(tmp_path / "run", on_null.folder)
    assert files(tmp_path) == files(on_null.folder.parent)
    assert within >= KILLS_WITHIN // 4


def test_unfinished_files_of_a_killed_run_are_cleared_away(on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    for name in (".model.safetensors.abc.part", ".log.jsonl.abc.part", "checkpoints/.step-00000030.json.abc.part"):
        (tmp_path / "run" / name).write_bytes(b"half")
    remove_checkpoint(tmp_path / "run", 30)
    assert run(tmp_path, *on_null.again()).returncode == 0
    assert not list((tmp_path / "run").rglob("*.part"))


@pytest.mark.slow
def test_a_cut_off_checkpoint_is_passed_over(on_cpu: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_cpu.folder, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    newest = tensors(tmp_path / "run", 60)
    newest.write_bytes(newest.read_bytes()[:-1000])
    done = run(tmp_path, *on_cpu.again())
    assert done.returncode == 0, done.stderr
    assert "warning: checkpoint of step 60 is passed over" in done.stderr
    assert "continuing after update 57" in done.stderr
    same_result(tmp_path / "run", on_cpu.folder)


def test_a_flipped_byte_in_a_checkpoint_is_found(on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    newest = tensors(tmp_path / "run", 30)
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    done = run(tmp_path, *on_null.again())
    assert done.returncode == 0, done.stderr
    assert "does not match its checksum" in done.stderr
    same_result(tmp_path / "run", on_null.folder)


def test_a_flipped_bit_in_a_manifest_is_found(on_null: Reference, tmp_path: Path) -> None:
    """Of a loss: it would stand in the record as if it had been measured."""
    shutil.copytree(on_null.folder, tmp_path / "run")
    newest = tensors(tmp_path / "run", 30).with_suffix(".json")
    content = bytearray(newest.read_bytes())
    place = content.index(b'"losses"') + 20
    content[place] ^= 1
    newest.write_bytes(content)
    done = run(tmp_path, *on_null.again())
    assert done.returncode == 0, done.stderr
    assert "checkpoint of step 30 is passed over" in done.stderr
    assert "does not match its seal" in done.stderr
    same_result(tmp_path / "run", on_null.folder)


def test_a_damaged_log_line_does_not_keep_a_run_from_going_on(on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    remove_checkpoint(tmp_path / "run", 30)
    log = tmp_path / "run" / "log.jsonl"
    lines = log.read_bytes().split(b"\n")
    odd = [b'{"event": "update", "step": "7"}', b"[" * 100_000, b"\xff\x00"]
    log.write_bytes(b"\n".join([*lines[:4], *odd, *lines[4:]]))
    done = run(tmp_path, *on_null.again())
    assert done.returncode == 0, done.stderr
    assert "damaged lines are skipped: 3 (line 5, 6, 7)" in done.stderr
    same_result(tmp_path / "run", on_null.folder)


@pytest.mark.slow
def test_a_damaged_later_checkpoint_does_not_push_out_new_ones(on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    tensors(tmp_path / "run", 29).write_bytes(b"damaged")
    tensors(tmp_path / "run", 30).write_bytes(b"damaged")
    again = on_null.again("--set", "checkpoint.keep=1", "--set", "device.step_seconds=2")
    with start(tmp_path, *again) as process:  # goes on after 28, so saves 29 first
        end = time.monotonic() + 60
        while time.monotonic() < end and tensors(tmp_path / "run", 29).stat().st_size < 1000:
            time.sleep(0.02)
        time.sleep(0.5)
        process.kill()
        process.communicate()
    assert "continuing after update 29" in run(tmp_path, *on_null.again()).stderr
    same_result(tmp_path / "run", on_null.folder)


@pytest.mark.slow
def test_a_checkpoint_between_two_logged_updates_is_of_its_own_step(on_null: Reference, tmp_path: Path) -> None:
    rows = settings(log__every=7, checkpoint__every=4, device__step_seconds=0)
    done = run(tmp_path, *on_null.again(*rows))
    assert done.returncode == 0, done.stderr
    assert checkpoints(tmp_path / "run")[-3:] == [24, 28, 30]
    remove_checkpoint(tmp_path / "run", 30)
    assert "continuing after update 28" in run(tmp_path, *on_null.again(*rows)).stderr
    same_result(tmp_path / "run", on_null.folder)


@pytest.mark.slow
def test_an_evaluation_between_two_logged_updates_loses_no_loss(on_null: Reference, tmp_path: Path) -> None:
    rows = settings(log__every=7, checkpoint__every=100, evaluation__every=11, device__step_seconds=0)
    done = run(tmp_path, *on_null.again(*rows))
    assert done.returncode == 0, done.stderr
    for step in checkpoints(tmp_path / "run")[1:]:
        remove_checkpoint(tmp_path / "run", step)
    done = run(tmp_path, *on_null.again(*rows))
    assert "continuing after update 11" in done.stderr
    assert record(tmp_path / "run")["losses"] == record(on_null.folder)["losses"]
    assert updates(tmp_path / "run") == list(range(1, 31))


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (("--lr", "1e-4"), "optimizer.learning_rate"),
        (("--seed", "2"), "seed"),
        (("--set", "data.train_rows=88"), "data.train_rows"),
        (("-b", "16"), "global batch"),
    ],
)
def test_other_settings_are_refused(change: tuple[str, str], key: str, on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert_one_line_error(run(tmp_path, *on_null.again(*change)), f"started with {key} = ", "--overwrite")
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_settings_that_do_not_shape_the_weights_may_change(on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    remove_checkpoint(tmp_path / "run", 30)
    done = run(tmp_path, *on_null.again(*settings(log__every=3, train__micro_batch_size=4, model__layout="packed")))
    assert done.returncode == 0, done.stderr
    assert "continuing after update 29" in done.stderr
    assert updates(tmp_path / "run") == list(range(1, 31))


def test_a_finished_run_is_left_as_it_was(on_null: Reference, tmp_path: Path) -> None:
    shutil.copytree(on_null.folder, tmp_path / "run")
    done = run(tmp_path, *on_null.again())
    assert done.returncode == 0, done.stderr
    same_result(tmp_path / "run", on_null.folder)
    assert weights(tmp_path / "run") == weights(on_null.folder)
    speeds = [record(folder)["throughput"]["tokens_per_second"] for folder in (tmp_path / "run", on_null.folder)]
    assert speeds[0] == speeds[1]
