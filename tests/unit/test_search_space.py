"""The table [search]: what it may name, what is tried of a setting, and what is refused before training."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from bertkit.comparison.search.space import Dimension, check_space, parse_space, read_file
from bertkit.errors import UserError
from bertkit.recipes.resolve import resolve

WHERE = "run.toml: [search]"


def parsed(text: str) -> tuple[Dimension, ...]:
    """What a table with these lines searches."""
    table = tomllib.loads(f"[search]\n{text}")["search"]
    return check_space(parse_space(table, WHERE), resolve({}, env={}), WHERE)


def test_each_form_is_read_in_the_order_of_the_file() -> None:
    space = parsed(
        '"optimizer.learning_rate" = {log = [1e-5, 1e-4]}\n"train.epochs" = {choices = [2, 3, 4]}\n'
        'model.hidden_dropout = {range = [0, 0.3]}\n"device.threads" = {choices = [1, 2]}\n'
        '"optimizer.name" = {choices = ["adamw", "lamb"]}\n"optimizer.bias_correction" = {choices = [true, false]}'
    )
    assert [one.key for one in space] == [
        "optimizer.learning_rate", "train.epochs", "model.hidden_dropout", "device.threads", "optimizer.name",
        "optimizer.bias_correction",
    ]  # fmt: skip
    assert space[0] == Dimension(key="optimizer.learning_rate", low=1e-5, high=1e-4, log=True)
    assert space[1].tried == (2, 3, 4)
    assert (space[2].tried, space[2].whole) == ((0.0, 0.3), False)
    assert [one.to_mapping() for one in space[:3]] == [
        {"log": [1e-5, 1e-4]}, {"choices": [2, 3, 4]}, {"range": [0.0, 0.3]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ('"train.epochs" = {range = [2, 4]}', True),
        ('"train.epochs" = {range = [2.0, 4.0]}', False),
        ('"train.batch_size" = {range = [8.0, 64.0]}', True),  # takes no others
        ('"train.batch_size" = {log = [8, 64]}', True),
        ('"optimizer.weight_decay" = {range = [0, 0.1]}', False),
    ],
)
def test_whole_numbers_are_drawn_where_both_ends_or_the_setting_are_whole(line: str, whole: bool) -> None:
    (one,) = parsed(line)
    assert one.whole is whole
    assert all(isinstance(value, int) is whole for value in one.tried)


# name: (lines of the table, words of the error)
WRONG = {
    "empty": ("", ("names no setting", "write ")),
    "unknown": (
        '"optimizer.learning_rat" = {log = [1e-5, 1e-4]}',
        ("optimizer.learning_rat'", "did you mean optimizer"),
    ),
    "unknown section": ("optimizr.learning_rate = {log = [1e-5, 1e-4]}", ("no setting 'optimizr'",)),
    "unknown form": ('"train.epochs" = {choises = [1, 2]}', ("no 'choises'", "did you mean choices?")),
    "no form": ('"train.epochs" = {}', ("has nothing", "give one of choices, range, log")),
    "two forms": ('"train.epochs" = {range = [1, 2], log = [1, 2]}', ("has range and log",)),
    "a bare list": ('"train.epochs" = [1, 2]', ("is a list", "choices")),
    "not a list": ('"train.epochs" = {choices = 3}', ("choices is a number, not a list",)),
    "no choices": ('"train.epochs" = {choices = []}', ("has no choices",)),
    "a list as choice": ('"train.epochs" = {choices = [[1]]}', ("is a list", "single values")),
    "a choice twice": ('"train.epochs" = {choices = [1, 1]}', ("a choice twice",)),
    "three numbers": ('"train.epochs" = {range = [1, 2, 3]}', ("is not two numbers",)),
    "words": ('"train.epochs" = {range = ["1", "2"]}', ("is not two numbers",)),
    "infinite": ('"optimizer.learning_rate" = {range = [0.0, inf]}', ("is not two numbers",)),
    "backwards": ('"train.epochs" = {range = [4, 2]}', ("goes from 4 to 2", "lower end first")),
    "log of zero": ('"optimizer.learning_rate" = {log = [0.0, 1e-4]}', ("log begins at 0", "above 0")),
    "wrong type": ('"train.batch_size" = {choices = [16, "many"]}', (WHERE, "train.batch_size = 'many'")),
    "out of range": ('"model.hidden_dropout" = {range = [0.0, 1.5]}', (WHERE, "model.hidden_dropout = 1.5")),
    "half a batch": ('"train.batch_size" = {range = [8, 16.5]}', ("train.batch_size = 16.5",)),
    "a range of names": ('"model.name" = {range = [1, 2]}', ("model.name is no number", "choices")),
    "a range of truth": ('"optimizer.bias_correction" = {range = [0, 1]}', ("is no number",)),
    "what is scored": ('"data.dev_file" = {choices = ["a", "b"]}', ("cannot be searched", "scores would not compare")),
    "the task": ('"task" = {choices = ["cola", "sst2"]}', ("task cannot be searched",)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_refused_by_name(name: str) -> None:
    text, words = WRONG[name]
    with pytest.raises(UserError) as raised:
        parsed(text)
    for word in words:
        assert word in str(raised.value), raised.value


def test_a_setting_named_twice_is_refused() -> None:
    table = {"train.epochs": {"range": [1, 2]}, "train": {"epochs": {"range": [2, 3]}}}
    with pytest.raises(UserError, match=r"train.epochs is named twice"):
        parse_space(table, WHERE)


@pytest.mark.parametrize(
    ("options", "sets"), [({"train.epochs": 2.0}, ()), ({}, ("train.epochs=2",))], ids=["option", "--set"]
)
def test_what_is_searched_cannot_be_an_option_too(options: dict[str, Any], sets: tuple[str, ...]) -> None:
    space = parse_space({"train.epochs": {"range": [1, 2]}}, WHERE)
    with pytest.raises(UserError, match="and searched by"):
        check_space(space, resolve(options, sets, env={}), WHERE)


def test_a_file_has_settings_beside_its_table(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'task = "mrpc"\n[train]\nepochs = 2\n[search]\n"train.epochs" = {choices = [1]}\n', encoding="utf-8"
    )
    assert read_file(path) == ({"task": "mrpc", "train.epochs": 2}, {"train.epochs": {"choices": [1]}})
    path.write_text('task = "mrpc"\n', encoding="utf-8")
    with pytest.raises(UserError, match="has no table"):
        read_file(path)
    path.write_text("search = 3\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no table"):
        read_file(path)
