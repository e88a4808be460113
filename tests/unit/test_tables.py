"""Reading tables: every fault of a file is named with its place, and a good file comes through unchanged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.tasks.glue import glue_table
from bertkit.data.tasks.metrics import accuracy, correlations
from bertkit.data.tasks.reading import own_file
from bertkit.data.tasks.tabular import Examples, read_examples, read_rows
from bertkit.data.tasks.task import Columns, Split, Task
from bertkit.errors import UserError

COLUMNS = Columns("text", None, "label")
PAIRS = Columns("one", "two", "score")
NUMBERED = Columns(3, None, 1, header=False, columns=4)
SPLITS = {"dev": (Split("d.tsv", COLUMNS),)}
SIDES = glue_table("sides", "", "Sides", ("left", "right"), SPLITS, accuracy, "accuracy", {})
SCORES = glue_table("scores", "", "Scores", (), {"dev": (Split("d.tsv", PAIRS),)}, correlations, "pearson", {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.tsv"


def read(file: Path, text: str | bytes, task: Task = SIDES, columns: Columns = COLUMNS, **how: object) -> Examples:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_examples(task, file, columns, **how)  # type: ignore[arg-type]


def fault(file: Path, text: str | bytes, task: Task = SIDES, columns: Columns = COLUMNS, **how: object) -> str:
    """The cause that reading gives, with the file's path taken out."""
    with pytest.raises(UserError) as caught:
        read(file, text, task, columns, **how)
    assert caught.value.cure
    assert caught.value.cause.startswith(str(file))
    return caught.value.cause.removeprefix(str(file))


# Good files


def test_columns_are_found_by_their_names(file: Path) -> None:
    found = read(file, "label\tnote\ttext\nright\tx\tone two\nleft\ty\tthree\n")
    assert found.first == ("one two", "three")
    assert found.second is None
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0]
    assert found.labels.dtype == np.int64
    assert found.skipped == 0


def test_pairs_and_scores(file: Path) -> None:
    found = read(file, "one\ttwo\tscore\na\tb\t4.25\nc\td\t0\n", SCORES, PAIRS)
    assert (found.first, found.second) == (("a", "c"), ("b", "d"))
    assert found.labels is not None
    assert found.labels.tolist() == [4.25, 0.0]
    assert found.labels.dtype == np.float32


def test_a_file_without_a_header(file: Path) -> None:
    found = read(file, "x\tleft\t\tfirst\ny\tright\t*\tsecond\n", SIDES, NUMBERED)
    assert found.first == ("first", "second")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False], ids=["ended", "cut"])
def test_marks_and_line_ends_do_not_matter(file: Path, mark: str, line_end: str, last: bool) -> None:
    text = mark + line_end.join(["text\tlabel", "a\tleft", "b\tright"]) + (line_end if last else "")
    found = read(file, text)
    assert found.first == ("a", "b")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "text",
    [
        '"quoted',
        'say "" it',
        "'",
        "a\u2028b",
        "a\u2029b",
        "a\x85b",
        "a\x0bb\x0cc\x1cd\x1ee",
        "a\rb",
        " spaced ",
        "",
        "naïve 中 😀",
    ],
)
def test_texts_come_through_unchanged(file: Path, text: str) -> None:
    found = read(file, f"text\tlabel\n{text}\tleft\nnext\tright\n")
    assert found.first == (text, "next")


def test_only_so_many_rows_from_the_beginning(file: Path) -> None:
    text = "text\tlabel\na\tleft\nb\tright\nc\tbad label\n"
    assert read(file, text, rows=2).first == ("a", "b")
    assert fault(file, text, rows=3).startswith(":4: 'bad label'")


def test_keep_chooses_rows(file: Path) -> None:
    text = "text\tlabel\na\tleft\nb\tright\nc\tleft\nd\tright\n"
    found = read(file, text, keep=lambda cells: cells[1] == "right")
    assert found.first == ("b", "d")
    assert read(file, text, keep=lambda cells: cells[1] == "right", rows=1).first == ("b",)


def test_labels_may_be_missing_where_they_are_not_asked_for(file: Path) -> None:
    found = read(file, "index\ttext\n0\ta\n", labelled=False)
    assert found.first == ("a",)
    assert found.labels is None
    with_labels = read(file, "index\ttext\tlabel\n0\ta\tright\n", labelled=False)
    assert with_labels.labels is not None
    assert with_labels.labels.tolist() == [1]


def test_rows_that_are_broken_in_the_published_file_are_counted(file: Path) -> None:
    text = "text\tlabel\nbroken\na\tleft\nbroken too\nb\tright\n"
    found = read(file, text, broken_rows=2)
    assert (found.first, found.skipped) == (("a", "b"), 2)
    assert fault(file, text + "and another\n", broken_rows=2).startswith(":6: has 1 columns, not 2")
    assert fault(file, "text\tlabel\na\tleft\tmore\n", broken_rows=2).startswith(":2: has 3 columns, not 2")


# Bad files


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tsv: cannot be read: No such file"):
        read_examples(SIDES, tmp_path / "none.tsv", COLUMNS)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder, not a file"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize("text", ["", "\n", "\r\n \n", "\ufeff", "\ufeff\n"])
def test_an_empty_file(file: Path, text: str) -> None:
    assert fault(file, text) == ": is empty"
    assert fault(file, text, SIDES, NUMBERED) == ": is empty"


def test_a_file_with_a_header_only(file: Path) -> None:
    assert fault(file, "text\tlabel\n") == ": holds no examples, only a header"


@pytest.mark.parametrize("row", ["b", "b\tright\tmore", "", "\tb\tright"])
def test_a_wrong_number_of_columns(file: Path, row: str) -> None:
    said = fault(file, f"text\tlabel\na\tleft\n{row}\nc\tleft\n")
    assert said == f":3: has {len(row.split(chr(9)))} columns, not 2"
    assert fault(file, "x\tleft\t\ta\ny\tleft\tb\n", SIDES, NUMBERED) == ":2: has 3 columns, not 4"


@pytest.mark.parametrize("label", ["up", "", "Left", " left", "0"])
def test_an_unknown_label(file: Path, label: str) -> None:
    text = f"text\tlabel\na\tleft\nb\t{label}\n"
    assert fault(file, text) == f":3: {label!r} is no label of sides"
    with pytest.raises(UserError, match="it must be one of left, right"):
        read(file, text)


@pytest.mark.parametrize("score", ["nan", "inf", "-inf", "", "high", "1,5"])
def test_a_bad_score(file: Path, score: str) -> None:
    text = f"one\ttwo\tscore\na\tb\t1.5\nc\td\t{score}\n"
    assert fault(file, text, SCORES, PAIRS) == f":3: {score!r} is no label of scores"
    with pytest.raises(UserError, match="it must be a number"):
        read(file, text, SCORES, PAIRS)


def test_a_line_that_is_not_utf8(file: Path) -> None:
    raw = b"text\tlabel\nfine\tleft\ncaf\xe9\tright\n"
    assert fault(file, raw) == ":3: not UTF-8 at byte 4 of the line"
    assert fault(file, "text\tlabel\na\tleft\n".encode("utf-16")).startswith(":1: not UTF-8 at byte 1")


def test_a_missing_column(file: Path) -> None:
    assert fault(file, "words\tlabel\na\tleft\n") == ":1: has no column 'text'; its columns are words, label"
    assert fault(file, "text\tgold\na\tleft\n") == ":1: has no column 'label'; its columns are text, gold"
    assert fault(file, "one\tscore\na\t1\n", SCORES, PAIRS) == ":1: has no column 'two'; its columns are one, score"


@pytest.mark.parametrize("score", ["1_0", "inf", "nan", "1e39", "٣", "0x10", "1e999", "", "--1"])
def test_scores_are_numbers_that_fit(score: str, file: Path) -> None:
    assert fault(file, f"one\ttwo\tscore\na\tb\t{score}\n", SCORES, PAIRS).endswith("is no label of scores")
    assert read(file, "one\ttwo\tscore\na\tb\t 2.5e0\nc\td\t.5\n", SCORES, PAIRS).labels is not None


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a named pipe, not a file"):
        list(read_rows(tmp_path / "pipe"))
    with (tmp_path / "sparse").open("wb") as made:
        made.truncate(1 << 40)
    with pytest.raises(UserError, match="bytes, at most"):
        list(read_rows(tmp_path / "sparse"))
    for name, said in (("pipe", "no regular file"), (".", "a folder"), ("none", "missing")):
        with pytest.raises(UserError, match=said):
            own_file(str(tmp_path / name))
    with pytest.raises(UserError, match="no such home folder"):
        own_file("~no-such-user-here/x")
