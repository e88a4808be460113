"""`bertkit train`, `evaluate` and `predict` as a user runs them, with a small BERT on the sample task."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bertkit.files.disk import read_arrays
from command import CPU, NULL, events, record, run, settings, updates, weights
from conftest import assert_one_line_error, command_env

Done = subprocess.CompletedProcess[str]
SHORT = (
    *("train", "--recipe", "demo", "--backend", "cpu", "-d", "fp32", "-b", "16", "-e", "20", "--lr", "1e-3"),
    *settings(data__train_rows=48, data__eval_rows=100, evaluation__every=15, checkpoint__every=30, log__every=4),
)
UPDATES = 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> tuple[Path, Done]:
    """A finished run and what the command said."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(folder, *SHORT, "--data-dir", sample_dir, "-o", "run", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "run", done


def test_the_record_says_what_ran_and_what_came_out(trained: tuple[Path, Done], sample_dir: Path) -> None:
    made = record(trained[0])
    assert set(made["metrics"]) == {"accuracy", "f1"}
    assert made["config"]["train.batch_size"] == 16
    assert made["config"]["optimizer.learning_rate"] == 1e-3
    sources = made["config_sources"]
    assert sources["model.name"] == "recipe demo"
    assert sources["train.batch_size"] == "option"
    assert sources["data.train_rows"] == "--set"
    assert "optimizer.beta1" not in sources
    assert {"bertkit", "python", "numpy", "torch"} <= set(made["versions"])
    assert made["hardware"]["processes"] == 1
    assert made["hardware"]["engine"]["threads"]
    speed = made["throughput"]
    assert speed["sequences_per_second"] > 0
    assert speed["tokens_per_second"] > speed["sequences_per_second"]
    assert 0 < speed["padding_efficiency"] <= 1
    assert 0 < speed["mfu"] < 1
    assert made["data"]["train"]["examples"] == 48
    assert made["fairness"]["start"] == "random"


def test_the_log_is_json_lines_with_every_update(trained: tuple[Path, Done]) -> None:
    folder, _ = trained
    said = events(folder)
    assert [said[0]["event"], said[-1]["event"]] == ["start", "end"]
    assert updates(folder) == list(range(1, UPDATES + 1))
    losses = record(folder)["losses"]
    assert len(losses) == record(folder)["updates"] == UPDATES
    logged = [event["loss"] for event in said if event["event"] == "update"]
    assert np.allclose(logged, losses, rtol=1e-6)
    assert [event["step"] for event in said if event["event"] == "evaluation"] == [15, 30, 45, 60]


def test_the_loss_falls(trained: tuple[Path, Done]) -> None:
    losses = record(trained[0])["losses"]
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 2


def test_json_alone_is_on_stdout_and_no_control_character_on_stderr(trained: tuple[Path, Done]) -> None:
    folder, done = trained
    assert json.loads(done.stdout) == record(folder)
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr
    assert "result on the dev set" in done.stderr


def test_the_answers_are_in_glues_format(trained: tuple[Path, Done]) -> None:
    lines = (trained[0] / "predictions" / "sample-dev.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction"
    assert [line.split("\t")[0] for line in lines[1:]] == [str(number) for number in range(100)]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}


@pytest.mark.slow
def test_the_saved_recipe_repeats_the_run_bit_for_bit(trained: tuple[Path, Done], tmp_path: Path) -> None:
    saved = trained[0] / "recipe.toml"
    assert tomllib.loads(saved.read_text())["train"]["batch_size"] == 16
    done = run(tmp_path, "train", "--config", saved, "-o", "again")
    assert done.returncode == 0, done.stderr
    assert weights(tmp_path / "again") == weights(trained[0])
    assert record(tmp_path / "again")["losses"] == record(trained[0])["losses"]


@pytest.mark.slow
def test_another_seed_gives_other_weights(trained: tuple[Path, Done], sample_dir: Path, tmp_path: Path) -> None:
    done = run(tmp_path, *SHORT, "--data-dir", sample_dir, "-o", "other", "--seed", "2", "--set", "train.steps=3")
    assert done.returncode == 0, done.stderr
    assert record(tmp_path / "other")["losses"] != record(trained[0])["losses"][:3]
    assert weights(tmp_path / "other") != weights(trained[0])


@pytest.mark.slow
def test_evaluate_gives_the_records_metrics(trained: tuple[Path, Done], sample_dir: Path, tmp_path: Path) -> None:
    rows = settings(data__eval_rows=100)
    done = run(tmp_path, "evaluate", trained[0], "--data-dir", sample_dir, "-d", "fp32", "-b", "7", "--json", *rows)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["metrics"] == record(trained[0])["metrics"]
    assert (found["task"], found["examples"]) == ("sample", 100)


@pytest.mark.slow
def test_a_run_is_scored_with_its_own_settings_where_nothing_else_is_said(
    trained: tuple[Path, Done], tmp_path: Path
) -> None:
    """Task, precision, length and data folder come from the run's recipe."""
    made = json.loads((trained[0] / "record.json").read_text())
    rows = ["--set", f"data.eval_rows={made['config']['data.eval_rows']}"]
    done = run(tmp_path, "evaluate", trained[0], "--json", *rows)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["task"], found["precision"]) == ("sample", made["precision"]["name"])
    assert found["metrics"] == pytest.approx(made["metrics"], abs=1e-9)


def test_predict_answers_in_the_files_order(trained: tuple[Path, Done], sample_dir: Path, tmp_path: Path) -> None:
    rows = (sample_dir / "sample" / "dev.tsv").read_text().splitlines()[:101]
    (tmp_path / "ask.tsv").write_text("\n".join(rows) + "\n")
    asked = ("--file", "ask.tsv", "-o", "out", "-b", "9", "-d", "fp32", "--data-dir", sample_dir)
    done = run(tmp_path, "predict", trained[0], *asked)
    assert done.returncode == 0, done.stderr
    answers = (tmp_path / "out" / "sample.tsv").read_text()
    assert answers == (trained[0] / "predictions" / "sample-dev.tsv").read_text()
    assert len(json.loads((tmp_path / "out" / "sample.logits.json").read_text())) == 100


def test_predict_answers_the_whole_test_set_once(trained: tuple[Path, Done], sample_dir: Path, tmp_path: Path) -> None:
    asked = ("--backend", "null", "-o", "out", "--data-dir", sample_dir, "--json")
    done = run(tmp_path, "predict", trained[0], *asked)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["examples"] == 800
    numbers = [line.split("\t")[0] for line in (tmp_path / "out" / "sample.tsv").read_text().splitlines()[1:]]
    assert numbers == [str(number) for number in range(800)]


@pytest.mark.slow
def test_layout_and_micro_batches_do_not_change_what_is_learnt(sample_dir: Path, tmp_path: Path) -> None:
    still = settings(model__hidden_dropout=0.0, model__attention_dropout=0.0, data__train_rows=160, data__eval_rows=8)
    ways: dict[str, Sequence[str]] = {
        "padded": settings(model__layout="padded"),
        "unpadded": settings(model__layout="unpadded"),
        "packed": settings(model__layout="packed", train__micro_batch_size=8),
    }
    found = {}
    for name, way in ways.items():
        done = run(tmp_path, *CPU, *still, *way, "--data-dir", sample_dir, "-b", "32", "-e", "1", "-o", name)
        assert done.returncode == 0, done.stderr
        assert record(tmp_path / name)["hardware"]["engine"]["layout"] == name
        found[name] = read_arrays(tmp_path / name / "model.safetensors")[0]
    for name in ("unpadded", "packed"):
        for key, value in found["padded"].items():
            assert np.abs(found[name][key] - value).max() < 1e-6, (name, key)


@pytest.mark.slow
def test_a_terminal_shows_a_bar(sample_dir: Path, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    many = (*settings(data__train_rows=64, data__eval_rows=8, device__step_seconds=0.1, log__every=1), "-e", "3")
    process = subprocess.Popen(
        [sys.executable, "-m", "bertkit", *NULL, *many, "--data-dir", str(sample_dir), "-o", "run"],
        cwd=tmp_path,
        env=command_env(tmp_path) | {"TERM": "xterm", "COLUMNS": "160"},
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while part := os.read(master, 65536):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(master)
    assert process.wait(60) == 0, shown
    text = shown.decode()
    assert "training" in text
    assert "6/6" in text
    assert "\x1b[" in text
    assert "━" in text
    assert "loss" in text


@pytest.mark.slow
def test_a_folder_with_a_run_is_kept_until_it_is_to_be_replaced(sample_dir: Path, tmp_path: Path) -> None:
    small = (*NULL, *settings(data__train_rows=64, data__eval_rows=8), "--data-dir", sample_dir, "-o", "run")
    assert run(tmp_path, *small, "--dry-run").returncode == 0
    assert not (tmp_path / "run").exists()
    assert run(tmp_path, *small).returncode == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    before = (tmp_path / "run" / "record.json").read_bytes()
    assert_one_line_error(run(tmp_path, *small), "already holds a run", "--resume", "--overwrite")
    assert (tmp_path / "run" / "record.json").read_bytes() == before
    done = run(tmp_path, *small, "--overwrite", "--set", "train.steps=2", "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert (record(tmp_path / "run")["updates"], record(tmp_path / "run")["config"]["seed"]) == (2, 5)
    assert updates(tmp_path / "run") == [1, 2]
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
