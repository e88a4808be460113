"""A table of one's own, through the command: looked at, trained on, scored, asked; its faults are one line each."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Run, assert_one_line_error, command_env
from own_files import write_reviews

TINY = ("-m", "tiny", "--backend", "cpu", "-d", "fp32", "-s", "32", "-b", "16")


def start(sample_dir: Path) -> tuple[str, ...]:
    return ("--set", "model.start=random", "--set", f"model.vocab={sample_dir / 'sample' / 'vocab.txt'}")


def asked(folder: Path, said: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bertkit", "predict", *words],
        cwd=folder, env=command_env(folder), input=said, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_from_a_file_to_an_answer(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "reviews.csv", "-e", "2", "-o", "runs/stars")
    assert done.returncode == 0, done.stderr
    for words in ("comma-delimited, with a header", "text in column review, label in stars", "(bad, good)"):
        assert words in done.stderr
    assert "evaluation: 10% of the training file held out, stratified by label, split seed 1" in done.stderr
    record = json.loads((tmp_path / "runs" / "stars" / "record.json").read_text())
    assert record["data"]["train"]["sequences"] == 216
    assert [part["examples"] for part in record["data"]["evaluation"]] == [24]
    scored = json.loads(bertkit("evaluate", "runs/stars", "--json").stdout)
    assert scored["metrics"] == pytest.approx(record["metrics"])
    lines = asked(tmp_path, 'a fine film\n{"review": "a dull film"}\n', "runs/stars", "-", "-q", "--json").stdout
    found = [json.loads(line) for line in lines.splitlines()]
    assert [set(one) for one in found] == [{"text", "label", "probability"}] * 2


def test_a_table_on_standard_input(tmp_path: Path, sample_dir: Path) -> None:
    """It is kept, so that the run can be resumed: the same rows have the same file."""
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    said = (tmp_path / "reviews.csv").read_text(encoding="utf-8")

    def train(said: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bertkit", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=command_env(tmp_path), input=said, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip

    words = ("train", "-m", "tiny", "--backend", "null", *start(sample_dir), "--train", "-", "--dry-run", "-o", "run")
    first, again = train(said, *words), train(said, *words)
    assert first.returncode == again.returncode == 0, first.stderr
    kept = [line for line in first.stderr.splitlines() if "standard input is kept as" in line]
    assert kept == [line for line in again.stderr.splitlines() if "standard input is kept as" in line] != []
    assert Path(kept[0].rpartition(" ")[2]).read_text(encoding="utf-8") == said
    assert_one_line_error(train("", *words), "standard input is empty", "name a file")
    looked = train(said, "data", "look", "-", "--json")
    assert json.loads(looked.stdout)["rows"] == 240
    assert_one_line_error(
        train(said, "launch", "-n", "2", "--", "train", "-m", "tiny", "--train", "-"), "by several processes"
    )


@pytest.mark.slow
def test_answers_to_a_table(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "reviews.csv", "-e", "1", "-o", "runs/stars")
    assert done.returncode == 0, done.stderr
    rows = list(csv.reader(bertkit("predict", "runs/stars", "reviews.csv", "-q", "--csv").stdout.splitlines()))
    assert rows[0] == ["text", "label", "probability"]
    top = asked(tmp_path, "a fine film\n", "runs/stars", "-", "-q", "--top-k", "2").stdout.rstrip("\n").split("\t")
    assert (top[0], set(top[1].split("|"))) == ("a fine film", {"bad", "good"})
    made = bertkit("predict", "runs/stars", "reviews.csv", "-q", "-o", "out")
    assert "240 predictions accuracy" in made.stdout
    assert len((tmp_path / "out" / "classification.csv").read_text().splitlines()) == 241


@pytest.mark.slow
def test_the_same_rows_in_any_format_give_the_same_losses(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    """CSV with quotes and line ends, TSV, JSON lines, Parquet, a saved folder and a program's rows."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    write_reviews(tmp_path / "reviews.csv", sample_dir)
    with (tmp_path / "reviews.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "rows.parquet")
    with (tmp_path / "rows.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    saved = tmp_path / "saved"
    saved.mkdir()
    with pa.OSFile(str(saved / "data-0.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    (saved / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-0.arrow"}]}))
    losses, features = [], set()
    for name in ("reviews.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "saved"):
        words = ("--train", name, "--set", "log.every=1", "-e", "1", "-o", f"runs/{name}")
        done = bertkit("train", *TINY, *start(sample_dir), *words)
        assert done.returncode == 0, f"{name}\n{done.stderr}"
        record = json.loads((tmp_path / "runs" / name / "record.json").read_text())
        losses.append(record["losses"])
        features.add(record["data"]["train"]["features_sha256"])
    assert len(features) == 1
    assert losses == [losses[0]] * 5


@pytest.mark.slow
def test_numbers_and_pairs(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    rows = [{"sentence1": f"w {n}", "sentence2": f"w {n % 7}", "score": n / 7} for n in range(70)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "pairs.jsonl", "-e", "1", "-o", "run")
    assert done.returncode == 0, done.stderr
    assert "text in column sentence1 and sentence2, label in score: regression" in done.stderr
    assert set(json.loads((tmp_path / "run" / "record.json").read_text())["metrics"]) == {
        "pearson", "spearman", "mae", "rmse",
    }  # fmt: skip
    found = asked(tmp_path, "w 1\tw 1\n", "run", "-", "-q", "--json")
    assert set(json.loads(found.stdout)) == {"text", "text_pair", "value"}, found.stderr
    wrong = asked(tmp_path, "one text\n", "run", "-", "-q")
    assert_one_line_error(wrong, "example 0 has one text, but regression is of pairs of texts")


@pytest.mark.slow
def test_a_run_ends_early_where_nothing_gets_better(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    """With a learning rate of 0 no evaluation is better than the first; Hugging Face's names for the columns."""
    write_reviews(tmp_path / "reviews.csv", sample_dir, 100)
    words = ("--train_file", "reviews.csv", "--text_column_name", "review", "--label_column_name", "stars")
    more = ("--lr", "0", "-e", "9", "--set", "evaluation.patience=2", "-o", "run")
    done = bertkit("train", *TINY, *start(sample_dir), *words, *more)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert len(record["evaluations"]) == 3
    assert "accuracy is no better after 2 evaluations" in record["method"]["rules"]["ended early"]


@pytest.mark.slow
def test_several_labels(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    """As lists, as cells that are cut, and as a column each: one task, the same losses."""
    lines = (sample_dir / "sample" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:201]
    rows = []
    for line in lines:
        text, label = line.split("\t")
        rows.append({"text": text, "labels": [["dull", "fine"][int(label)]] + (["long"] if len(text) > 50 else [])})
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with (tmp_path / "cells.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "labels"], *([row["text"], "|".join(row["labels"])] for row in rows)])
    names = ["dull", "fine", "long"]
    with (tmp_path / "columns.csv").open("w", newline="") as file:
        flags = ([row["text"], *(int(name in row["labels"]) for name in names)] for row in rows)
        csv.writer(file).writerows([["text", *names], *flags])
    words = {"lists.jsonl": (), "cells.csv": ("-t", "multilabel"), "columns.csv": ("--label", ",".join(names))}
    losses = []
    for name, more in words.items():
        done = bertkit("train", *TINY, *start(sample_dir), "--train", name, *more, "-e", "2", "-o", f"runs/{name}",
                       "--set", "table.split_seed=3")  # fmt: skip
        assert done.returncode == 0, f"{name}\n{done.stderr}"
        record = json.loads((tmp_path / "runs" / name / "record.json").read_text())
        losses.append(record["losses"])
        assert set(record["metrics"]) == {"micro_f1", "macro_f1", "all_labels_right", "mean_average_precision"}
    assert losses == [losses[0]] * 3
    config = json.loads((tmp_path / "runs" / "lists.jsonl" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    found = asked(tmp_path, "a fine film\n", "runs/lists.jsonl", "-", "-q", "--json", "--threshold", "0.0")
    assert sorted(json.loads(found.stdout)["labels"]) == names, found.stderr


@pytest.mark.slow
def test_choices(bertkit: Run, tmp_path: Path) -> None:
    """Learned by two processes, scored again, answered for a table, for standard input, and in int8."""
    rows = [[f"w {n % 9}", "so", *(["w good", "w bad"] if n % 2 else ["w bad", "w good"]), n % 2] for n in range(120)]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "begin", "ending0", "ending1", "label"], *rows])
    bertkit("data", "get", "sample")
    words = ("-t", "choice", "--train", "rows.csv", "--text-pair", "begin", "-e", "1", "-o", "run")
    begun = ("--set", "model.start=random", "--set", "model.vocab=data/sample/vocab.txt")
    done = bertkit("launch", "-n", "2", "--", "train", *TINY, *begun, *words)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert set(record["metrics"]) == set(record["majority_class"]) == {"accuracy"}
    scored = json.loads(bertkit("evaluate", "run", "--json").stdout)
    assert scored["metrics"] == pytest.approx(record["metrics"])
    lines = bertkit("predict", "run", "rows.csv", "-q", "-d", "int8").stdout.splitlines()
    assert (len(lines), len(lines[0].split("\t"))) == (120, 4)
    said = json.dumps({"text": "w 1", "choices": ["so w good", "so w bad"]})
    found = json.loads(asked(tmp_path, said + "\n", "run", "-", "-q", "--json").stdout)
    assert set(found) == {"text", "choice", "label", "probability"}
    wrong = asked(tmp_path, "w\tone\n", "run", "-", "-q")
    assert_one_line_error(wrong, "example 0 has 1 choices, but the model chooses of 2")


@pytest.mark.slow
def test_what_is_fitted_on_the_dev_set_is_used(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    """A temperature for classes, thresholds for several labels: in task.json, in answers, and said."""
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    words = ("--set", "evaluation.calibrate=true", "-e", "2", "-o", "run")
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "reviews.csv", *words)
    assert done.returncode == 0, done.stderr
    assert "95% intervals" in done.stderr
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["parts"][0]
    fitted = json.loads((tmp_path / "run" / "task.json").read_text())["own"]
    assert fitted["temperature"] == scores["temperature"] != 1.0
    assert "report.html" in bertkit("report", "run", "--texts").stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Confusions" in page
    assert_one_line_error(bertkit("report", "run"), "report.html is already there")
    assert_one_line_error(bertkit("report", "nowhere"), "nowhere")
    logits = json.loads((tmp_path / "run" / "predictions" / "classification-dev.logits.json").read_text())[0]
    said = asked(tmp_path, "a fine film\n", "run", "-", "-q", "--json")
    assert 0.5 <= json.loads(said.stdout)["probability"] <= 1
    told = asked(tmp_path, "a fine film\n", "run", "-").stderr
    assert "probabilities: at temperature" in told
    assert len(logits) == len(scores["classes"]) == 2
    rows = [{"text": f"w {n}", "labels": [["a"], ["a", "b"], ["b"]][n % 3]} for n in range(90)]
    (tmp_path / "several.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ("--set", "evaluation.calibrate=true", "-e", "1", "-o", "several")
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "several.jsonl", *words)
    assert done.returncode == 0, done.stderr
    scored = json.loads(bertkit("evaluate", "several", "--json").stdout)["metrics"]
    scores = json.loads((tmp_path / "several" / "scores.json").read_text())["parts"][0]
    assert scores["at_thresholds"]["tuned_micro_f1"] == pytest.approx(scored["tuned_micro_f1"])
    wrong = bertkit("train", "-m", "tiny", "-t", "sample", "--set", "evaluation.calibrate=true", "--dry-run")
    assert_one_line_error(wrong, "evaluation.calibrate is for own data with classes, not for sample")


@pytest.mark.slow
def test_folds(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    words = ("--train", "reviews.csv", "-e", "1", "--folds", "3", "-o", "runs/cv")
    done = bertkit("train", *TINY, *start(sample_dir), *words, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made == json.loads((tmp_path / "runs" / "cv" / "folds.json").read_text())
    assert len(made["metrics"]["accuracy"]["folds"]) == 3
    for number in range(3):
        record = json.loads((tmp_path / "runs" / "cv" / f"fold-{number}" / "record.json").read_text())
        assert f"fold {number}/3 of the training file held out" in record["data"]["evaluation"][0]["name"]
        assert record["data"]["evaluation"][0]["examples"] == 80
    assert_one_line_error(
        bertkit("train", "-m", "tiny", "-t", "mrpc", "--folds", "3"), "--folds is for data of your own"
    )


@pytest.mark.slow
def test_weights_and_frozen_layers(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    words = ("--set", "loss.class_weights=balanced", "--set", "train.freeze=1", "--set", "optimizer.layer_decay=0.9")
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "reviews.csv", "-e", "1", *words, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert "loss: class weights bad " in done.stderr
    assert "frozen: 21 of 41 tensors" in done.stderr
    fairness = json.loads((tmp_path / "run" / "record.json").read_text())["fairness"]
    assert "21 tensors frozen" in fairness["optimizer"]
    assert "class_weights (" in fairness["loss_scale"]
    wrong = bertkit("train", *TINY, *start(sample_dir), "--train", "reviews.csv", "--set", "loss.class_weights=fine=2")
    assert_one_line_error(wrong, "loss.class_weights: 'fine=2' names no label with a weight")


@pytest.mark.slow
def test_a_look_proposes_a_command_that_runs(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    found = json.loads(
        bertkit("data", "look", "reviews.csv", "--json", "--vocab", sample_dir / "sample" / "vocab.txt").stdout
    )
    assert (found["rows"], found["unit"], found["facts"]["kind"]) == (240, "tokens", "classification")
    assert found["command"].startswith("bertkit train -m base --train reviews.csv -s ")
    shown = bertkit("data", "look", "reviews.csv", "--write", "stars.toml").stdout
    assert 'label = "stars"' in (tmp_path / "stars.toml").read_text()
    told = bertkit(
        "train", "-m", "tiny", *start(sample_dir), "--config", "stars.toml", "--train", "reviews.csv", "--dry-run"
    )
    assert told.returncode == 0, told.stderr
    assert "the text is taken" not in told.stderr
    assert_one_line_error(
        bertkit("data", "look", "reviews.csv", "--write", "stars.toml"), "stars.toml is already there"
    )
    assert "train on it: bertkit train -m base --train reviews.csv" in shown
    words = found["command"].split()[4:]
    done = bertkit("train", "-m", "tiny", *start(sample_dir), *words, "--dry-run")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow_but("words0", "words1", "words7")
@pytest.mark.parametrize(
    ("content", "words", "said"),
    [
        ("review,stars\na,x\nb,y\nc\n", ("--train", "a.csv"), ("a.csv:4: has 1 cells, not 2", "quotes")),
        (
            "review,stars\na,x\nb,y\n",
            ("--train", "a.csv", "--label", "star"),
            ("no column 'star'", "did you mean stars?"),
        ),
        ("review,stars\na,x\nb,x\n", ("--train", "a.csv"), ("one label only, 'x'",)),
        ("review,stars\na,x\n,y\n", ("--train", "a.csv", "--dev", "a.csv"), ("a.csv:3: column review holds no text",)),
        ("review,stars\na,x\nb,nan\n", ("--train", "a.csv"), ("a.csv:3: column stars holds no label",)),
        ("review,stars\na,x\nb,y\n", ("-t", "regression", "--train", "a.csv"), ("holds 'x', which is no number",)),
        ("review,stars\na,x\nb,y\n", ("--train", "b.csv"), ("b.csv", "No such file")),
        ("review,stars\na,x\nb,y\n", ("-t", "mrpc", "--set", "evaluation.metric=mcc"), ("evaluation.metric is for",)),
        (
            "review,stars\na,x\nb,y\n",
            ("--train", "a.csv", "--dev", "a.csv", "--set", "table.group=stars"),
            ("a.csv:2: stars 'x' is in the training file too", "keep each group in one"),
        ),
        ("review,stars\na,x\nb,y\n", ("-t", "multilabel"), ("is of data of your own", "--train FILE")),
        ("review,stars\na,x\nb,y\n", ("-t", "mrpc", "--train", "a.csv", "--label", "stars"), ("table.label is for",)),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    bertkit: Run, tmp_path: Path, sample_dir: Path, content: str, words: tuple[str, ...], said: tuple[str, ...]
) -> None:
    (tmp_path / "a.csv").write_text(content)
    done = bertkit("train", *TINY, *start(sample_dir), *words, "-o", "run", "-q")
    assert_one_line_error(done, *said)
    assert not (tmp_path / "run" / "record.json").exists()


@pytest.mark.slow
def test_a_label_that_training_lacks(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    (tmp_path / "a.csv").write_text("review,stars\na,x\nb,y\n")
    (tmp_path / "dev.csv").write_text("review,stars\na,x\nb,z\n")
    done = bertkit("train", *TINY, *start(sample_dir), "--train", "a.csv", "--dev", "dev.csv", "-o", "run", "-q")
    assert_one_line_error(done, "dev.csv:3: the label 'z' does not occur in the training file")
