"""Whatever a user can get wrong is answered by one line with cause and cure, and leaves nothing half-written."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from command import NULL, run, settings
from conftest import assert_one_line_error

Spoil = Callable[[Path], object]
TSV = "sentence\tlabel\nthe plot is good .\t1\n"


def sample(data: Path) -> Path:
    return data / "sample" / "train.tsv"


# name: (what is done to the data folder, words of the line)
FILES: dict[str, tuple[Spoil, tuple[str, ...]]] = {
    "no data folder": (shutil.rmtree, ("data folder", "does not exist", "--data-dir")),
    "no task folder": (lambda data: shutil.rmtree(data / "sample"), ("holds no folder sample", "bertkit data get")),
    "no train.tsv": (lambda data: sample(data).unlink(), ("train.tsv", "data get sample")),
    "empty": (lambda data: sample(data).write_text(""), ("train.tsv: is empty", "fetch it again")),
    "header only": (lambda data: sample(data).write_text("sentence\tlabel\n"), ("train.tsv: holds no examples",)),
    "other columns": (lambda data: sample(data).write_text("text\tlabel\nx\t1\n"), ("train.tsv:1:", "'sentence'")),
    "a column too many": (
        lambda data: sample(data).write_text(TSV + "the film was dull .\t0\textra\n"),
        ("train.tsv:3: has 3 columns, not 2", "mend"),
    ),
    "a blank line": (lambda data: sample(data).write_text(TSV + "\n" + TSV), ("train.tsv:3: has 1 columns",)),
    "unknown label": (
        lambda data: sample(data).write_text(TSV + "the film was dull .\tbad\n"),
        ("train.tsv:3: 'bad' is no label of sample", "one of 0, 1"),
    ),
    "not UTF-8": (
        lambda data: sample(data).write_bytes(TSV.encode() + b"caf\xe9\t1\n"),
        ("train.tsv:3: not UTF-8 at byte 4", "save the file as UTF-8"),
    ),
    "no vocabulary": (lambda data: (data / "sample" / "vocab.txt").unlink(), ("no vocabulary", "model.vocab")),
    "a spoilt vocabulary": (
        lambda data: (data / "sample" / "vocab.txt").write_text("[PAD]\nword\n"),
        ("vocab.txt: lacks [UNK]", "give the vocab.txt"),
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_spoilt_files(name: str, sample_dir: Path, tmp_path: Path) -> None:
    spoil, words = FILES[name]
    shutil.copytree(sample_dir, tmp_path / "data")
    spoil(tmp_path / "data")
    assert_one_line_error(run(tmp_path, *NULL, "-o", "run"), *words)
    assert not (tmp_path / "run").exists()
    assert not list(tmp_path.rglob("*.part"))


# name: (the command line after the sample task's, words of the line)
OPTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "unknown task": (("-t", "smaple"), ("there is no task 'smaple'", "sample?")),
    "unknown backend": (("--backend", "cpuu"), ("there is no backend 'cpuu'", "cpu")),
    "unknown setting": (
        ("--set", "optimizer.learnin_rate=1"),
        ("--set: there is no setting 'optimizer.learnin_rate'", "optimizer.learning_rate"),
    ),
    "not key=value": (("--set", "seed"), ("'seed' is not key=value", "write it as")),
    "unknown device setting": (("--set", "device.step_second=1"), ("device.step_second", "step_seconds?")),
    "wrong type": (("--set", "train.batch_size=many"), ("--set: train.batch_size = 'many'", "batch size")),
    "wrong type of an option": (("-b", "many"), ("'--batch-size'", "valid integer", "-h")),
    "negative": (("-b", "-3"), ("train.batch_size = -3", "greater than or equal to 1")),
    "unknown choice": (("-d", "fp8"), ("precision = 'fp8'", "'bf16'")),
    "unknown option": (("--bacth-size", "8"), ("--bacth-size", "--batch-size")),
    "unknown recipe": (("--recipe", "glu"), ("there is no recipe 'glu'", "glue?")),
    "missing config": (("--config", "nowhere.toml"), ("nowhere.toml: cannot be read", "recipes copy")),
    "missing model": (("-m", "./nowhere"), ("the model folder ./nowhere does not exist", "tiny")),
    "misspelt size": (("-m", "tniy"), ("there is no folder and no size 'tniy'", "tiny")),
    "too long": (("-s", "600"), ("sequence length 600", "512 positions", "use -s 512")),
    "fp16 on cpu": (("--backend", "cpu", "-d", "fp16"), ("backend cpu has no fp16", "it has fp32, bf16")),
    "tf32 on cpu": (("--backend", "cpu", "-d", "tf32"), ("backend cpu has no tf32", "choose with -d")),
    "no task": (("-t", ""), ("no task was named", "-t mrpc")),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_options(name: str, sample_dir: Path, tmp_path: Path) -> None:
    arguments, words = OPTIONS[name]
    assert_one_line_error(run(tmp_path, *NULL, "--data-dir", sample_dir, "-o", "run", *arguments), *words)
    assert not (tmp_path / "run").exists()


def test_no_task(tmp_path: Path) -> None:
    assert_one_line_error(run(tmp_path, "train", "-m", "tiny"), "no task was named", "name one with -t")
    assert not list(tmp_path.iterdir())


def test_a_config_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nbatch_size = = 3\n")
    done = run(tmp_path, *NULL, "--config", "mine.toml")
    assert_one_line_error(done, "mine.toml: is not TOML", "line 2", "recipes copy")
    (tmp_path / "mine.toml").write_text("[train]\nbatch_sise = 3\n")
    done = run(tmp_path, *NULL, "--config", "mine.toml")
    assert_one_line_error(done, "mine.toml: there is no setting 'train.batch_sise'", "train.batch_size")


def test_an_output_that_is_a_file_stays_what_it_is(sample_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for output in ("taken", "taken/run"):
        done = run(tmp_path, *NULL, *settings(data__train_rows=8), "--data-dir", sample_dir, "-o", output)
        assert_one_line_error(done, "taken", "choose another folder with -o")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_foreign_checkpoint_is_named(sample_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-00000005.json").write_text('{"step": 5}')
    (folder / "step-00000005.safetensors").write_bytes(b"something else")
    rows = settings(data__train_rows=8, data__eval_rows=8)
    done = run(tmp_path, *NULL, *rows, "--data-dir", sample_dir, "-o", "run", "--resume")
    assert_one_line_error(done, "all 1 checkpoints are damaged", "--overwrite")
    assert "step-00000005.json: has no seal: it is cut off, or of an earlier bertkit" in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000005.json", "step-00000005.safetensors"]


def test_half_an_environment_is_refused(sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    done = run(tmp_path, *NULL, "--data-dir", sample_dir, "-o", "run")
    assert_one_line_error(done, "torchrun gives RANK but not WORLD_SIZE", "unset")
    assert not (tmp_path / "run").exists()


def test_casing_that_does_not_fit_is_a_warning(sample_dir: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_dir, tmp_path / "data")
    with (tmp_path / "data" / "sample" / "vocab.txt").open("a") as file:
        file.write("".join(f"London{number}\n" for number in range(100)))
    done = run(tmp_path, *NULL, "--set", "model.casing=uncased", "--dry-run")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert len(said) == 1
    assert "is a cased vocabulary but words are lower-cased; --set model.casing=cased mends it" in said[0]
    assert "warning" not in run(tmp_path, *NULL, "--dry-run").stderr
