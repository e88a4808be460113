"""Tasks over users' tables: columns and kinds that are told by the file, rows that are held out, metrics."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import TableOptions
from bertkit.data.tasks.metrics import OWN_METRICS, worth
from bertkit.data.tasks.own.base import OwnData
from bertkit.data.tasks.own.columns import choose_columns
from bertkit.data.tasks.own.held_out import HeldOut, mask
from bertkit.data.tasks.own.looking import look
from bertkit.data.tasks.own.making import from_values, make_own_task, to_values
from bertkit.data.tasks.own.rows import RowFormat, probabilities, read_examples, said_of
from bertkit.data.tasks.task import Shape, Task
from bertkit.errors import UserError


def table(folder: Path, rows: list[dict[str, Any]], name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def made(path: Path, **said: Any) -> tuple[Task, str]:
    """(the task, what was said)."""
    told: list[str] = []
    return make_own_task(path, OwnData(**said), told.append), "\n".join(told)


def own(task: Task) -> RowFormat:
    assert isinstance(task.format, RowFormat)
    return task.format


@pytest.mark.parametrize(
    ("names", "text", "pair", "label"),
    [
        (("review", "stars"), "review", None, "stars"),
        (("label", "sentence1", "sentence2", "idx"), "sentence1", "sentence2", "label"),
        (("Text", "Category"), "Text", None, "Category"),
        (("id", "premise", "hypothesis", "label"), "premise", "hypothesis", "label"),
    ],
)
def test_columns_are_told_by_their_names(
    tmp_path: Path, names: tuple[str, ...], text: str, pair: str | None, label: str
) -> None:
    rows = [{name: f"{name} {number % 3}" for name in names} for number in range(30)]
    found = choose_columns(open_table(table(tmp_path, rows)), "", "", "").columns
    assert (found.text, found.pair, found.labels) == (text, pair, (label,))


def test_a_text_of_several_columns(tmp_path: Path) -> None:
    rows = [
        {"Title": "Late", "body": "No answer.", "stars": "bad"},
        {"Title": None, "body": "Fine {really}.", "stars": "good"},
        {"Title": "Odd", "body": "", "stars": "bad"},
        {"Title": "Old", "body": 7, "stars": "good"},
    ]
    path = table(tmp_path, rows)
    task, told = made(path, text="{title}: {body} {{1}}", label="stars")
    assert "text in column {Title}: {body} {{1}}" in told
    found = read_examples(task, own(task), path, "train")
    assert found.first == ("Late: No answer. {1}", ": Fine {really}. {1}", "Odd:  {1}", "Old: 7 {1}")
    again = from_values(to_values(own(task)), list(task.labels), task.primary, "here", "")
    assert own(again).columns.text == "{Title}: {body} {{1}}"


def test_a_column_that_looks_like_a_template_is_a_column(tmp_path: Path) -> None:
    path = table(tmp_path, [{"{a}": f"text {n}", "a": "x", "label": "yn"[n % 2]} for n in range(4)])
    task, _ = made(path, text="{a}", label="label")
    assert read_examples(task, own(task), path, "train").first[:2] == ("text 0", "text 1")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{titel} {body}", r"no column 'titel'.*title"),
        ("{title", "is no template"),
        ("{} {body}", "a column's name alone"),
        ("{body!r:>3}", "a column's name alone"),
        ("{body} {label}", "named for two things"),
        ("{title}{tags}", "holds a list"),
    ],
)
def test_templates_name_their_mistakes(tmp_path: Path, template: str, words: str) -> None:
    rows = [{"title": "t", "body": f"text {n}", "tags": [n], "label": "yn"[n % 2]} for n in range(4)]
    with pytest.raises(UserError, match=words):
        made(table(tmp_path, rows), text=template, label="label")


def test_a_row_is_without_text_where_all_columns_of_its_template_are(tmp_path: Path) -> None:
    rows = [{"a": "x", "b": "y", "label": "k"}, {"a": "", "b": None, "label": "l"}]
    path = table(tmp_path, rows)
    task, _ = made(path, text="{a} and {b}", label="label")
    with pytest.raises(UserError, match=r"2: column \{a\} and \{b\} holds no text"):
        read_examples(task, own(task), path, "train")


def test_the_best_checkpoint_by_an_error_is_the_smallest(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": f"t{n}", "score": n + 0.5} for n in range(9)])
    task, _ = made(path, label="score", metric="rmse")
    assert task.primary == "rmse"
    assert worth("rmse", 0.1) > worth("rmse", 0.2) > worth("rmse", float("nan"))
    assert worth("f1", 0.2) > worth("f1", 0.1) > worth("f1", float("nan"))


def test_columns_are_told_by_what_they_hold(tmp_path: Path) -> None:
    rows = [{"a": number, "b": f"some words of text, number {number}", "c": "xyz"[number % 3]} for number in range(60)]
    found = choose_columns(open_table(table(tmp_path, rows)), "", "", "")
    assert (found.columns.text, found.columns.labels) == ("b", ("c",))
    assert len(found.guesses) == 2


@pytest.mark.parametrize(
    ("labels", "said", "kind", "wanted"),
    [
        (["b", "a", "b"], {}, "classification", ("a", "b")),
        ([10, 9, 2], {}, "classification", ("2", "9", "10")),
        ([1.0, 2.0, 1.0], {}, "classification", ("1", "2")),
        ([True, False, True], {}, "classification", ("false", "true")),
        ([0.5, 1.25, 2.0], {}, "regression", ()),
        ([1, 2, 3], {"kind": "regression"}, "regression", ()),
        ([["x", "y"], [], ["z"]], {}, "multilabel", ("x", "y", "z")),
        (["x|y", "y", "z"], {"kind": "multilabel"}, "multilabel", ("x", "y", "z")),
        (["x y", "y", "z"], {"kind": "multilabel", "separator": " "}, "multilabel", ("x", "y", "z")),
    ],
)
def test_a_kind_is_told_by_the_labels(
    tmp_path: Path, labels: list[Any], said: dict[str, Any], kind: str, wanted: tuple[str, ...]
) -> None:
    path = table(tmp_path, [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)])
    task, told = made(path, **said)
    assert (task.head.kind, task.labels) == (kind, wanted)
    assert kind in told


def test_a_column_for_each_label_or_target(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": f"t{number}", "rude": number % 2, "loud": 1.0} for number in range(4)])
    task, _ = made(path, label="rude,loud")
    assert (task.head.kind, task.labels, task.head.outputs) == ("multilabel", ("rude", "loud"), 2)
    assert read_examples(task, own(task), path, "train").labels.tolist() == [[0, 1], [1, 1], [0, 1], [1, 1]]
    targets, _ = made(path, label="rude,loud", kind="regression")
    assert (targets.head.kind, targets.labels, targets.head.outputs) == ("regression", ("rude", "loud"), 2)


@pytest.mark.parametrize(
    ("rows", "said", "words"),
    [
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], {}, "one label only, 'x'"),
        ([{"text": f"t {n}", "label": f"l {n}"} for n in range(50)], {}, "nearly one for each"),
        ([{"text": f"t {n}", "label": f"l {n}"} for n in range(10_002)], {}, "over 10,000 labels"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": None}], {}, "row 2: column label holds no label"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "nan"}], {}, "holds no label"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": {"y": 1}}], {}, "the label in column label is"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {"kind": "regression"}, "which is no number"),
        ([{"text": "a", "label": ["x"]}, {"text": "b", "label": ["y"]}], {"kind": "classification"}, "-t multilabel"),
        ([{"text": ["a"], "label": "x"}, {"text": "b", "label": "y"}], {}, "holds a list or an object, not a text"),
        ([{"a": "b", "c": "d"}] * 3, {}, "which column holds the label?"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {"label": "lable"}, "did you mean label?"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "y"}], {"metric": "f2"}, "no metric 'f2'"),
    ],
)
def test_what_makes_no_task_is_refused(
    tmp_path: Path, rows: list[dict[str, Any]], said: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        made(table(tmp_path, rows), **said)
    assert words.replace("row 2", "a.jsonl:2") in str(caught.value)


def test_rows_without_a_text_are_refused_or_left_out(tmp_path: Path) -> None:
    path = table(tmp_path, [{"text": text, "label": label} for text, label in (("a", "x"), ("", "y"), ("b", "y"))])
    task, _ = made(path)
    with pytest.raises(UserError, match=r"a\.jsonl:2: column text holds no text; .*table\.empty=skip"):
        read_examples(task, own(task), path, "train")
    task, _ = made(path, skip_empty=True)
    found = read_examples(task, own(task), path, "train")
    assert (found.first, found.skipped) == (("a", "b"), 1)


def test_a_label_that_training_lacks_names_its_line_and_the_nearest(tmp_path: Path) -> None:
    task, _ = made(table(tmp_path, [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}]))
    dev = table(tmp_path, [{"text": "a", "label": "good"}, {"text": "b", "label": "goood"}], "dev.jsonl")
    with pytest.raises(UserError, match=r"dev\.jsonl:2: the label 'goood' does not occur in the training file; did"):
        read_examples(task, own(task), dev, "dev")


# ---- held-out rows ----


@given(
    labels=st.lists(st.sampled_from("abc"), min_size=40, max_size=300),
    share=st.sampled_from([0.1, 0.2, 0.5]),
    seed=st.integers(0, 5),
)
def test_of_each_label_the_same_share_is_held_out(labels: list[str], share: float, seed: int) -> None:
    found = mask(HeldOut(share, seed), labels, None, "here")
    assert abs(found.sum() - share * len(labels)) <= 3
    for label in set(labels):
        places = np.array([each == label for each in labels])
        assert abs(found[places].sum() - share * places.sum()) <= 1.5
        assert not found[places].all()  # training knows every label
    assert (found == mask(HeldOut(share, seed), labels, None, "here")).all()


@given(groups=st.lists(st.integers(0, 30), min_size=60, max_size=300), seed=st.integers(0, 5))
def test_a_group_is_on_one_side(groups: list[int], seed: int) -> None:
    assume(len(set(groups)) > 1)
    found = mask(HeldOut(0.3, seed, "customer"), [0] * len(groups), groups, "here")
    sides = {group: {bool(found[place]) for place, each in enumerate(groups) if each == group} for group in groups}
    assert all(len(side) == 1 for side in sides.values())
    assert 0 < found.sum() < len(groups)


def test_the_two_parts_are_the_file(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "ab"[number % 2], "who": number // 4} for number in range(100)]
    path = table(tmp_path, rows)
    for group in ("", "who"):
        task, _ = made(path, held_out=HeldOut(0.2, 1, group))
        train, dev = (read_examples(task, own(task), path, split) for split in ("train", "dev"))
        assert sorted(train.first + dev.first) == sorted(str(row["text"]) for row in rows)
        assert not set(train.first) & set(dev.first)
        assert len(dev.first) == 20
    with pytest.raises(UserError, match="too few to hold"):
        mask(HeldOut(0.1, 1), ["a", "b"], None, "here")


# ---- keeping, metrics, answers ----


def test_a_task_is_kept_and_taken_up_again(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(30)]
    task, _ = made(table(tmp_path, rows), held_out=HeldOut(0.2, 1), metric="mcc")
    values = json.loads(json.dumps(to_values(own(task))))
    again = from_values(values, list(task.labels), task.primary, "task.json", "copy it again")
    assert again == task
    for damaged in (None, {}, values | {"kind": "other"}, values | {"columns": 1}):
        with pytest.raises(UserError, match=r"task\.json: does not tell how its own data is read"):
            from_values(damaged, list(task.labels), task.primary, "task.json", "copy it again")


def test_metrics_are_those_of_scikit_learn() -> None:
    from sklearn import metrics as sk

    stream = np.random.default_rng(1)
    logits, labels = stream.normal(size=(200, 4)), stream.integers(0, 4, 200)
    found = OWN_METRICS["classification"](logits, labels)
    assert found["macro_f1"] == sk.f1_score(labels, logits.argmax(-1), average="macro")
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(labels, logits.argmax(-1)))
    several = stream.integers(0, 2, (200, 4)).astype(np.float32)
    found = OWN_METRICS["multilabel"](logits, several)
    assert found["micro_f1"] == sk.f1_score(several.astype(int), (logits >= 0).astype(int), average="micro")
    assert found["mean_average_precision"] == pytest.approx(sk.average_precision_score(several.astype(int), logits))
    targets = stream.normal(size=(200, 2)).astype(np.float32)
    found = OWN_METRICS["regression"](logits[:, :2], targets)
    assert found["rmse"] == pytest.approx(float(np.sqrt(sk.mean_squared_error(targets, logits[:, :2]))))
    assert found["mae"] == pytest.approx(float(sk.mean_absolute_error(targets, logits[:, :2])))


def test_a_label_that_never_occurs_leaves_metrics_finite() -> None:
    found = OWN_METRICS["multilabel"](np.zeros((3, 2)), np.zeros((3, 2), np.float32))
    assert all(np.isfinite(value) for value in found.values())


def test_answers_by_kind(tmp_path: Path) -> None:
    task, _ = made(table(tmp_path, [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]))
    plain = own(task)
    logits = np.array([[0.0, 2.0], [1.0, -1.0]])
    assert [one["label"] for one in said_of(task, plain, logits)] == ["y", "x"]
    several = replace(plain, kind="multilabel")
    assert said_of(task, several, logits)[0]["labels"] == ["y", "x"]
    assert said_of(task, replace(several, thresholds=(0.8, 0.8)), logits)[0]["labels"] == ["y"]
    warm = said_of(task, replace(plain, temperature=2.0), logits)[0]
    assert warm["probability"] == pytest.approx(1 / (1 + np.exp(-1)))
    shape = Shape(16)
    assert replace(plain, temperature=2.0).shaped_by(shape) == plain.shaped_by(shape)
    assert probabilities("classification", logits).sum(-1) == pytest.approx(1.0)
    assert probabilities("multilabel", np.array([[-1000.0, 1000.0]])).tolist() == [[0.0, 1.0]]


# ---- looking ----


def test_a_look_finds_what_would_spoil_a_training(tmp_path: Path) -> None:
    rows = [{"review": f"word {number} and more", "stars": "ab"[number % 2]} for number in range(40)]
    rows += [{"review": "Word 3  and more", "stars": "a"}, {"review": "", "stars": "a"}]
    path = table(tmp_path, rows)
    dev = table(tmp_path, [{"review": "word 1 and more"}, {"review": "another"}], "dev.jsonl")
    found = look(path, OwnData(label="stars"), dev)
    assert (found.rows, found.empty, found.duplicates, found.contradicting, found.overlap) == (42, 1, 1, 1, 1)
    assert found.labels == {"a": 21, "b": 20}
    assert found.unit == "words"
    assert found.seq_length == 16


def test_a_look_at_numbers(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "warm": number / 2, "loud": number} for number in range(9)]
    path = table(tmp_path, rows)
    assert look(path, OwnData(label="warm")).target == (0.0, 2.0, 4.0)
    several = look(path, OwnData(label="warm,loud", kind="regression"))
    assert (several.facts.labels, several.target, several.labels) == (("warm", "loud"), None, {})


def test_a_look_at_a_column_for_each_label(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "rude": ["no", "yes"][number % 2], "loud": 1.0} for number in range(4)]
    assert look(table(tmp_path, rows), OwnData(label="rude,loud")).labels == {"rude": 2, "loud": 4}
    with pytest.raises(UserError, match="not for tags of tokens"):
        look(table(tmp_path, rows), OwnData(kind="ner"))


def test_rows_without_one_of_several_labels_are_left_out_where_that_is_asked(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "rude": number % 2, "loud": None if number == 3 else 1} for number in range(6)]
    path = table(tmp_path, rows)
    with pytest.raises(UserError, match="column loud holds no label"):
        made(path, label="rude,loud")
    task, _ = made(path, label="rude,loud", skip_empty=True)
    assert read_examples(task, own(task), path, "train").skipped == 1


def test_settings_that_a_file_has_no_use_for_are_told(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}", "label": "ab"[number % 2]} for number in range(4)]
    _, told = made(table(tmp_path, rows), separator="|", options=TableOptions(delimiter=";", header=False))
    assert "table.delimiter and table.header are for CSV, so not used: " in told
    assert "table.separator is not used" in told


@pytest.mark.parametrize("grouped", [False, True])
def test_each_row_is_in_one_fold(grouped: bool) -> None:
    labels, groups = [n % 3 for n in range(90)], [n // 3 for n in range(90)] if grouped else None
    found = np.stack(
        [mask(HeldOut(0.1, 1, "g" if grouped else "", f"{k}/5"), labels, groups, "here") for k in range(5)]
    )
    assert (found.sum(0) == 1).all()
    for fold in found:
        assert np.bincount(np.array(labels)[fold], minlength=3).tolist() == [6, 6, 6]
        if groups:
            assert not {groups[n] for n in np.flatnonzero(fold)} & {groups[n] for n in np.flatnonzero(~fold)}


def test_too_many_folds() -> None:
    with pytest.raises(UserError, match="here: cannot be cut into 5 folds"):
        mask(HeldOut(0.1, 1, "", "0/5"), ["x"] * 3, None, "here")
