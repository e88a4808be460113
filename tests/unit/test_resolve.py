"""From which place each setting comes: the order of the places, their names, and what each of them refuses."""

from __future__ import annotations

import itertools
import logging
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.recipes.recipe import KEYS, Recipe, Value, flatten, to_flat
from bertkit.recipes.resolve import PREFIX, describe_recipe, packaged, parse_set, read_environment, resolve, variable
from bertkit.training.run_folder import to_toml

PLACES = ("recipe", "environment", "config", "set", "option")  # each beats those before it
KEY = "train.batch_size"
VALUES = {place: 100 + number for number, place in enumerate(PLACES)}
Arguments = dict[str, Any]


def toml(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def given_in(places: tuple[str, ...], folder: Path) -> Arguments:
    """Arguments of `resolve` with the key set in these places, a value for each."""
    line = "[train]\nbatch_size = {}\n"
    made: dict[str, Callable[[int], Arguments]] = {
        "recipe": lambda value: {"recipe": str(toml(folder, "recipe.toml", line.format(value)))},
        "environment": lambda value: {"env": {"BERTKIT_TRAIN_BATCH_SIZE": str(value)}},
        "config": lambda value: {"config": toml(folder, "my.toml", line.format(value))},
        "set": lambda value: {"sets": [f"{KEY}={value}"]},
        "option": lambda value: {"options": {KEY: value}},
    }
    arguments: Arguments = {"options": {}, "env": {}}
    for place in places:
        arguments |= made[place](VALUES[place])
    return arguments


def source_name(place: str, folder: Path) -> str:
    return {
        "recipe": f"recipe {folder / 'recipe.toml'}",
        "environment": "environment BERTKIT_TRAIN_BATCH_SIZE",
        "config": str(folder / "my.toml"),
        "set": "--set",
        "option": "option",
    }[place]


@pytest.mark.parametrize("places", [(place,) for place in PLACES] + list(itertools.combinations(PLACES, 2)) + [PLACES])
def test_the_higher_place_wins_and_is_named(places: tuple[str, ...], tmp_path: Path) -> None:
    resolved = resolve(**given_in(places, tmp_path))
    assert resolved.flat()[KEY] == VALUES[places[-1]]
    assert resolved.recipe.train.batch_size == VALUES[places[-1]]
    assert resolved.sources[KEY] == source_name(places[-1], tmp_path)


def test_defaults_stand_where_nothing_is_given() -> None:
    resolved = resolve({KEY: None}, env={})
    assert resolved.flat() == to_flat(Recipe())
    assert set(resolved.sources) == set(KEYS)
    assert set(resolved.sources.values()) == {"default"}


def test_the_last_of_two_sets_wins() -> None:
    assert resolve({}, [f"{KEY}=7", f"{KEY}=8"], env={}).flat()[KEY] == 8


@pytest.mark.parametrize("place", [place for place in PLACES if place != "environment"])
@pytest.mark.parametrize(
    ("wrong", "near"), [("train.batchsize", "train.batch_size"), ("lerning_rate", "learning_rate")]
)
def test_an_unknown_key_names_the_place_and_the_nearest(place: str, wrong: str, near: str, tmp_path: Path) -> None:
    arguments = given_in((place,), tmp_path)
    if place == "option":
        arguments["options"] = {wrong: 1}
    elif place == "set":
        arguments["sets"] = [f"{wrong}=1"]
    else:
        toml(tmp_path, "my.toml" if place == "config" else "recipe.toml", f"{wrong} = 1\n")
    with pytest.raises(UserError) as caught:
        resolve(**arguments)
    assert str(caught.value).startswith(f"{source_name(place, tmp_path)}: there is no setting {wrong!r}")
    assert near in caught.value.cure


def test_an_unknown_variable_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    env = {"BERTKIT_TRAIN_BATCHSIZE": "3", "BERTKIT_CACHE": "x", "BERTKIT_TEST_ANY": "y", "OTHER": "z"}
    with caplog.at_level(logging.WARNING):
        assert read_environment(env) == []
    assert len(caplog.records) == 1
    assert "BERTKIT_TRAIN_BATCHSIZE" in caplog.text
    assert "BERTKIT_TRAIN_BATCH_SIZE" in caplog.text


@pytest.mark.parametrize("key", sorted(KEYS))
def test_every_key_has_a_variable_of_its_own(key: str) -> None:
    assert variable("train.batch_size") == "BERTKIT_TRAIN_BATCH_SIZE"
    assert [other for other in KEYS if variable(other) == variable(key)] == [key]
    assert read_environment({variable(key): "auto"}) == [(variable(key), key, "auto")]


def test_device_settings_pass_through_from_every_place(tmp_path: Path) -> None:
    config = toml(tmp_path, "my.toml", "[device]\nbf16 = 'force'\n[device.graph]\nsize = 4\n")
    env = {f"{PREFIX}DEVICE_THREADS": "2"}
    resolved = resolve({}, ["device.fast=true", "device.share=0.5"], config, env=env)
    assert resolved.recipe.device == {"bf16": "force", "graph.size": 4, "threads": 2, "fast": True, "share": 0.5}
    assert resolved.sources["device.threads"] == "environment BERTKIT_DEVICE_THREADS"
    assert resolved.sources["device.fast"] == "--set"


@pytest.mark.parametrize("text", ["train.batch_size", "=5", " =5", ""])
def test_set_without_key_or_equals_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not key=value"):
        parse_set(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3), ("a=3e-5", 3e-5), ("a=true", True), ("a=True", "True"), ("a='x y'", "x y"), ("a=x=y", "x=y"),
        (" a = b ", "b"), ("a=", ""), ("a=[1]", "[1]"),
        ("a=2020-01-01", "2020-01-01"), ('a="', '"'), ("a=runs/1", "runs/1"),
    ],
)  # fmt: skip
def test_a_set_value_is_toml_or_text(text: str, value: Value) -> None:
    key, found = parse_set(text)
    assert (key, found, type(found)) == ("a", value, type(value))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("train.batch_size=many", "train.batch_size"),
        ("train.batch_size=1.5", "train.batch_size"),
        ("precision=fp8", "precision"),
        ("optimizer.bias_correction=perhaps", "optimizer.bias_correction"),
    ],
)
def test_a_wrong_type_names_place_key_and_meaning(text: str, key: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve({}, [text], env={})
    assert caught.value.cause.startswith(f"--set: {key} = ")
    assert caught.value.cure == " ".join(KEYS[key].description.split())


@pytest.mark.parametrize("key", ["output", "data.dir", "model.name", "task", "data.cache"])
def test_a_name_of_digits_is_a_name(key: str) -> None:
    """`--set output=2024`, BERTKIT_OUTPUT=2024 and --cache_dir 7 mean a folder of that name."""
    assert resolve({}, [f"{key}=2024"], env={}).flat()[key] == "2024"
    assert resolve({}, env={variable(key): "2024"}).flat()[key] == "2024"


@pytest.mark.parametrize("place", ["config", "recipe"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[train]\nbatch_size = \n", "line 2"),
        (b"seed = 1\nseed = 2\n", "is not TOML"),
        (b"task = '\xff'\n", "not UTF-8 at byte 9"),
        (b"train = 5\n", "there is no setting 'train'"),
        (b"device = 5\n", "there is no setting 'device'"),
        (b"[model]\nname = ['a']\n", "model.name = ['a']"),
        (b"[device]\nx = [1]\n", "device.x = [1]"),
    ],
)
def test_a_bad_file_is_named(place: str, content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        resolve({}, config=path, env={}) if place == "config" else resolve({}, recipe=str(path), env={})
    assert str(path) in caught.value.cause
    assert words in caught.value.cause


@pytest.mark.parametrize(
    ("name", "words"), [("absent.toml", "cannot be read"), ("folder.toml", "is a folder, not a file")]
)
def test_a_file_that_cannot_be_read_is_named(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(UserError, match=words):
        resolve({}, recipe=str(tmp_path / name), env={})


def test_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no recipe 'dem'.*demo"):
        resolve({}, recipe="dem", env={})


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_packaged_recipe_resolves_and_describes_itself(name: str) -> None:
    resolved = resolve({}, recipe=name, env={})
    assert f"recipe {name}" in resolved.sources.values()
    assert len(describe_recipe(packaged()[name])) > 10


texts = st.text() | st.text(alphabet="\"'\\\x00\t\n\r\x1b\x7f\x85é\u2028[]#=")
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "task": texts,
        "output": texts,
        "seed": st.integers(0, 2**62),
        "model.name": texts,
        "model.hidden_dropout": st.none() | st.floats(0, 0.99),
        "optimizer.learning_rate": st.floats(0, 1e300),
        "optimizer.bias_correction": st.booleans(),
        "device.mode": texts,
    },
)


@given(SETTINGS)
def test_what_is_written_as_toml_reads_back(values: Mapping[str, Value]) -> None:
    read = flatten(tomllib.loads(to_toml(values)))
    assert read == {key: value for key, value in values.items() if value is not None}
    assert all(type(read[key]) is type(values[key]) for key in read)


def test_a_whole_recipe_reads_back(tmp_path: Path) -> None:
    wanted = resolve({"task": 'a "b" \\ ü'}, ["device.x=1", "data.dir=/tmp/a b"], recipe="bert-paper", env={}).flat()
    again = resolve({}, config=toml(tmp_path, "recipe.toml", to_toml(wanted)), env={}).flat()
    assert again == wanted
