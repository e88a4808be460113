"""A run's task.json: written, sealed, read back, and held against what later commands ask for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bertkit.data.tasks import TASKS, find_task
from bertkit.data.tasks.sample import vocabulary
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary, without_words
from bertkit.recipes.recipe import Recipe, to_flat
from bertkit.records.files import seal
from bertkit.training.run_folder import write_recipe
from bertkit.training.run_task import NAME, check_task, differing, read_task, run_settings, write_task

WORDS = Vocabulary(Path("vocab.txt"), tuple(vocabulary()), lower_case=True)


def recipe(task: str, **data: Any) -> Recipe:
    made = Recipe(task=task)
    return dataclasses.replace(made, data=dataclasses.replace(made.data, **data))


def written(folder: Path, task: str = "mrpc", words: Vocabulary = WORDS, **data: Any) -> dict[str, Any]:
    """A run's task.json and recipe.toml."""
    asked = recipe(task, **data)
    write_recipe(folder, to_flat(asked))
    return write_task(folder, find_task(task), asked, words, {"bertkit": "1"})


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_read_back(task: str, tmp_path: Path) -> None:
    made = written(tmp_path, task, seq_length=96)
    found = read_task(tmp_path)
    assert found is not None
    assert (found.task, found.version, found.seq_length, found.casing) == (task, TASKS[task].version, 96, "uncased")
    settings = run_settings(str(tmp_path))
    assert (settings["task"], settings["data.seq_length"], settings["model.casing"]) == (task, 96, "uncased")
    assert made["labels"] == list(TASKS[task].labels)
    assert made["metric"] == TASKS[task].primary
    if task == "mrpc":
        assert made["files"]["dev"][0]["columns"]["second"] == "#2 String"
        assert made["versions"] == {"bertkit": "1"}


def test_a_run_without_words_has_no_casing(tmp_path: Path) -> None:
    written(tmp_path, "pretrain", without_words(200, tmp_path))
    assert "model.casing" not in {key for key, value in run_settings(str(tmp_path)).items() if value != "auto"}


def test_an_older_run_speaks_through_its_recipe(tmp_path: Path) -> None:
    written(tmp_path, seq_length=64)
    (tmp_path / NAME).unlink()
    assert read_task(tmp_path) is None
    settings = run_settings(str(tmp_path))
    assert (settings["task"], settings["data.seq_length"], settings["model.casing"]) == ("mrpc", 64, "auto")
    assert run_settings(str(tmp_path / "none")) == {}


def test_a_run_whose_recipe_is_lost_still_knows_its_task(tmp_path: Path) -> None:
    written(tmp_path, "squad", doc_stride=32)
    (tmp_path / "recipe.toml").unlink()
    settings = run_settings(str(tmp_path))
    assert (settings["task"], settings["data.doc_stride"]) == ("squad", 32)


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('task = "mrpc"', 'task = "rte"', "task"),
        ("seq_length = 128", "seq_length = 64", "data.seq_length"),
        ('casing = "auto"', 'casing = "cased"', "model.casing"),
    ],
)
def test_files_of_a_run_that_contradict_each_other(old: str, new: str, key: str, tmp_path: Path) -> None:
    written(tmp_path, seq_length=128)
    text = (tmp_path / "recipe.toml").read_text()
    assert old in text
    (tmp_path / "recipe.toml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=rf"recipe\.toml: {key} is .*, but task\.json beside it has"):
        run_settings(str(tmp_path))


def test_another_spelling_of_the_task_is_the_same(tmp_path: Path) -> None:
    written(tmp_path, "sst2")
    text = (tmp_path / "recipe.toml").read_text()
    (tmp_path / "recipe.toml").write_text(text.replace('task = "sst2"', 'task = "SST-2"'))
    assert run_settings(str(tmp_path))["task"] == "sst2"


def test_no_flipped_bit_of_a_value_goes_unseen(tmp_path: Path) -> None:
    """Every bit of the file: an error, or a change that is none (a blank that is another blank)."""
    written(tmp_path)
    whole = (tmp_path / NAME).read_bytes()
    before, value = read_task(tmp_path), json.loads(whole)
    seen = 0
    for place in range(0, len(whole) * 8, 7):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        (tmp_path / NAME).write_bytes(damaged)
        try:
            assert read_task(tmp_path) == before
            assert json.loads(bytes(damaged)) == value
        except UserError as error:
            seen += 1
            assert NAME in error.cause  # noqa: PT017 - both ends are right
    assert seen > len(whole) * 8 / 7 * 0.5


def resealed(folder: Path, **changed: Any) -> None:
    made = json.loads((folder / NAME).read_text()) | changed
    (folder / NAME).write_text(json.dumps(made | {"sha256": seal(made)}))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"schema": 2}, "newer bertkit"),
        ({"schema": "1"}, "schema"),
        ({"task": "poetry"}, "'poetry' is not known"),
        ({"task": ["mrpc"]}, "is not known"),
        ({"casing": None}, "casing"),
        ({"seq_length": 0}, "seq_length"),
        ({"seq_length": 12.5}, "seq_length"),
        ({"task_version": None}, "task_version"),
    ],
)
def test_a_sealed_file_of_other_values(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    written(tmp_path)
    resealed(tmp_path, **changed)
    with pytest.raises(UserError, match=words):
        read_task(tmp_path)


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"task": "ner", "labels": ["B", "I"]}'])
def test_a_file_of_another_program_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    assert read_task(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}', '{"sha256": "0", "task": "mrpc"}', "[" * 20_000])
def test_no_task_file_at_all(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(UserError, match=r"task\.json"):
        read_task(tmp_path)


@pytest.mark.parametrize(
    ("trained", "asked", "may"),
    [
        ("mrpc", "mrpc", True), ("mnli", "ax", True), ("squad2", "squad", True), ("pretrain", "mrpc", True),
        ("squad", "squad2", False), ("mrpc", "rte", False), ("ax", "mnli", False), ("mrpc", "squad", False),
    ],
)  # fmt: skip
def test_which_tasks_a_run_may_answer(trained: str, asked: str, may: bool, tmp_path: Path) -> None:
    written(tmp_path, trained)
    told = read_task(tmp_path)
    if may:
        assert check_task(told, TASKS[asked], "RUN", force=False) == ()
        return
    with pytest.raises(UserError, match=f"RUN was trained on {trained}, not on {asked}; .*--force"):
        check_task(told, TASKS[asked], "RUN", force=False)
    (warned,) = check_task(told, TASKS[asked], "RUN", force=True)
    assert "--force" in warned


def test_what_differs_from_the_training_is_named(tmp_path: Path) -> None:
    written(tmp_path, seq_length=128)
    told, mrpc = read_task(tmp_path), TASKS["mrpc"]
    assert differing(told, mrpc, recipe("mrpc", seq_length=128), WORDS, "RUN") == []
    assert differing(None, mrpc, recipe("mrpc", seq_length=64), WORDS, "RUN") == []
    cased, newer = dataclasses.replace(WORDS, lower_case=False), dataclasses.replace(mrpc, version=9)
    found = differing(told, newer, recipe("mrpc", seq_length=64, doc_stride=7), cased, "RUN")
    assert found == [
        "data.seq_length is 64, but RUN was trained with 128",
        "the casing is cased, but RUN was trained with uncased",
        f"version of task mrpc is 9, but RUN was trained with {mrpc.version}",
    ]
    written(tmp_path, "squad", doc_stride=32)
    found = differing(read_task(tmp_path), TASKS["squad"], recipe("squad", doc_stride=64), WORDS, "RUN")
    assert found == ["data.doc_stride is 64, but RUN was trained with 32"]
