"""From all places where a setting can stand to one recipe.

Option > --set > --config > environment > recipe (or the one that the task names) > default.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from bertkit.data.tasks import task_recipe
from bertkit.errors import UserError, nearest
from bertkit.files.inputs import parse_toml, read_text
from bertkit.files.inputs import read_toml as read_tables
from bertkit.recipes.recipe import DEVICE, KEYS, Recipe, Value, build, check_key, flatten, to_flat

PREFIX = "BERTKIT_"
NOT_SETTINGS = (
    "BERTKIT_CACHE",
    "BERTKIT_JOB",
    "BERTKIT_MPIRUN",
    "BERTKIT_PLACES",
    "BERTKIT_RESUME",
    "BERTKIT_MODELS",
    "BERTKIT_MIRROR",
    "BERTKIT_SOURCES",
    "BERTKIT_API_KEY",
    "BERTKIT_SERVE_FOLDER",
)  # variables of ours that are no recipe keys
TESTS = "BERTKIT_TEST_"  # begins the variables of the project's tests
MOST_VALUE = 4096  # characters of a value; the longest path of Linux
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resolved:
    """A recipe, and for each key where its value came from."""

    recipe: Recipe
    sources: Mapping[str, str]

    def flat(self) -> dict[str, Value]:
        return to_flat(self.recipe)


def resolve(
    options: Mapping[str, Value],
    sets: Iterable[str] = (),
    config: Path | None = None,
    recipe: str | None = None,
    env: Mapping[str, str] = os.environ,
    run: Mapping[str, Value] | None = None,
    file: tuple[str, Mapping[str, Value]] | None = None,
) -> Resolved:
    """Lay the sources over one another. `options`: by dotted key, None where an option was not given.

    `run`: settings of an earlier run that this one follows, in the recipe's place. `file`: name and settings of a file
    that was read already, and counts as `config` does.

    Raises UserError for an unknown key or a value of the wrong type, saying where it stands.
    """
    values: dict[str, Value] = {}
    sources: dict[str, str] = dict.fromkeys(KEYS, "default")
    layers: list[tuple[Mapping[str, Value], str]] = []
    if run:
        layers.append((run, "the run's recipe.toml"))
    if recipe:
        layers.append((read_recipe(recipe), f"recipe {recipe}"))
    layers += [({key: value}, f"environment {name}") for name, key, value in read_environment(env)]
    if config:
        layers.append((read_toml(config), str(config)))
    if file:
        layers.append((file[1], file[0]))
    layers += [(dict([parse_set(text)]), "--set") for text in sets]
    layers.append(({key: value for key, value in options.items() if value is not None}, "option"))
    task = next((layer["task"] for layer, _ in reversed(layers) if "task" in layer), "")
    if not recipe and not run and (own := task_recipe(str(task))):
        layers.insert(0, (read_recipe(own), f"recipe {own}, as {task} has it"))
    for layer, source in layers:
        for key, value in layer.items():
            check_key(key, source)
            values[key], sources[key] = value, source
    return Resolved(build(values, sources), sources)


def parse_set(text: str) -> tuple[str, Value]:
    """``key=value`` of --set; the value is TOML where it can be, else the text itself."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"--set {text!r} is not key=value", "write it as --set optimizer.learning_rate=3e-5")
    return key.strip(), parse_value(value.strip(), f"--set {key.strip()}")


def parse_value(text: str, where: str) -> Value:
    """The TOML value that a text spells, else the text itself."""
    if len(text) > MOST_VALUE:
        raise UserError(f"{where}: the value has {len(text):,} characters", f"a setting has at most {MOST_VALUE:,}")
    try:
        value = parse_toml(f"value = {text}", where)
    except UserError:
        return text
    single = value["value"] if len(value) == 1 else None  # a line end in the text could begin another key
    return single if isinstance(single, str | int | float | bool) else text


def read_environment(env: Mapping[str, str]) -> list[tuple[str, str, Value]]:
    """(variable, key, value) of each ``BERTKIT_…``; an unknown one is warned about, never silently dropped."""
    known = {variable(key): key for key in KEYS}
    found: list[tuple[str, str, Value]] = []
    for name in sorted(env):
        if not name.startswith(PREFIX) or name.startswith(TESTS) or name in NOT_SETTINGS:
            continue
        if name in known:
            found.append((name, known[name], parse_value(env[name], f"environment {name}")))
        elif name.startswith(variable(DEVICE)):
            key = DEVICE + name.removeprefix(variable(DEVICE)).lower()
            found.append((name, key, parse_value(env[name], f"environment {name}")))
        else:
            logger.warning("environment variable %s is no setting and is ignored; %s", name, nearest(name, known))
    return found


def variable(key: str) -> str:
    """``train.batch_size`` -> ``BERTKIT_TRAIN_BATCH_SIZE``."""
    return PREFIX + key.upper().replace(".", "_")


def read_toml(path: Path) -> dict[str, Any]:
    """A recipe file by dotted key."""
    tables = read_tables(path, "`bertkit recipes copy` gives a file to start from")
    try:
        return flatten(tables)
    except RecursionError:  # a.a.a… is no nesting to TOML's parser
        raise UserError(f"{path}: is nested too deep", "put settings in one section, as [train]") from None


def packaged() -> dict[str, Path]:
    """Name -> file of the recipes that come with bertkit."""
    folder = Path(str(resources.files("bertkit").joinpath("recipes")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_recipe(name: str) -> dict[str, Any]:
    """A packaged recipe by name, or a file by its path ending in .toml."""
    files = packaged()
    if name in files:
        return read_toml(files[name])
    if name.endswith(".toml"):
        return read_toml(Path(name))
    raise UserError(f"there is no recipe {name!r}", nearest(name, files))


def describe_recipe(path: Path) -> str:
    """The first comment line of a recipe file."""
    first = read_text(path).split("\n", 1)[0]
    return first.lstrip("# ").strip()
