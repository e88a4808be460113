"""`bertkit.data.tasks.scoring`: prediction files of every task of GLUE against files with labels."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.tasks import TASKS, Task
from bertkit.data.tasks.scoring import notes, score_file
from bertkit.data.tasks.tabular import TableFormat, answers, read_examples, write_answers
from bertkit.errors import UserError

LABELLED = [task for task in TASKS.values() if "dev" in task.splits and isinstance(task.format, TableFormat)]


def gold_file(task: Task, folder: Path, labels: list[str]) -> Path:
    """A dev set of `task` with these labels, in its own format."""
    columns = task.splits["dev"][0].columns
    path = folder / "dev.tsv"
    if columns.header:
        names = [str(name) for name in (columns.first, columns.second, columns.label) if name is not None]
        rows = ["\t".join([*("some text" for _ in names[1:]), label]) for label in labels]
        path.write_text("\n".join(["\t".join(names), *rows]) + "\n")
    else:
        path.write_text("".join(f"source\t{label}\t*\tsome text\n" for label in labels))
    return path


@pytest.mark.parametrize("task", LABELLED, ids=lambda task: task.name)
def test_a_file_of_predictions_scores_as_the_model_did(task: Task, tmp_path: Path) -> None:
    stream = np.random.default_rng(3)
    labels = [str(label) for label in stream.choice(task.labels or ("0.25", "1.0", "4.5"), 40)]
    logits = stream.normal(size=(40, max(1, len(task.labels)))).round(3)
    gold = gold_file(task, tmp_path, labels)
    write_answers(tmp_path / "said.tsv", answers(task, logits))
    table, columns = task.format, task.splits["dev"][0].columns
    assert isinstance(table, TableFormat)
    assert columns is not None
    known = read_examples(task, gold, columns).labels
    assert known is not None
    found = score_file(tmp_path / "said.tsv", task.name, gold)
    assert found.metrics == pytest.approx(table.score(logits, known))
    assert (found.task, found.examples, found.missing, found.unknown) == (task.name, 40, (), ())
    write_answers(tmp_path / "right.tsv", labels)
    assert score_file(tmp_path / "right.tsv", task.name.upper(), gold).metrics[task.primary] == pytest.approx(1.0)


def test_the_order_of_rows_and_further_columns_do_not_matter(tmp_path: Path) -> None:
    labels = ["entailment", "not_entailment", "entailment", "entailment"]
    gold = gold_file(TASKS["rte"], tmp_path, labels)
    rows = [f"{at}\tx\t{label}" for at, label in enumerate(labels)]
    random.Random(1).shuffle(rows)  # noqa: S311 - an order, not a secret
    said = tmp_path / "said.tsv"
    said.write_text("\r\n".join(["index\tnote\tprediction", *rows]))
    assert score_file(said, "rte", gold).metrics == {"accuracy": 1.0}


def test_class_numbers_are_understood_and_said_to_be(tmp_path: Path) -> None:
    gold = gold_file(TASKS["mnli"], tmp_path, ["neutral", "contradiction", "entailment", "neutral"])
    said = tmp_path / "said.tsv"
    write_answers(said, ["2", "0", "1", "1"])
    found = score_file(said, "mnli", gold)
    assert found.metrics == {"accuracy": 0.75}
    assert notes(found) == ["read as class numbers: 0 is contradiction, 1 is entailment, 2 is neutral"]
    write_answers(said, ["neutral", "0", "1", "1"])
    with pytest.raises(UserError, match=r"said\.tsv:3: '0' is no label; it must be one of contradiction, entailment"):
        score_file(said, "mnli", gold)
    write_answers(said, ["2", "0", "1", "3"])
    with pytest.raises(UserError, match=r"said\.tsv:5: '3' is no label; it must be one of 0, 1, 2"):
        score_file(said, "mnli", gold)


FOUR = "index\tprediction\n0\t1\n1\t0\n2\t1\n3\t1\n"
BAD = {
    "": ": is empty",
    "0\t1\n1\t0\n": ":1: has no column 'index'; its columns are 0, 1",
    "index\tlabel\n0\t1\n": ":1: has no column 'prediction'; its columns are index, label",
    FOUR + "4\t1\n": "has 5 predictions for the 4 examples",
    FOUR[:-4]: "the first that does not fit is index 3",
    FOUR.replace("3\t", "7\t"): "the first that does not fit is index 3",
    FOUR.replace("3\t", "2\t"): ":5: index 2 stands already in line 4",
    FOUR.replace("3\t", "-3\t"): ":5: '-3' is no index",
    FOUR.replace("3\t", "x\t"): ":5: 'x' is no index",
    FOUR.replace("3\t", "9" * 5000 + "\t"): ":5: '99",
    FOUR.replace("3\t1", "3\t1\t0"): ":5: has 3 columns, not 2",
    FOUR + "\n": ":6: has 1 columns, not 2",
    FOUR.replace("3\t1", "3\tyes"): ":5: 'yes' is no label; it must be one of 0, 1",
    FOUR.replace("3\t1", "3\t0.5"): ":5: '0.5' is no label",
    FOUR.replace("3\t1", "3\t"): ":5: '' is no label",
    "index\tprediction\n": "has 0 predictions for the 4 examples",
}


@pytest.mark.parametrize("text", BAD, ids=lambda text: BAD[text])
def test_bad_tables(text: str, tmp_path: Path) -> None:
    gold = gold_file(TASKS["mrpc"], tmp_path, ["1", "0", "1", "1"])
    said = tmp_path / "said.tsv"
    said.write_text(text)
    with pytest.raises(UserError) as caught:
        score_file(said, "mrpc", gold)
    assert caught.value.cause.startswith(str(said))
    assert caught.value.cure
    assert BAD[text] in str(caught.value)


@pytest.mark.parametrize("value", ["high", "", "nano"])
def test_a_score_must_be_a_number(value: str, tmp_path: Path) -> None:
    gold = gold_file(TASKS["stsb"], tmp_path, ["1", "2.5"])
    said = tmp_path / "said.tsv"
    write_answers(said, ["1.5", value])
    with pytest.raises(UserError, match=rf"said\.tsv:3: '{value}' is no score; it must be a number"):
        score_file(said, "stsb", gold)


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-Infinity"])
def test_scores_that_are_not_finite_are_counted(value: str, tmp_path: Path) -> None:
    gold = gold_file(TASKS["stsb"], tmp_path, ["1", "2.5", "3"])
    said = tmp_path / "said.tsv"
    write_answers(said, ["1.5", value, value])
    with pytest.raises(UserError, match=r"said\.tsv: 2 of 3 scores are not finite \(first: that of index 1\)"):
        score_file(said, "stsb", gold)


@pytest.mark.parametrize(("names", "note"), [(("equivalent", "Not-Equivalent"), ""), (("1", "0"), "")])
def test_labels_of_other_programs_are_known_by_name(names: tuple[str, str], note: str, tmp_path: Path) -> None:
    gold = gold_file(TASKS["mrpc"], tmp_path, ["1", "0", "1", "1"])
    said = tmp_path / "said.tsv"
    write_answers(said, [names[0], names[1], names[0], names[1]])
    found = score_file(said, "mrpc", gold)
    assert found.metrics["accuracy"] == 0.75
    assert found.note == note


def test_a_gold_file_without_labels(tmp_path: Path) -> None:
    gold = tmp_path / "test.tsv"
    gold.write_text("index\tsentence1\tsentence2\n0\ta\tb\n")
    said = tmp_path / "said.tsv"
    write_answers(said, ["entailment"])
    with pytest.raises(UserError, match=r"test\.tsv: holds no labels to compare with; give the dev set"):
        score_file(said, "rte", gold)
    with pytest.raises(UserError, match="task ax has no labelled set"):
        score_file(said, "ax", gold)


@pytest.mark.parametrize("task", ["CoLA", "SST-2", "MRPC", "STS-B", "RTE", "WNLI", "MNLI"])
def test_the_published_dev_sets_score_one_against_themselves(task: str, real_data: Path, tmp_path: Path) -> None:
    one = next(entry for entry in LABELLED if entry.folder == task)
    for split in one.splits["dev"]:
        gold = real_data / "glue" / task / split.file
        if not gold.exists():
            pytest.skip(f"no {gold}")
        labels = read_examples(one, gold, split.columns).labels
        assert labels is not None
        write_answers(tmp_path / "said.tsv", [one.labels[at] if one.labels else str(at) for at in labels])
        found = score_file(tmp_path / "said.tsv", one.name, gold)
        assert found.metrics == pytest.approx(dict.fromkeys(found.metrics, 1.0))
