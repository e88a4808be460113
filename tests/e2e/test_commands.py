"""The commands beside training, the options of all, and other tools' spellings."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from command import NULL, record, run, settings
from conftest import Run

COMMANDS = (
    "train", "evaluate", "predict", "score", "backends", "check", "models", "recipes", "recipes copy", "config show",
    "data list", "data get", "data verify", "bench", "migrate", "tune", "export", "prune layers", "prune vocabulary",
)  # fmt: skip


def test_version(tmp_path: Path) -> None:
    import bertkit

    done = run(tmp_path, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"bertkit {bertkit.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, tmp_path: Path) -> None:
    done = run(tmp_path, *command.split(), "-h")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"bertkit {command}" in done.stdout.split("Example", 1)[1]


def test_the_first_help_says_how_to_start(tmp_path: Path) -> None:
    done = run(tmp_path, "-h")
    assert done.returncode == 0
    assert "bertkit train --recipe demo" in " ".join(done.stdout.split())


JSON = ("backends", "backends cpu", "models", "recipes", "config show", "data list", "check null")


@pytest.mark.parametrize("command", JSON)
def test_json_is_alone_on_stdout(command: str, tmp_path: Path) -> None:
    done = run(tmp_path, *command.split(), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


def test_backends_says_what_is_ready(tmp_path: Path) -> None:
    done = run(tmp_path, "backends")
    assert done.returncode == 0
    assert "null: ready" in done.stdout
    assert "cpu (intel): " in done.stdout
    assert "device.step_seconds" in run(tmp_path, "backends", "null").stdout


@pytest.mark.slow
def test_models_lists_the_published_sizes(tmp_path: Path) -> None:
    rows = {row["name"]: row for row in json.loads(run(tmp_path, "models", "--json").stdout)}
    assert list(rows)[:9] == ["tiny", "mini", "small", "medium", "base", "large", "4l-288d", "4l-312d", "6l-768d"]
    assert rows["large"]["published"]["model"] == "bert-large-uncased"
    assert "google-bert/bert-base-chinese" in rows["bert-base-chinese"]["published"]["names"]
    assert len(rows) == 36
    assert rows["4l-312d"]["published"] is None
    assert rows["large"]["published"]["path"] is None
    assert rows["base"]["parameters"] == 109_482_240
    assert rows["large"]["parameters"] == 335_141_888
    assert all(name in run(tmp_path, "models").stdout for name in rows)


def test_check_of_the_null_backend_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "null")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def test_a_check_announces_its_end_and_keeps_to_it(tmp_path: Path) -> None:
    done = run(tmp_path, "check", "cpu", "--only", "reference", "--only", "learns", "--limit", "0.01")  # the longest
    announced, *rest = done.stdout.splitlines()[1:]
    assert re.fullmatch(r"2 checks, about .+ by a trial; all end within 1 s \(--limit\)", announced), done.stdout
    assert done.returncode == 1
    assert rest[-2].startswith("failed ")
    assert rest[-2].endswith("not finished in the time announced; give more with --limit")


def test_config_shows_where_each_of_six_layers_set_something(tmp_path: Path, bertkit: Run) -> None:
    (tmp_path / "mine.toml").write_text("seed = 4\n[schedule]\nwarmup = 0.2\n[log]\nevery = 2\n[train]\nepochs = 9\n")
    more = ("--config", "mine.toml", "--set", "log.every=3", "--set", "train.batch_size=24", "-b", "16")
    environment = {"BERTKIT_SCHEDULE_WARMUP": "0.3", "BERTKIT_TRAIN_EPOCHS": "8", "BERTKIT_OPTIMIZER_BETA2": "0.98"}
    show = ("config", "show", "--recipe", "demo", *more)
    done = bertkit(*show, "--resolved", **environment)
    assert done.returncode == 0, done.stderr
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    for key, value, source in (
        ("train.batch_size", "16", "option"),
        ("log.every", "3", "--set"),
        ("schedule.warmup", "0.2", "mine.toml"),
        ("train.epochs", "9", "mine.toml"),
        ("optimizer.beta2", "0.98", "environment BERTKIT_OPTIMIZER_BETA2"),
        ("model.name", '"tiny"', "recipe demo"),
        ("optimizer.beta1", "0.9", "default"),
    ):
        shown, _, origin = lines[key].partition("# ")
        assert (shown.split("=")[1].strip().removesuffix(".0"), origin) == (value, source), lines[key]
    rows = json.loads(bertkit(*show, "--json", **environment).stdout)
    assert rows["optimizer.beta2"] == {"value": 0.98, "source": "environment BERTKIT_OPTIMIZER_BETA2"}
    assert "peak learning rate" in run(tmp_path, "config", "show").stdout


@pytest.mark.slow
def test_a_recipe_is_copied_edited_and_used(sample_dir: Path, tmp_path: Path) -> None:
    listed = run(tmp_path, "recipes").stdout
    assert all(name in listed for name in ("demo", "glue", "bert-paper"))
    done = run(tmp_path, "recipes", "copy", "demo", "mine.toml")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "mine.toml"
    assert tomllib.loads(path.read_text())["task"] == "sample"
    assert run(tmp_path, "recipes", "copy", "demo", "mine.toml").returncode == 2  # it exists
    path.write_text(path.read_text().replace("batch_size = 32", "batch_size = 8\nsteps = 2"))
    rows = settings(data__train_rows=32, data__eval_rows=8)
    at = ("--backend", "null", "--data-dir", sample_dir, "-o", "run")
    done = run(tmp_path, "train", "--recipe", "mine.toml", *at, *rows)
    assert done.returncode == 0, done.stderr
    made = record(tmp_path / "run")
    assert (made["updates"], made["config"]["train.batch_size"]) == (2, 8)
    assert made["config_sources"]["train.batch_size"] == "recipe mine.toml"


@pytest.mark.slow
def test_hugging_faces_spellings_work(sample_dir: Path, tmp_path: Path) -> None:
    theirs = (
        "--model_name_or_path tiny --task_name sample --do_train --do_eval --max_seq_length 32 "
        "--per_device_train_batch_size 8 --gradient_accumulation_steps 2 --learning_rate 3e-5 --num_train_epochs 2 "
        "--weight_decay 0.0 --warmup_ratio 0.2 --max_train_samples=64 --max_eval_samples=16 --output_dir run "
        "--overwrite_output_dir --save_steps 2 --logging_steps 1 --seed 7"
    ).split()
    done = run(tmp_path, "train", "--backend", "null", "--data-dir", sample_dir, *theirs)
    assert done.returncode == 0, done.stderr
    assert "understood: --model_name_or_path" in done.stderr
    config = record(tmp_path / "run")["config"]
    wanted = {
        "train.batch_size": 16, "train.micro_batch_size": 8, "optimizer.learning_rate": 3e-5, "train.epochs": 2.0,
        "optimizer.weight_decay": 0.0, "schedule.warmup": 0.2, "data.train_rows": 64, "data.seq_length": 32,
        "model.name": "tiny", "task": "sample", "seed": 7, "checkpoint.every": 2, "log.every": 1,
    }  # fmt: skip
    assert {key: config[key] for key in wanted} == wanted
    assert record(tmp_path / "run")["updates"] == 8


@pytest.mark.slow
def test_json_of_what_a_run_leaves(sample_dir: Path, tmp_path: Path) -> None:
    rows = settings(data__train_rows=32, data__eval_rows=8)
    done = run(tmp_path, *NULL, *rows, "--data-dir", sample_dir, "-o", "run", "--json", "-q")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["config"]["task"] == "sample"


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", "config", "show"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_completion_is_offered(bertkit: Run, tmp_path: Path) -> None:
    done = bertkit("--show-completion", "bash", SHELL="/bin/bash")
    if done.returncode and "shell" in done.stderr.lower():
        pytest.skip("the shell cannot be told from within these tests")
    assert done.returncode == 0, done.stderr
    assert "complete" in done.stdout


def test_words_and_values_are_completed(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("bertkit")
    if not script.exists():
        pytest.skip("the command is not installed as a script here")
    (tmp_path / "minimal").mkdir()
    (tmp_path / "mine.toml").write_text("")
    offered = {
        "tr": ["train"],
        "train -t cho": ["choice"],
        "train --backend cp": ["cpu"],
        "train -m mini": ["mini", "minimal/"],
        "train --recipe mi": ["minilmv2", "mine.toml", "minimal/"],
    }
    for typed, wanted in offered.items():
        asked = {"COMP_WORDS": f"bertkit {typed}", "COMP_CWORD": str(len(typed.split()))}
        env = os.environ | asked | {"_BERTKIT_COMPLETE": "complete_bash"}
        done = subprocess.run([script], env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout.split() == wanted, typed
