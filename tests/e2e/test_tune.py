"""`bertkit tune`: a search from its file to the recipe that trains with the best settings."""

from __future__ import annotations

import csv
import json
import signal
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bertkit.errors import UserError
from command import NULL, checkpoints, record, run, settings, start, updates, wait_for
from conftest import assert_one_line_error

SMALL = settings(data__train_rows=64, data__eval_rows=16)
TUNE = ("tune", "run.toml", *NULL[1:], *SMALL)
SEARCH = """
[train]
batch_size = 8
[search]
"optimizer.learning_rate" = {log = [1e-5, 1e-3]}
"train.epochs" = {choices = [1, 2]}
"""


def write_search(folder: Path, text: str = SEARCH) -> None:
    (folder / "run.toml").write_text(text, encoding="utf-8")


def found(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "tune.json").read_text(encoding="utf-8"))
    return made


def tried(folder: Path) -> list[dict[str, Any]]:
    """Each trial's settings, in their order."""
    return [one["settings"] for one in found(folder)["trials"]]


def test_a_search_from_its_file_to_the_best_recipe(sample_dir: Path, tmp_path: Path) -> None:
    write_search(tmp_path)
    done = run(tmp_path, *TUNE, "--data-dir", sample_dir, "--trials", "3", "-o", "found")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[2].split() == [
        "trial", "state", "accuracy", "training", "(s)", "optimizer.learning_rate", "train.epochs",
    ]  # fmt: skip
    assert "selected on dev among 3 completed trials" in done.stderr
    assert "so its score is biased" in done.stderr
    folder = tmp_path / "found"
    made = found(folder)
    assert [one["state"] for one in made["trials"]] == ["complete"] * 3
    for one in made["trials"]:
        config = record(folder / one["folder"])["config"]
        assert {key: config[key] for key in one["settings"]} == one["settings"]
        assert config["train.batch_size"] == 8
        assert not checkpoints(folder / one["folder"])
    assert made["selected"]["of"] == 3
    with (folder / "trials.csv").open(encoding="utf-8", newline="") as file:
        assert [row["trial"] for row in csv.DictReader(file)] == ["0", "1", "2"]
    best = tomllib.loads((folder / "best.toml").read_text(encoding="utf-8"))
    assert best["optimizer"]["learning_rate"] == made["best"]["settings"]["optimizer.learning_rate"]
    assert "<svg" in (folder / "trials.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_best_recipe_trains_and_repeats_its_trial(sample_dir: Path, tmp_path: Path) -> None:
    write_search(tmp_path)
    done = run(tmp_path, *TUNE, "--data-dir", sample_dir, "--trials", "2", "-o", "found", "--json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    made = json.loads(done.stdout)
    assert made == found(tmp_path / "found")
    done = run(tmp_path, "train", "--recipe", "found/best.toml", "-o", "again")
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "again")["losses"] == record(tmp_path / "found" / made["best"]["folder"])["losses"]


# name: (text of run.toml, further words of the command, words of the error)
WRONG: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "no table": ("[train]\nepochs = 1\n", (), ("run.toml: has no table [search]", "add one")),
    "unknown key": (SEARCH + '"train.epoch" = {choices = [1]}\n', (), ("'train.epoch'", "did you mean train.epochs")),
    "wrong type": (SEARCH + '"train.steps" = {choices = ["x"]}\n', (), ("train.steps = 'x'", "integer")),
    "unknown setting beside it": (SEARCH.replace("batch_size", "epoch"), (), ("run.toml", "'train.epoch'")),
    "searched and given": (SEARCH, ("-e", "2"), ("train.epochs is given as option", "drop one")),
    "a metric of its own": (SEARCH, ("--metric", "f1"), ("evaluation.metric is for data of your own",)),
    "no data": (SEARCH, ("--data-dir", "nowhere"), ("nowhere does not exist",)),
    "no file": ("", (), ("run.toml", "cannot be read")),
}


@pytest.mark.slow_but("unknown key", "no data")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_a_line_before_anything_is_trained(name: str, sample_dir: Path, tmp_path: Path) -> None:
    text, words, said = WRONG[name]
    if text:
        write_search(tmp_path, text)
    done = run(tmp_path, *TUNE, "--data-dir", sample_dir, *words, "-o", "found")
    assert_one_line_error(done, *said)
    assert not (tmp_path / "found").exists()


@pytest.mark.slow
def test_a_folder_is_resumed_or_replaced_and_never_mixed(sample_dir: Path, tmp_path: Path) -> None:
    write_search(tmp_path)
    command = (*TUNE, "--data-dir", sample_dir, "-o", "found", "-q")
    assert run(tmp_path, *command, "--trials", "1").returncode == 0
    assert_one_line_error(run(tmp_path, *command), "already holds a search", "--resume")
    assert_one_line_error(run(tmp_path, *command, "--resume", "--seed", "2"), "started with seed = 1, not 2")
    first = tried(tmp_path / "found")
    assert run(tmp_path, *command, "--resume", "--trials", "2").returncode == 0
    both = tried(tmp_path / "found")
    assert (both[:1], len(both)) == (first, 2)


LONG = (*TUNE, "-o", "found", "--trials", "2", *settings(device__step_seconds=0.1, checkpoint__every=2))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_trial_is_started_again(number: signal.Signals, sample_dir: Path, tmp_path: Path) -> None:
    write_search(tmp_path)
    one = tmp_path / "found" / "trials" / "0001"
    with start(tmp_path, *LONG, "--data-dir", sample_dir) as process:
        wait_for(lambda: one.exists() and checkpoints(one), process)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=20)
    assert "Traceback" not in stderr
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "stopped by SIGINT: trial 1 is saved after update" in stderr
    done = run(tmp_path, *LONG, "--data-dir", sample_dir, "--resume")
    assert done.returncode == 0, done.stderr
    assert "trial 0 of 2" not in done.stderr
    assert "trial 1 of 2: resumed, " in done.stderr
    assert updates(one) == list(range(1, record(one)["updates"] + 1))
    assert [each["state"] for each in found(tmp_path / "found")["trials"]] == ["complete"] * 2


@pytest.mark.slow
def test_two_workers_share_the_trials(sample_dir: Path, tmp_path: Path) -> None:
    write_search(tmp_path)
    command = (*TUNE, "--data-dir", sample_dir, *settings(device__step_seconds=0.05))
    done = run(tmp_path, *command, "-o", "found", "--trials", "4", "--workers", "2")
    assert done.returncode == 0, done.stderr
    made = found(tmp_path / "found")
    assert [one["state"] for one in made["trials"]] == ["complete"] * 4
    journal = (tmp_path / "found" / "study.journal").read_text(encoding="utf-8")
    assert len({json.loads(line)["worker_id"] for line in journal.splitlines()}) == 2
    for one in made["trials"]:
        assert updates(tmp_path / "found" / one["folder"]) == list(
            range(1, record(tmp_path / "found" / one["folder"])["updates"] + 1)
        )


@pytest.mark.slow
def test_a_failing_trial_is_a_result_and_three_in_a_row_end_the_search(sample_dir: Path, tmp_path: Path) -> None:
    import bertkit

    def search(folder: str, lengths: list[int], trials: int) -> bertkit.Findings:
        small = {"data_dir": sample_dir, "backend": "null", "train_rows": 32, "eval_rows": 8, "epochs": 1}
        return bertkit.tune(
            "tiny",
            "sample",
            search={"data.seq_length": {"choices": lengths}},
            trials=trials,
            output=tmp_path / folder,
            quiet=True,
            **small,
        )

    some = search("some", [32, 100_000], 4)  # longer than the model has positions
    assert {one.state for one in some.trials} == {"complete", "failed"}
    assert some.best is not None
    assert some.best_settings["data.seq_length"] == 32
    with pytest.raises(UserError, match="did you mean"):
        bertkit.tune("tiny", "sample", search={"data.seq_lenght": {"choices": [32]}})


@pytest.mark.slow
def test_a_model_that_learns_is_searched(sample_dir: Path, tmp_path: Path) -> None:
    write_search(tmp_path, '[search]\n"optimizer.learning_rate" = {choices = [1e-9, 1e-3]}\n')
    words = ("--backend", "cpu", "-t", "sample", "-m", "tiny", "-s", "32", "-d", "fp32", "-b", "16", "-e", "2")
    rows = settings(data__train_rows=320, data__eval_rows=100, device__threads=1)
    done = run(tmp_path, "tune", "run.toml", *words, *rows, "--data-dir", sample_dir, "--trials", "4", "-o", "found")
    assert done.returncode == 0, done.stderr
    made = found(tmp_path / "found")
    scores = {one["settings"]["optimizer.learning_rate"]: one["score"] for one in made["trials"]}
    assert len(scores) == 2
    assert len({one["score"] for one in made["trials"]}) == 2  # equal settings give equal scores
    assert made["best"]["score"] == max(scores.values()) > made["selected"]["mean"]


def test_without_optuna_a_line_says_what_to_install(sample_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    import bertkit

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"tune needs optuna; pip install 'bertkit\[tune\]'"):
        bertkit.tune("tiny", "sample", search={"train.epochs": {"choices": [1]}}, data_dir=sample_dir)
