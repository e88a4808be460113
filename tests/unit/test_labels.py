"""What a config.json says of a classifier's outputs, matched to a task's labels, and the head's rows put in order."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.tasks import TASKS
from bertkit.data.tasks.labels import CLASSIFIER, class_named, matched, namings, read_told, to_answer, to_learn, told
from bertkit.data.tasks.task import Task
from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.parameters import initial
from bertkit.model.weights import Fit, fit_weights

CONFIG = ModelConfig(8, 1, 2, 16, vocab_size=20, max_position_embeddings=16)
CLASSIFIERS = [task for task in TASKS.values() if task.labels]


def model(folder: Path, outputs: int, **keys: Any) -> tuple[Path, dict[str, np.ndarray]]:
    """A folder with a config.json of these keys, and weights whose head's row n holds n + 1."""
    (folder / "config.json").write_text(json.dumps(dataclasses.asdict(CONFIG) | keys))
    weights = dict(initial(CONFIG, Head("classification", outputs), 1))
    for name in CLASSIFIER:
        shape = weights[name].shape
        weights[name] = np.broadcast_to(np.arange(1, outputs + 1, dtype=np.float32), shape[::-1]).T.copy()
    return folder, weights


def fitted(weights: Mapping[str, np.ndarray], task: Task) -> Fit:
    return fit_weights(weights, CONFIG, task.head, 1, "here")


def rows(fit: Fit) -> list[list[float]]:
    """Of the head: which row of the file stands where."""
    assert (fit.weights["classifier.weight"][:, 0] == fit.weights["classifier.bias"]).all()
    return [float(value) for value in fit.weights["classifier.bias"]]  # type: ignore[misc]


def by_id(names: Sequence[object]) -> dict[str, object]:
    return {str(number): name for number, name in enumerate(names)}


def answered(folder: Path, weights: Mapping[str, np.ndarray], task: str) -> tuple[Fit, Any, Any]:
    return to_answer(fitted(weights, TASKS[task]), folder, "MODEL", TASKS[task])


# ---- names that fit ----

FITTING = {
    "as they are": ("rte", ["entailment", "not_entailment"], (0, 1)),
    "turned round": ("rte", ["not_entailment", "entailment"], (1, 0)),
    "capitals": ("rte", ["NOT_ENTAILMENT", "ENTAILMENT"], (1, 0)),
    "a hyphen": ("rte", ["not-entailment", "Entailment"], (1, 0)),
    "a space": ("qnli", ["Not Entailment", "entailment "], (1, 0)),
    "numbers": ("sst2", ["1", "0"], (1, 0)),
    "whole numbers": ("sst2", [1, 0], (1, 0)),
    "the dataset's": ("sst2", ["POSITIVE", "NEGATIVE"], (1, 0)),
    "the dataset's for pairs": ("mrpc", ["equivalent", "not_equivalent"], (1, 0)),
    "of three": ("mnli", ["entailment", "neutral", "contradiction"], (2, 0, 1)),
    "the diagnostic set's": ("ax", ["NEUTRAL", "contradiction", "Entailment"], (1, 2, 0)),
}


@pytest.mark.parametrize("case", FITTING)
def test_the_heads_rows_are_put_in_the_tasks_order(case: str, tmp_path: Path) -> None:
    task, names, order = FITTING[case]
    folder, weights = model(tmp_path, len(names), id2label=by_id(names))
    for fit, said, warned in (
        answered(folder, weights, task),
        to_learn(fitted(weights, TASKS[task]), folder, TASKS[task], CONFIG, 1),
    ):
        assert rows(fit) == [place + 1 for place in order]
        assert not warned
        assert len(said) == (order != tuple(range(len(names))))
        assert not said or f"matched by name to {task}'s {', '.join(TASKS[task].labels)}" in said[0]
        others = {name: array for name, array in fit.weights.items() if name not in CLASSIFIER}
        assert all(array is weights[name] or (array == weights[name]).all() for name, array in others.items())


@given(st.data())
def test_any_order_of_a_tasks_names_is_undone(data: st.DataObject) -> None:
    task = data.draw(st.sampled_from(CLASSIFIERS))
    naming = data.draw(st.sampled_from(namings(task)))
    order = data.draw(st.permutations(range(len(naming))))
    spell = data.draw(st.sampled_from([str, str.upper, lambda name: name.replace("_", "-"), lambda name: f" {name}"]))
    names = [spell(naming[place]) for place in order]
    found = matched(names, task, "there")
    assert found is not None
    assert [names[place] for place in found] == [spell(label) for label in naming]
    assert [class_named(name, task) for name in names] == list(order)


def test_label2id_is_read_where_id2label_has_no_names(tmp_path: Path) -> None:
    for keys in ({}, {"id2label": by_id(["LABEL_0", "LABEL_1"])}):
        folder, weights = model(tmp_path, 2, label2id={"entailment": 1, "not_entailment": 0}, **keys)
        assert rows(answered(folder, weights, "rte")[0]) == [2, 1]


def test_label2id_that_nobody_set_says_nothing(tmp_path: Path) -> None:
    names = by_id(["not_entailment", "entailment"])
    folder, weights = model(tmp_path, 2, id2label=names, label2id={"LABEL_0": 0, "LABEL_1": 1})
    assert rows(answered(folder, weights, "rte")[0]) == [2, 1]


# ---- names that do not fit ----


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1"], ["good", "bad"], ["0", "1"], ["class-a", "class-b"]])
def test_other_names_are_taken_in_the_tasks_order_and_that_is_said(names: list[str], tmp_path: Path) -> None:
    folder, weights = model(tmp_path, 2, id2label=by_id(names))
    fit, said, warned = answered(folder, weights, "rte")
    assert rows(fit) == [1, 2]
    assert not said
    assert len(warned) == 1
    assert f"{names[0]} is entailment, {names[1]} is not_entailment" in warned[0]


def test_no_names_at_all(tmp_path: Path) -> None:
    folder, weights = model(tmp_path, 2)
    fit, _, warned = answered(folder, weights, "rte")
    assert rows(fit) == [1, 2]
    assert warned == (
        f"labels: {folder}/config.json names none, so the outputs are taken in rte's order: entailment, not_entailment",
    )


REFUSED: dict[str, tuple[str, int, dict[str, Any], tuple[str, ...]]] = {
    "some names fit": ("rte", 2, {"id2label": by_id(["entailment", "neutral"])}, ("fit in part only", "neutral")),
    "of two namings": ("sst2", 2, {"id2label": by_id(["negative", "1"])}, ("fit in part only",)),
    "a name twice": ("rte", 2, {"id2label": by_id(["entailment", "Entailment"])}, ("the same",)),
    "a number is missing": ("rte", 2, {"id2label": {"0": "entailment", "2": "x"}}, ("lacks 1",)),
    "a number twice": ("rte", 2, {"id2label": {"0": "entailment", "00": "x", "1": "y"}}, ("0 twice",)),
    "numbers of another order": ("rte", 2, {"id2label": by_id(["LABEL_1", "LABEL_0"])}, ("another order",)),
    "bare numbers of another order": ("rte", 2, {"id2label": by_id(["1", "0"])}, ("another order",)),
    "a key that is no number": ("rte", 2, {"id2label": {"entailment": 0}}, ("a key of id2label", "'entailment'")),
    "a list": ("rte", 2, {"id2label": ["a", "b"]}, ("id2label is a list",)),
    "a name that is none": ("rte", 2, {"id2label": {"0": None, "1": "b"}}, ("calls 0 null",)),
    "a key of many digits": ("rte", 2, {"id2label": {"9" * 30: "a"}}, ("a key of id2label",)),
    "both say otherwise": (
        "rte", 2, {"id2label": by_id(["entailment", "not_entailment"]),
                   "label2id": {"entailment": 1, "not_entailment": 0}}, ("id2label and label2id differ",),
    ),
    "a class with two names": ("rte", 2, {"label2id": {"entailment": 0, "x": 0}}, ("calls 0 both",)),
    "a class that is no number": ("rte", 2, {"label2id": {"entailment": 0.5}}, ("label2id of 'entailment'",)),
    "num_labels": (
        "rte", 2, {"num_labels": 3, "id2label": by_id(["entailment", "x"])}, ("num_labels is 3", "2 labels"),
    ),
    "num_labels alone": ("rte", 2, {"num_labels": 3}, ("3 labels", "2 outputs")),
    "more names than outputs": ("rte", 2, {"id2label": by_id("abcde")}, ("5 labels", "2 outputs")),
    "num_labels that is none": ("rte", 2, {"num_labels": "2"}, ("num_labels",)),
    "problem_type that is none": ("rte", 2, {"problem_type": "ranking"}, ("problem_type is 'ranking'",)),
    "problem_type that is no text": ("rte", 2, {"problem_type": ["x"]}, ("problem_type is a list",)),
    "a score of two names": ("stsb", 1, {"id2label": by_id(["a", "b"])}, ("2 labels", "1 outputs")),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_contradicts_itself_is_refused_by_name(case: str, tmp_path: Path) -> None:
    task, outputs, keys, words = REFUSED[case]
    folder, weights = model(tmp_path, outputs, **keys)
    errors = []
    with pytest.raises(UserError) as caught:
        answered(folder, weights, task)
    errors.append(caught.value)
    with pytest.raises(UserError) as caught:
        to_learn(fitted(weights, TASKS[task]), folder, TASKS[task], CONFIG, 1)
    errors.append(caught.value)
    for error in errors:
        assert error.cause.startswith(f"{folder}/config.json: ")
        assert error.cure
        for word in words:
            assert word in error.cause


# ---- heads of another kind ----


def test_another_number_of_classes(tmp_path: Path) -> None:
    names = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]
    folder, weights = model(tmp_path, 5, id2label=by_id(names))
    with pytest.raises(UserError, match=r"MODEL has 5 classes \(1 star, 2 stars, .*5 stars\), sst2 has 2; train it"):
        answered(folder, weights, "sst2")
    fit, _, warned = to_learn(fitted(weights, TASKS["sst2"]), folder, TASKS["sst2"], CONFIG, 1)
    assert fit.reshaped == CLASSIFIER  # starts anew, which is said of every such head
    assert not warned


def test_a_score_is_no_class(tmp_path: Path) -> None:
    folder, weights = model(tmp_path, 1, num_labels=1, problem_type="regression")
    with pytest.raises(UserError, match="MODEL was trained for regression, not for single label classification"):
        answered(folder, weights, "sst2")
    assert answered(folder, weights, "stsb")[1:] == ((), ())
    folder, weights = model(tmp_path, 1, id2label={"0": "LABEL_0"})
    with pytest.raises(UserError, match="MODEL has one output, a score, sst2 has 2"):
        answered(folder, weights, "sst2")
    assert rows(answered(folder, weights, "stsb")[0]) == [1]
    folder, weights = model(tmp_path, 2)
    with pytest.raises(UserError, match="MODEL has a classifier with another number of outputs; stsb has one output"):
        answered(folder, weights, "stsb")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"problem_type": "multi_label_classification"}, "was trained for multi label classification"),
        ({"problem_type": "regression"}, "was trained for regression"),
        ({"architectures": ["BertForTokenClassification"]}, "labels each token"),
    ],
)
def test_a_head_that_does_something_else(keys: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder, weights = model(tmp_path, 2, **keys)
    with pytest.raises(UserError, match=f"MODEL .*{words}"):
        answered(folder, weights, "sst2")
    fit, _, warned = to_learn(fitted(weights, TASKS["sst2"]), folder, TASKS["sst2"], CONFIG, 7)
    assert words in warned[0]
    assert "the head starts anew" in warned[0]
    fresh = initial(CONFIG, TASKS["sst2"].head, 7)
    for name in CLASSIFIER:
        assert (fit.weights[name] == fresh[name]).all()
        assert name in fit.missing


def test_a_multiple_choice_is_no_score(tmp_path: Path) -> None:
    folder, weights = model(tmp_path, 1, architectures=["BertForMultipleChoice"])
    with pytest.raises(UserError, match="chooses between texts"):
        answered(folder, weights, "stsb")


def test_a_pre_trained_model_says_nothing_of_labels(tmp_path: Path) -> None:
    folder, weights = model(tmp_path, 2, id2label={"7": 1.5}, num_labels="many")  # not the head's: there is none
    bare = {name: array for name, array in weights.items() if name not in CLASSIFIER}
    fit, said, warned = to_learn(fitted(bare, TASKS["rte"]), folder, TASKS["rte"], CONFIG, 1)
    assert (fit.missing, said, warned) == (CLASSIFIER, (), ())
    with pytest.raises(UserError, match=r"no trained head for rte: it lacks classifier\.weight, classifier\.bias"):
        to_answer(fit, None, "tiny", TASKS["rte"])


# ---- what a run writes ----


@pytest.mark.parametrize("name", [task.name for task in CLASSIFIERS])
def test_what_a_run_writes_is_read_without_a_word(name: str, tmp_path: Path) -> None:
    task = TASKS[name]
    written = to_mapping(CONFIG, task.head, task.labels)
    folder, weights = model(tmp_path, task.head.outputs, **written)
    fit, said, warned = answered(folder, weights, name)
    assert (rows(fit), said, warned) == (list(range(1, task.head.outputs + 1)), (), ())
    assert read_told(folder).names == task.labels


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.sampled_from(["0", "1"]), inner, max_size=3)
), max_leaves=6), st.sampled_from(["id2label", "label2id", "num_labels", "problem_type", "architectures"]))  # fmt: skip
def test_whatever_stands_there_is_read_or_refused(value: Any, key: str) -> None:
    with contextlib.suppress(UserError):
        found = told({key: value}, "config.json")
        assert found.names is None or all(isinstance(name, str) for name in found.names)


# ---- several labels, and tags of tokens ----

SEVERAL = Task("multilabel", "", "", {}, Head("multilabel", 2), "micro_f1", TASKS["sst2"].format, ("loud", "rude"))
TAGGED = Task("ner", "", "", {}, Head("tokens", 3), "entity_f1", TASKS["sst2"].format, ("O", "B-P", "I-P"))


def head_fit(outputs: int) -> Fit:
    rows = np.arange(outputs, dtype=np.float32)
    return Fit({"classifier.weight": np.repeat(rows[:, None], 4, 1), "classifier.bias": rows}, (), (), ())


@pytest.mark.parametrize(
    ("task", "names", "more", "order"),
    [
        (SEVERAL, ("rude", "loud"), {"problem_type": "multi_label_classification"}, [1, 0]),
        (TAGGED, ("O", "I-P", "B-P"), {"architectures": ["BertForTokenClassification"]}, [0, 2, 1]),
    ],
    ids=["several labels", "tags"],
)
def test_rows_of_other_heads_are_put_into_the_tasks_order(
    tmp_path: Path, task: Task, names: tuple[str, ...], more: dict[str, Any], order: list[int]
) -> None:
    config = {"id2label": {str(at): name for at, name in enumerate(names)}} | more
    (tmp_path / "config.json").write_text(json.dumps(config))
    fit = head_fit(len(names))
    for found in (to_answer(fit, tmp_path, "m", task), to_learn(fit, tmp_path, task, CONFIG, 1)):
        assert found[0].weights["classifier.bias"].tolist() == order


def test_a_tagger_with_other_tags_starts_anew_and_says_so(tmp_path: Path) -> None:
    config = {"id2label": {"0": "O", "1": "B-L", "2": "I-L"}, "architectures": ["BertForTokenClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fit, _, warnings = to_learn(head_fit(3), tmp_path, TAGGED, CONFIG, 1)
    assert "its tags (O, B-L, I-L) are others than the task's" in warnings[0]
    assert not fit.weights["classifier.bias"].any()
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    with pytest.raises(UserError, match="does not label tokens"):
        to_answer(head_fit(3), tmp_path, "m", TAGGED)
