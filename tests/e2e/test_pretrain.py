"""`bertkit train -t pretrain` as a user runs it: killed in each phase, on several processes, with wrong data."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.files.disk import read_arrays
from bertkit.recipes.resolve import resolve
from bertkit.training.trainer import Trainer
from command import events, record, run, settings, start, start_ranks, tensors, updates, wait_for
from conftest import assert_one_line_error
from pretraining_runs import course, write_phases

BASE = ("train", "-t", "pretrain", "-m", "tiny", "-s", "32", "-d", "fp32", "--phases", "1,2")
MORE = settings(
    train__steps=12, phase2__steps=8, phase2__learning_rate=1e-3, checkpoint__every=3, evaluation__every=6,
    log__every=1, optimizer__name="lamb", schedule__name="polynomial", schedule__power=0.5,
)  # fmt: skip
NULL = ("--backend", "null", "-b", "16", *settings(device__step_seconds=0.05))
CPU = ("--backend", "cpu", "-b", "16", *settings(device__threads=1))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("pretraining"))


def same(one: Path, other: Path, step: int = 20) -> None:
    """Two runs learnt from the same tokens in the same order and left the same."""
    assert record(one)["losses"] == record(other)["losses"]
    assert record(one)["metrics"] == record(other)["metrics"]
    states = [read_arrays(tensors(folder, step))[0] for folder in (one, other)]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name
    assert updates(one) == updates(other) == list(range(1, step + 1))


def test_a_kill_in_each_phase_and_a_signal_at_the_switch(data: Path, tmp_path: Path) -> None:
    command = (*BASE, *MORE, *NULL, "--data-dir", data)
    done = run(tmp_path, *command, "-o", "whole")
    assert done.returncode == 0, done.stderr
    for step, how in ((5, signal.SIGKILL), (12, signal.SIGTERM), (16, signal.SIGKILL)):
        process = start(tmp_path, *command, "-o", "run", "--resume")
        wait_for(lambda reached=step: reached in updates(tmp_path / "run"), process)
        process.send_signal(how)
        process.communicate(timeout=60)
        assert process.returncode == (143 if how is signal.SIGTERM else -9)
    done = run(tmp_path, *command, "-o", "run", "--resume")
    assert done.returncode == 0, done.stderr
    same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_other_numbers_of_ranks_go_on_without_a_sequence_lost_or_doubled(data: Path, tmp_path: Path) -> None:
    """One process is killed within an epoch, two go on and end within another, three go on into the second phase."""
    notes = tmp_path / "notes"
    batches = settings(train__global_batch=18, phase2__global_batch=6, train__steps=20, phase2__steps=12)
    command = [*map(str, (*BASE, *MORE, *NULL, "--data-dir", data)), *batches, "-o", "run", "--resume"]
    program = (Path(__file__).parents[1] / "counting_ranks.py", notes)
    notes.mkdir()
    process = start(tmp_path, *command, program=program)
    wait_for(lambda: 5 in updates(tmp_path / "run"), process)
    process.kill()
    process.communicate()
    learnt = noted(notes)
    for ranks, more in ((2, ["--steps-this-run", "7"]), (3, [])):
        for done in start_ranks(tmp_path, ranks, [*command, *more], program):
            assert done.returncode == 0, done.stderr
        learnt |= noted(notes)  # what was learnt after the last checkpoint before the kill is learnt again
    assert sorted(learnt) == list(range(1, 33))
    first = course(data, **{"train.global_batch": 18}).phases[0].sampler.steps_per_epoch
    assert 1 < first < 20
    for start_of, steps, sequences in ((1, first, 110), (1 + first, first, 110), (21, 10, 59)):
        epoch = [number for step in range(start_of, start_of + steps) for number in learnt[step]]
        assert sorted(epoch) == sorted(set(epoch)), "a sequence was doubled"
        assert len(epoch) == sequences


def noted(folder: Path) -> dict[int, list[int]]:
    """The sequences of each update, over all ranks; the notes are taken away."""
    found: dict[int, list[int]] = {}
    for path in folder.glob("*.jsonl"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            found.setdefault(entry["step"], []).extend(entry["ids"])
        path.unlink()
    return found


@pytest.mark.slow
def test_five_kills_at_random_moments(data: Path, tmp_path: Path) -> None:
    """On the CPU engine with LAMB and dropout: the end is that of a run that was never killed, bit for bit."""
    longer = settings(train__steps=60, phase2__steps=40)
    command = (*BASE, *MORE, *longer, *CPU, "--data-dir", data)
    begun = time.monotonic()
    done = run(tmp_path, *command, "-o", "whole")
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - begun
    stream = random.Random(7)  # noqa: S311 - moments, not secrets
    killed, number = 0, 1
    while killed < 5:
        folder = tmp_path / f"run{number}"
        process = start(tmp_path, *command, "-o", folder, "--resume")
        before = len(updates(folder))
        end = time.monotonic() + (
            60 if killed % 2 else 0
        )  # every other session gets to an update, so that the run goes on
        while len(updates(folder)) <= before and process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(stream.random() * (0.3 if killed % 2 else seconds * 0.7))
        process.kill()
        process.communicate(timeout=60)
        if process.returncode == 0:  # done before its kill: the next kills are another run's
            same(tmp_path / "whole", folder, 100)
            number += 1
        else:
            killed += 1
    done = run(tmp_path, *command, "-o", f"run{number}", "--resume")
    assert done.returncode == 0, done.stderr
    same(tmp_path / "whole", tmp_path / f"run{number}", 100)


@pytest.mark.slow
def test_two_processes_with_two_micro_batches_are_one_with_four(data: Path, tmp_path: Path) -> None:
    still = [*settings(train__global_batch=16, model__hidden_dropout=0.0, model__attention_dropout=0.0)]
    still += [*settings(phase2__global_batch=16, train__micro_batch_size=4)]
    command = [*map(str, (*BASE, *MORE, *CPU, "--data-dir", data)), *still]
    for done in start_ranks(tmp_path, 2, [*command, "-o", "two"]):
        assert done.returncode == 0, done.stderr
    sets = [command[at + 1] for at, word in enumerate(command) if word == "--set"]
    given = {"task": "pretrain", "backend": "cpu", "precision": "fp32", "model.name": "tiny", "train.phases": "1,2"}
    place = {"data.dir": str(data), "output": str(tmp_path / "one"), "data.seq_length": 32}
    one = Trainer.of(resolve(given | place, sets, env={}), World(), Display(quiet=True)).fit().record
    two = record(tmp_path / "two")
    assert one is not None
    assert np.abs(np.array(one["losses"]) - np.array(two["losses"])).max() < 2e-4
    assert one["majority_class"] == two["majority_class"]
    for mine, theirs in zip(one["evaluations"], two["evaluations"], strict=True):
        assert mine["metrics"]["mlm_loss"] == pytest.approx(theirs["metrics"]["mlm_loss"], abs=1e-4)
    assert sum(part["sequences"] for part in two["data"]["evaluation"]) == 31
    samples = [event["samples"] for event in events(tmp_path / "two") if event["event"] == "evaluation"]
    assert len(samples) == 4
    assert samples[1] > 110  # one epoch and more of the first phase
    assert samples == sorted(samples)


def test_what_is_missing_is_one_line(data: Path, tmp_path: Path) -> None:
    command = (*BASE, *NULL, "--data-dir", data, "-o", "run")
    assert_one_line_error(run(tmp_path, *command, "--eval-dir", "nowhere"), "evaluation set nowhere does not exist")
    assert not (tmp_path / "run").exists()
    short = tmp_path / "vocab.txt"
    short.write_text("\n".join((data / "vocab.txt").read_text().split("\n")[:20]) + "\n")
    done = run(tmp_path, *command, *settings(model__vocab=short))
    assert_one_line_error(done, "vocab.txt", "part.")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_pretrained_run_is_fine_tuned_and_not_asked(data: Path, tmp_path: Path, sample_dir: Path) -> None:
    command = (*BASE, *MORE, *NULL, "--data-dir", data)
    assert run(tmp_path, *command, "-o", "run").returncode == 0
    assert_one_line_error(run(tmp_path, "predict", "run", "--backend", "null"), "pretrain makes no predictions")
    rows = settings(data__train_rows=16, data__eval_rows=8)
    task = ("train", "-m", "run", "-t", "sample", "--backend", "null", "-d", "fp32", "-s", "32", "-e", "1")
    done = run(tmp_path, *task, *rows, "--data-dir", sample_dir, "-o", "tuned")
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "tuned")["fairness"]["start"] == "checkpoint"
    assert "cls.predictions" in done.stderr  # the heads that fine-tuning has no use for are named
