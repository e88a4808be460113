"""A model that has been trained: it keeps its own labels and its task, whoever asks it, and never answers nonsense."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.tasks.labels import CLASSIFIER
from bertkit.files.disk import read_arrays, write_arrays
from command import CPU, record, run, settings
from conftest import assert_one_line_error
from int8_here import needs_int8

ROWS = settings(data__train_rows=64, data__eval_rows=60, device__threads=1, model__hidden_dropout=0.0)
SCORE = ("-d", "fp32", *settings(data__eval_rows=60, device__threads=1), "--json")
HEADER = "#1 ID\t#2 ID\tQuality\t#1 String\t#2 String\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """A run of 4 updates."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(folder, *CPU, *ROWS, "--data-dir", sample_dir, "-b", "16", "-e", "1", "--lr", "1e-3", "-o", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


def reversed_copy(trained: Path, target: Path, names: dict[str, str]) -> Path:
    """The model with its outputs in the other order, as config.json says; no run, but a folder of anybody's."""
    target.mkdir()
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(trained / name, target)
    arrays, metadata = read_arrays(trained / "model.safetensors")
    turned = {name: array[::-1].copy() if name in CLASSIFIER else array for name, array in arrays.items()}
    write_arrays(target / "model.safetensors", turned, metadata)
    config = json.loads((trained / "config.json").read_text())
    config |= {"id2label": names, "label2id": {name: int(number) for number, name in names.items()}}
    (target / "config.json").write_text(json.dumps(config))
    return target


@needs_int8
def test_int8_finds_its_scales_once(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    """On training data, kept in the run's folder, used there without the data, and found anew for other weights."""
    shutil.copytree(trained, tmp_path / "run")
    score = ("evaluate", "run", "-d", "int8", *SCORE[2:])
    first = run(tmp_path, *score, "--data-dir", sample_dir)
    assert first.returncode == 0, first.stderr
    assert "finding scales on 256 training sequences" in first.stderr
    found = json.loads(first.stdout)
    assert found["as_trained"] == {"precision": "fp32", "metrics": record(trained)["metrics"]}
    kept = (tmp_path / "run" / "int8.safetensors").read_bytes()

    again = run(tmp_path, *score, "--data-dir", sample_dir)
    assert "finding scales" not in again.stderr
    assert json.loads(again.stdout) == found
    (tmp_path / "some.tsv").write_text("".join((sample_dir / "sample" / "dev.tsv").open().readlines()[:9]))
    ask = ("predict", "run", "--file", "some.tsv", "-d", "int8", "--data-dir", "nowhere", "--offline", "-o")
    alone = run(tmp_path, *ask, "alone")
    assert (alone.returncode, "no training data" in alone.stderr) == (0, False), alone.stderr

    arrays, metadata = read_arrays(tmp_path / "run" / "model.safetensors")
    write_arrays(tmp_path / "run" / "model.safetensors", {n: 2 * a for n, a in arrays.items()}, metadata)
    without = run(tmp_path, *ask, "without")
    assert without.returncode == 0
    assert "int8: no training data to find the scales of layers' inputs on" in without.stderr
    assert "int8.safetensors are of other weights; they are not used" in without.stderr
    assert (tmp_path / "run" / "int8.safetensors").read_bytes() == kept
    (tmp_path / "run" / "int8.safetensors").write_bytes(kept[:-3])
    assert "found anew" in run(tmp_path, *score, "--data-dir", sample_dir).stderr


@pytest.mark.slow
def test_a_model_speaks_its_own_labels(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    """With its outputs in another order: the same scores, answers and logits, and the same start of a new training."""
    other = reversed_copy(trained, tmp_path / "other", {"0": "1", "1": "0"})
    asked = ("-t", "sample", "--data-dir", sample_dir)
    done = run(tmp_path, "evaluate", other, *asked, "-s", "48", *SCORE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == record(trained)["metrics"]
    assert "labels: " in done.stderr
    assert "matched by name to sample's 0, 1" in done.stderr

    some = "".join((sample_dir / "sample" / "dev.tsv").read_text().splitlines(keepends=True)[:61])
    (tmp_path / "some.tsv").write_text(some)
    done = run(tmp_path, "predict", other, *asked, "-s", "48", "--file", "some.tsv", "-o", "out", "-d", "fp32",
               *settings(device__threads=1))  # fmt: skip
    assert done.returncode == 0, done.stderr
    for made, before in (("sample.tsv", "sample-dev.tsv"), ("sample.logits.json", "sample-dev.logits.json")):
        assert (tmp_path / "out" / made).read_text() == (trained / "predictions" / before).read_text()

    more = ("-m", other, *ROWS, "--data-dir", sample_dir, "-b", "16", "--lr", "1e-30", "--set", "train.steps=1")
    done = run(tmp_path, *CPU, *more, "-o", "on")
    assert done.returncode == 0, done.stderr
    assert "matched by name" in done.stderr
    assert record(tmp_path / "on")["metrics"] == record(trained)["metrics"]
    assert json.loads((tmp_path / "on" / "config.json").read_text())["id2label"] == {"0": "0", "1": "1"}
    weights = read_arrays(tmp_path / "on" / "model.safetensors")[0]
    for name in CLASSIFIER:
        assert np.abs(weights[name] - read_arrays(trained / "model.safetensors")[0][name]).max() < 1e-6


@pytest.mark.slow
def test_labels_that_do_not_fit(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    asked = ("-t", "sample", "--data-dir", sample_dir, "-s", "48", *SCORE)
    unnamed = reversed_copy(trained, tmp_path / "unnamed", {"0": "LABEL_0", "1": "LABEL_1"})
    done = run(tmp_path, "evaluate", unnamed, *asked)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("LABEL_0 is 0, LABEL_1 is 1") == 1
    found, own = json.loads(done.stdout)["metrics"], record(trained)["metrics"]
    assert found["accuracy"] == pytest.approx(1 - own["accuracy"])  # its order is not the task's, as nobody could know
    partly = reversed_copy(trained, tmp_path / "partly", {"0": "1", "1": "two"})
    assert_one_line_error(run(tmp_path, "evaluate", partly, *asked), "config.json", "fit in part only", "two")
    done = run(tmp_path, *CPU, "-m", partly, *ROWS, "--data-dir", sample_dir, "-o", "on")
    assert_one_line_error(done, "config.json", "fit in part only", "two")
    assert not (tmp_path / "on").exists()


@pytest.mark.slow
def test_a_run_knows_its_task(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    told = json.loads((trained / "task.json").read_text())
    assert (told["task"], told["seq_length"], told["casing"]) == ("sample", 48, "uncased")
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "recipe.toml").unlink()
    done = run(tmp_path, "evaluate", copy, "--data-dir", sample_dir, *SCORE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == record(trained)["metrics"]
    assert "warning" not in done.stderr
    done = run(tmp_path, "evaluate", copy, "--data-dir", sample_dir, "-s", "16", *SCORE)
    assert done.returncode == 0, done.stderr
    assert "data.seq_length is 16, but" in done.stderr
    (copy / "task.json").write_text((copy / "task.json").read_text().replace('"sample"', '"mrpc"', 1))
    assert_one_line_error(run(tmp_path, "evaluate", copy, "--dry-run"), "task.json", "checksum")


@pytest.mark.slow
def test_another_task_is_refused_unless_it_is_meant(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "MRPC"
    folder.mkdir(parents=True)
    rows = "".join(f"{n}\t{n}\t{n % 2}\tthe plot is good\tthe plot is bad\n" for n in range(4))
    for name in ("dev.tsv", "test.tsv"):
        (folder / name).write_text(HEADER + rows)
    asked = ("-t", "mrpc", "--data-dir", "data", "-d", "fp32", *settings(device__threads=1))
    for command in ("evaluate", "predict"):
        done = run(tmp_path, command, trained, *asked)
        assert_one_line_error(done, "was trained on sample, not on mrpc", "--force")
    done = run(tmp_path, "evaluate", trained, *asked, "--force", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["examples"] == 4
    assert "only because of --force" in done.stderr
    done = run(tmp_path, "ask", trained, "-t", "squad", "--question", "a", "--context", "b")
    assert_one_line_error(done, "was trained on sample, not on squad", "--force")


@pytest.mark.slow
def test_a_run_of_before_there_were_task_files(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "task.json").unlink()
    done = run(tmp_path, "evaluate", copy, *SCORE)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"] == record(trained)["metrics"]


@pytest.mark.slow
def test_logits_that_are_not_finite_are_no_answers(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    """Every weight is finite, but the head's are so large that its outputs are not."""
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    arrays, metadata = read_arrays(copy / "model.safetensors")
    large = np.where(arrays["classifier.weight"] < 0, -3e38, 3e38).astype(np.float32)
    write_arrays(copy / "model.safetensors", {**arrays, "classifier.weight": large}, metadata)
    done = run(tmp_path, "evaluate", copy, *SCORE)
    assert_one_line_error(done, "dev.tsv", "of 60 examples have logits that are not finite")
    some = "".join((sample_dir / "sample" / "test.tsv").read_text().splitlines(keepends=True)[:9])
    (tmp_path / "some.tsv").write_text(some)
    done = run(tmp_path, "predict", copy, "--file", "some.tsv", "-o", "out", "-d", "fp32")
    assert_one_line_error(done, "some.tsv", "of 8 examples have logits that are not finite")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_answers_never_take_a_models_name(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    """A folder with the name of a model on the hub would be taken for that model."""
    name, file = "acme/bert-sst2", sample_dir / "sample" / "test.tsv"
    asked = ("predict", name, "-t", "sample", "--file", file)
    assert_one_line_error(run(tmp_path, *asked), name, "is not a folder", "-o")
    for output in (name, f"{name}/out"):
        assert_one_line_error(run(tmp_path, *asked, "-o", output), "taken for the model", "-o")
    done = run(tmp_path, *CPU, "-m", name, "--data-dir", sample_dir, "-o", name)
    assert_one_line_error(done, "taken for the model", "-o")
    assert not (tmp_path / "acme").exists()
    (tmp_path / name / "predictions").mkdir(parents=True)
    for words in (("evaluate", name, "-t", "sample"), (*CPU, "-m", name, "--data-dir", sample_dir)):
        assert_one_line_error(run(tmp_path, *words), name, "nothing but predictions", "remove")
