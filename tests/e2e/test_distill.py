"""`bertkit distill` as a user has it: stages, what is kept, kills, and teachers that cannot be."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

from bertkit.files.disk import read_arrays, write_arrays
from command import CPU, record, run, same_result, settings, start, start_ranks, updates, wait_for
from conftest import assert_one_line_error

ROWS = settings(
    data__train_rows=64, data__eval_rows=60, device__threads=1, model__hidden_dropout=0.0, model__attention_dropout=0.0
)
DISTILL = ("distill", "teacher", "-b", "16", "-e", "2", "--lr", "1e-3", "--state-lr", "1e-3", *ROWS)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """A folder with `teacher`, a run of a few updates, and `small`, distilled from one of its two layers."""
    folder = tmp_path_factory.mktemp("distill")
    train = (*CPU, *ROWS, "--data-dir", sample_dir, "-b", "16", "-e", "8", "--lr", "1e-3", "-o", "teacher")
    done = run(folder, *train)
    assert done.returncode == 0, done.stderr
    done = run(folder, *DISTILL, "--layers", "1", "-o", "small", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "told.txt").write_text(done.stderr)
    (folder / "told.json").write_text(done.stdout)
    return folder


def own_copy(taught: Path, tmp_path: Path, cache: bool = True) -> Path:
    """The teacher, and what the first distillation kept."""
    shutil.copytree(taught / "teacher", tmp_path / "teacher")
    if cache:
        shutil.copytree(taught / "cache", tmp_path / "cache")
    return tmp_path


def test_two_stages_and_what_the_record_says(taught: Path) -> None:
    states, last = record(taught / "small-relations"), record(taught / "small")
    assert list(states["metrics"]) == ["state_loss"]
    assert len(states["losses"]) == 4
    assert 0 < states["metrics"]["state_loss"] < 1
    facts = last["callbacks"]["distillation"]
    assert facts["teacher_metrics"] == record(taught / "teacher")["metrics"]
    assert (facts["rows"], facts["teacher_forward_passes"]) == (64, 64), "once a row, not once an epoch"
    assert facts["layers"] == {"teacher": 2, "student": 1}
    assert all(0.5 < sure <= 1 for sure in facts["teacher_confidence"].values())
    assert last["model"]["name"] == str(taught / "small-relations") or last["model"]["name"] == "small-relations"
    assert 0.5 < last["metrics"]["agreement"] <= 1
    assert last["units"]["teacher_kl"] == "nats"
    assert "teacher " in last["fairness"]["loss_scale"]
    config = json.loads((taught / "small" / "config.json").read_text())
    assert config["num_hidden_layers"] == 1
    told = (taught / "told.txt").read_text()
    assert "stage 1 of 2: relations" in told
    assert "teacher's probability of its own answer, on average: 0." in told
    assert "layers: 1 (from 0) of 2" in told
    assert "times as fast as the teacher did" in told
    assert json.loads((taught / "told.json").read_text())["metrics"] == last["metrics"]


def test_the_head_of_the_teacher_stays_through_the_first_stage(taught: Path) -> None:
    teacher, states = (read_arrays(taught / name / "model.safetensors")[0] for name in ("teacher", "small-relations"))
    for name in ("classifier.weight", "bert.pooler.dense.weight"):
        assert np.array_equal(states[name], teacher[name])
    top = "bert.encoder.layer.{}.output.dense.weight"
    assert np.array_equal(states[top.format(0)], teacher[top.format(1)])


def test_a_kept_teacher_is_not_asked_again_and_the_result_is_the_same(taught: Path, tmp_path: Path) -> None:
    folder = own_copy(taught, tmp_path)
    done = run(folder, *DISTILL, "--layers", "1", "-o", "small")
    assert done.returncode == 0, done.stderr
    assert "teacher: its states are kept from an earlier run" in done.stderr
    assert "teacher: its logits are kept from an earlier run" in done.stderr
    same_result(folder / "small", taught / "small")
    assert record(folder / "small")["callbacks"]["distillation"]["teacher_forward_passes"] == 0
    # other weights of the same name are another teacher
    arrays, metadata = read_arrays(folder / "teacher" / "model.safetensors")
    write_arrays(folder / "teacher" / "model.safetensors", {n: a * 1.01 for n, a in arrays.items()}, metadata)
    done = run(folder, *DISTILL, "--layers", "1", "--stages", "logits", "-o", "other")
    assert record(folder / "other")["callbacks"]["distillation"]["teacher_forward_passes"] == 64


def test_labels_alone_are_fine_tuning_and_the_teacher_is_asked_for_the_dev_set_only(
    taught: Path, tmp_path: Path, sample_dir: Path
) -> None:
    """What a distilled student is compared with."""
    folder = own_copy(taught, tmp_path, cache=False)
    words = ("-b", "16", "-e", "2", "--lr", "1e-3", *ROWS, *settings(model__layers=1))
    done = run(folder, *CPU, *words, "--data-dir", sample_dir, "-m", "teacher", "-o", "tuned")
    assert done.returncode == 0, done.stderr
    labels = ("--layers", "1", "--stages", "logits", "--hard", "1", *settings(distill__soft=0))
    done = run(folder, *DISTILL, *labels, "-o", "labels")
    assert done.returncode == 0, done.stderr
    assert "learned: labels alone" in done.stderr
    told = record(folder / "labels")
    assert told["losses"] == record(folder / "tuned")["losses"]
    facts = told["callbacks"]["distillation"]
    assert facts["teacher_forward_passes"] == 0
    assert facts["teacher_metrics"] == record(taught / "teacher")["metrics"]
    assert "teacher_confidence" not in facts
    assert told["metrics"]["teacher_kl"] > 0


@pytest.mark.slow
def test_kills_change_nothing(taught: Path, tmp_path: Path) -> None:
    """At any time of either stage, the asking of the teacher included."""
    folder = own_copy(taught, tmp_path, cache=False)
    words = (*DISTILL, "--layers", "1", *settings(checkpoint__every=2), "-o", "small")
    for _ in range(3):
        with start(folder, *words, "--resume") as process:
            seen = len(updates(folder / "small-relations")), len(updates(folder / "small"))
            moved = lambda seen=seen: (  # noqa: E731
                (len(updates(folder / "small-relations")), len(updates(folder / "small"))) > (seen[0], seen[1])
            )
            wait_for(moved, process)
            os.kill(process.pid, signal.SIGKILL)
    done = run(folder, *words, "--resume")
    assert done.returncode == 0, done.stderr
    same_result(folder / "small", taught / "small")
    again = run(folder, *words, "--resume")
    assert "stage 1 of 2, relations: done already" in again.stderr


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(taught: Path, tmp_path: Path) -> None:
    folder = own_copy(taught, tmp_path, cache=False)
    halves = [word if word != "16" else "8" for word in DISTILL]
    for done in start_ranks(folder, 2, [*halves, "--layers", "1", "-o", "small"]):
        assert done.returncode == 0, done.stderr
    one, two = record(taught / "small"), record(folder / "small")
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    states = [record(place / "small-relations")["losses"] for place in (taught, folder)]
    assert states[1] == pytest.approx(states[0], abs=1e-5)
    assert two["callbacks"]["distillation"]["teacher_forward_passes"] == 64


@pytest.mark.slow
def test_a_teacher_on_another_backend(taught: Path, tmp_path: Path) -> None:
    """Its logits are those of the student's backend, and kept under a key of their own."""
    pytest.importorskip("jax")
    folder = own_copy(taught, tmp_path)
    (before,) = (folder / "cache").rglob("teacher-*.safetensors")
    words = (*DISTILL, "--layers", "1", "--stages", "logits", "-d", "fp32")
    done = run(folder, *words, *settings(distill__teacher_backend="jax", train__steps=1), "-o", "there")
    assert done.returncode == 0, done.stderr
    assert "hidden size 128, on backend jax" in done.stderr
    (after,) = {*(folder / "cache").rglob("teacher-*.safetensors")} - {before}
    logits = [read_arrays(path)[0]["logits"] for path in (before, after)]
    assert logits[1] == pytest.approx(logits[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["tinybert", "last_layer"])
def test_a_smaller_student_from_a_random_start(taught: Path, tmp_path: Path, stage: str) -> None:
    """Its hidden states are projected; lines of text without labels are learned too."""
    folder = own_copy(taught, tmp_path)
    shutil.copytree(folder / "teacher", folder / "narrow")
    config = json.loads((folder / "narrow" / "config.json").read_text())
    config |= {"hidden_size": 32, "intermediate_size": 64}
    (folder / "narrow" / "config.json").write_text(json.dumps(config))
    os.unlink(folder / "narrow" / "model.safetensors")
    os.unlink(folder / "narrow" / "task.json")
    (folder / "some.txt").write_text("a fine plot\n\ndull and long\n")
    words = (*DISTILL, "-m", "narrow", *settings(model__start="random"), "--stages", f"{stage},logits")
    done = run(folder, *words, "--transfer", "some.txt", "-o", "small")
    assert done.returncode == 0, done.stderr
    assert "2 rows without labels, beside 64" in done.stderr
    assert "projected to 128" in done.stderr
    states = record(folder / f"small-{stage}")
    assert states["losses"][-1] < states["losses"][0]
    assert states["callbacks"]["distillation"]["rows"] == 66
    assert not [name for name in read_arrays(folder / "small" / "model.safetensors")[0] if "projection" in name]


def test_a_dev_file_counts_though_the_teacher_held_rows_out(taught: Path, tmp_path: Path) -> None:
    folder = own_copy(taught, tmp_path, cache=False)
    for name, count in (("rows", 40), ("dev", 12)):
        lines = [f"a fine plot {n},{'good' if n % 2 else 'bad'}" for n in range(count)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    null = ("--backend", "null", "-d", "fp32", "-s", "32", *settings(train__steps=1))
    done = run(folder, "train", *null, "-m", "teacher", "--train", "rows.csv", "-o", "own")
    assert done.returncode == 0, done.stderr
    words = ("distill", "own", "--layers", "1", "--stages", "logits", *null)
    for more, file, examples in (((), "rows.csv", 4), (("--dev", "dev.csv"), "dev.csv", 12)):
        done = run(folder, *words, *more, "-o", "small", "--overwrite")
        assert done.returncode == 0, done.stderr
        (scored,) = record(folder / "small")["data"]["evaluation"]
        assert (scored["file"], scored["examples"]) == (file, examples)


def test_teachers_that_cannot_be_are_one_line(taught: Path, tmp_path: Path) -> None:
    folder = own_copy(taught, tmp_path)
    base = ("distill", "teacher", *ROWS, "-o", "small")
    assert_one_line_error(run(folder, *base), "no student is named; give -m MODEL, or --layers 3")
    done = run(folder, "distill", "nowhere", "--layers", "1")
    assert_one_line_error(done, "there is no folder nowhere that states the task it was trained on; check the path")
    assert_one_line_error(run(folder, *base, "--layers", "9"), "9 of 2 layers cannot be kept")
    assert_one_line_error(run(folder, *base, "--layers", "0,5"), "there is no layer 5")
    assert_one_line_error(run(folder, *base, "--layers", "1", "-t", "mrpc"), "mrpc")
    headless = folder / "headless"
    shutil.copytree(folder / "teacher", headless)
    arrays, metadata = read_arrays(headless / "model.safetensors")
    kept = {name: array for name, array in arrays.items() if not name.startswith("classifier")}
    write_arrays(headless / "model.safetensors", kept, metadata)
    done = run(folder, "distill", "headless", "-m", "teacher", *ROWS, "-o", "small")
    assert_one_line_error(done, "has no trained head for sample: it lacks classifier")
    vocabulary = (headless / "vocab.txt").read_text().splitlines()
    (headless / "vocab.txt").write_text("\n".join([*vocabulary[:-1], "otherwise"]) + "\n")
    (headless / "tokenizer.json").unlink()
    done = run(folder, "distill", "headless", "-m", "teacher", *ROWS, "--stages", "relations", "-o", "small")
    assert_one_line_error(done, "has another vocabulary than the model that learns")
    done = run(folder, *base, "--layers", "1", *settings(distill__cache_gb=0.000001))
    assert_one_line_error(done, "over distill.cache_gb")
    assert not list(folder.glob("small*"))
    done = run(folder, *base, "--layers", "1", "--stages", "logits", *settings(distill__soft=0))
    assert_one_line_error(done, "distill.soft=0 leaves the labels' loss alone, whose weight, distill.hard, is 0")
    done = run(folder, *base, "--layers", "1", "--hard", "1", "--transfer", "teacher/vocab.txt", "--stages", "logits")
    assert_one_line_error(done, "distill.hard needs labels, and distill.transfer has none")
