"""Tasks: the table of GLUE, finding a task's folder, MRPC's raw files, and the published files themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.tasks import TASKS, find_task
from bertkit.data.tasks.glue import GLUE
from bertkit.data.tasks.reading import read_part, read_split
from bertkit.data.tasks.tabular import Examples, TableFormat, answers
from bertkit.data.tasks.task import Shape, SplitName, split_files, task_folder
from bertkit.errors import UserError
from bertkit.model.tokenizer_files import read_vocabulary

ENTAILMENT, NUMBERS = ("entailment", "not_entailment"), ("0", "1")
MNLI = ("contradiction", "entailment", "neutral")


def examples_of(name: str, folder: Path, split: SplitName, part: int = 0, rows: int = 0) -> Examples:
    task = find_task(name)
    table, one = task.format, task.splits[split][part]
    assert isinstance(table, TableFormat)
    return table.examples_of(task, table.find(task, folder, split, one), split, one, rows)


# The table


def test_labels_and_heads_of_glue() -> None:
    assert {task.name: task.labels for task in GLUE} == {
        "cola": NUMBERS, "sst2": NUMBERS, "mrpc": NUMBERS, "stsb": (), "qqp": NUMBERS, "mnli": MNLI,
        "qnli": ENTAILMENT, "rte": ENTAILMENT, "wnli": NUMBERS, "ax": MNLI,
    }  # fmt: skip
    for task in GLUE:
        wanted = ("regression", 1) if task.name == "stsb" else ("classification", len(task.labels))
        assert (task.head.kind, task.head.outputs) == wanted


def test_metrics_of_glue() -> None:
    primary = {task.name: task.primary for task in GLUE}
    assert primary["cola"] == "mcc"
    assert primary["stsb"] == "pearson"
    assert primary["mrpc"] == primary["qqp"] == "f1"
    for task in TASKS.values():
        if not isinstance(task.format, TableFormat):
            continue
        outputs = max(1, len(task.labels))
        labels = np.array([0, 1, 0]) if task.labels else np.array([0.0, 2.5, 5.0])
        metrics = task.format.score(np.eye(3, outputs), labels)
        assert task.primary in metrics
        assert all(isinstance(value, float) for value in metrics.values())


def test_splits_of_glue() -> None:
    for task in GLUE:
        if task.name != "ax":
            assert set(task.splits) == {"train", "dev", "test"}
    assert [split.file for split in split_files(find_task("rte"), "dev")] == ["dev.tsv"]
    parts = {split.part: split.file for split in split_files(find_task("mnli"), "dev")}
    assert parts == {"": "dev_matched.tsv", "mm": "dev_mismatched.tsv"}
    mnli = find_task("mnli").format
    assert isinstance(mnli, TableFormat)
    assert mnli.submission == {"": "MNLI-m.tsv", "mm": "MNLI-mm.tsv"}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_ax_is_a_test_set_only(split: SplitName) -> None:
    task = find_task("ax")
    assert [one.file for one in split_files(task, "test")] == ["diagnostic.tsv"]
    with pytest.raises(UserError) as caught:
        split_files(task, split)
    assert str(caught.value) == f"task ax has no {split} set; train mnli and predict ax with its model"


def test_tasks_are_found_by_their_names() -> None:
    assert find_task("MRPC") is find_task("mrpc")
    assert find_task("SST-2").name == "sst2"
    assert find_task("STS-B").name == "stsb"
    assert find_task("sample").vocab
    with pytest.raises(UserError, match="there is no task 'mrcp'; did you mean mrpc"):
        find_task("mrcp")


def test_answers_of_a_submission() -> None:
    logits = np.array([[3.0, 1.0, 2.0], [0.0, 0.1, 0.0], [-3.0, -2.0, -1.0]])
    assert answers(find_task("ax"), logits) == ["contradiction", "entailment", "neutral"]
    assert answers(find_task("rte"), logits[:2, :2]) == ["entailment", "not_entailment"]
    assert answers(find_task("mrpc"), logits[:2, :2]) == ["0", "1"]
    assert answers(find_task("stsb"), np.array([[3.14159], [-0.5], [5.0]])) == ["3.142", "-0.500", "5.000"]


# Folders


@pytest.mark.parametrize("place", [".", "MRPC", "mrpc", "Mrpc", "glue/MRPC", "glue/mrpc"])
def test_where_a_task_is_found(tmp_path: Path, place: str) -> None:
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dev.tsv").write_text("")
    assert task_folder(find_task("mrpc"), tmp_path) == folder


@pytest.mark.parametrize("place", ["SST-2", "sst-2", "sst2", "SST2"])
def test_a_folder_may_have_the_tasks_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "RTE").mkdir()
    (tmp_path / place).mkdir()
    assert task_folder(find_task("sst2"), tmp_path) == tmp_path / place


def test_the_data_folder_itself_may_hold_the_raw_files(tmp_path: Path) -> None:
    (tmp_path / "msr_paraphrase_train.txt").write_text("")
    assert task_folder(find_task("mrpc"), tmp_path) == tmp_path


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the data folder .*none does not exist; .*bertkit data get mrpc"):
        task_folder(find_task("mrpc"), tmp_path / "none")
    (tmp_path / "glue" / "RTE").mkdir(parents=True)
    with pytest.raises(UserError, match="holds no folder MRPC with mrpc's files; `bertkit data get mrpc`"):
        task_folder(find_task("mrpc"), tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"RTE/dev\.tsv is missing; `bertkit data get rte`"):
        examples_of("rte", tmp_path / "RTE", "dev")


# Reading


def test_both_parts_of_mnli_are_read(tmp_path: Path, sample_dir: Path) -> None:
    folder = tmp_path / "MNLI"
    folder.mkdir()
    for part, labels in (("", "neutral entailment"), ("mis", "contradiction neutral neutral")):
        rows = [f"the plot is good\tthe film is bad\t{label}" for label in labels.split()]
        (folder / f"dev_{part}matched.tsv").write_text("\n".join(["sentence1\tsentence2\tgold_label", *rows]))
    vocabulary = read_vocabulary(sample_dir / "sample" / "vocab.txt")
    matched, mismatched = read_split(find_task("mnli"), tmp_path, "dev", vocabulary, Shape(32))
    assert (matched.name, mismatched.name) == ("", "mm")
    assert matched.features.labels["labels"].tolist() == [2, 1]
    assert mismatched.features.labels["labels"].tolist() == [0, 2, 2]
    assert matched.file.name == "dev_matched.tsv"
    assert matched.features.lengths.tolist() == [11, 11]
    assert matched.sha256 != mismatched.sha256


def test_a_test_file_has_no_labels(tmp_path: Path, sample_dir: Path) -> None:
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tthe plot is good\n")
    assert examples_of("cola", tmp_path, "test").labels is None
    vocabulary = read_vocabulary(sample_dir / "sample" / "vocab.txt")
    task = find_task("cola")
    part = read_part(task, tmp_path / "test.tsv", "test", task.splits["test"][0], vocabulary, Shape(16))
    assert len(part.features) == part.examples == 1
    assert part.features.labels == {}


RAW_HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"


def test_raw_mrpc_is_split_by_its_ids(tmp_path: Path) -> None:
    rows = ["1\t10\t20\ta\tb", "0\t11\t21\tc\td", "1\t21\t11\te\tf"]
    (tmp_path / "msr_paraphrase_train.txt").write_text("\r\n".join([RAW_HEADER, *rows, ""]))
    (tmp_path / "msr_paraphrase_test.txt").write_text("\n".join([RAW_HEADER, "1\t1\t2\tx\ty"]))
    with pytest.raises(UserError, match=r"dev_ids\.tsv is missing, .*bertkit data get mrpc"):
        examples_of("mrpc", tmp_path, "dev")
    (tmp_path / "dev_ids.tsv").write_text("11\t21\n")
    dev, train = examples_of("mrpc", tmp_path, "dev"), examples_of("mrpc", tmp_path, "train")
    assert (dev.first, dev.second) == (("c",), ("d",))
    assert (train.first, train.second) == (("a", "e"), ("b", "f"))
    assert examples_of("mrpc", tmp_path, "train", rows=1).first == ("a",)
    assert examples_of("mrpc", tmp_path, "test").second == ("y",)


# Real data


@pytest.mark.parametrize("split", ["train", "dev"])
def test_raw_mrpc_equals_glues_own_files(real_data: Path, tmp_path: Path, split: SplitName) -> None:
    for name in ("msr_paraphrase_train.txt", "dev_ids.tsv"):
        shutil.copy(real_data / "glue" / "MRPC" / name, tmp_path)
    raw, own = examples_of("mrpc", tmp_path, split), examples_of("mrpc", real_data / "glue" / "MRPC", split)
    assert raw.first == own.first
    assert raw.second == own.second
    assert np.array_equal(np.asarray(raw.labels), np.asarray(own.labels))


@pytest.mark.parametrize(
    ("name", "split", "rows", "positive"),  # positive: rows of class 1
    [
        ("cola", "train", 8551, 6023), ("cola", "dev", 1043, 721),
        ("sst2", "train", 67349, 37569), ("sst2", "dev", 872, 444),
        ("mrpc", "train", 3668, 2474), ("mrpc", "dev", 408, 279),
        ("rte", "train", 2490, 1241), ("rte", "dev", 277, 131),
        ("stsb", "train", 5749, None), ("stsb", "dev", 1500, None),
        ("wnli", "train", 635, 312), ("wnli", "dev", 71, 31),
    ],
)  # fmt: skip
def test_published_files(real_data: Path, name: str, split: SplitName, rows: int, positive: int | None) -> None:
    found = examples_of(name, task_folder(find_task(name), real_data), split)
    assert found.labels is not None
    assert len(found.first) == len(found.labels) == rows
    assert found.skipped == 0
    if found.second is not None:
        assert len(found.second) == rows
    if positive is None:
        assert found.labels.min() >= 0
        assert found.labels.max() <= 5
    else:
        assert int((found.labels == 1).sum()) == positive


@pytest.mark.parametrize(("part", "rows"), [(0, 121), (1, 162)])
def test_mnlis_two_dev_files(real_data: Path, part: int, rows: int) -> None:
    found = examples_of("mnli", real_data / "glue" / "MNLI", "dev", part)
    assert len(found.first) == rows
    assert set(np.asarray(found.labels).tolist()) == {0, 1, 2}
