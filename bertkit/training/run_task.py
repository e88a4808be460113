"""What a run was trained on: `task.json` in its folder, so that later commands need not be told.

It is sealed as records are: with the SHA-256 of its content. A run of before 2026-11-28 has none; its recipe.toml then
tells the task and the length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bertkit.data.tasks import TASKS, Task, is_known, plugin_packages, task_key
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.own.making import from_values, to_values
from bertkit.data.tasks.task import Columns
from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_json
from bertkit.files.inputs import exists, is_file, parse_json, read_json, read_toml, whole_value
from bertkit.model.config import HeadKind
from bertkit.model.vocabulary import Vocabulary
from bertkit.recipes.recipe import Recipe, Value, flatten
from bertkit.records.files import seal

NAME = "task.json"
SCHEMA = 1
BUILT_IN, PLUGIN, OBJECT, OWN = "built in", "plug-in", "object", "own data"  # where a task comes from
LENGTHS = ("seq_length", "doc_stride", "query_length")  # under these names in the recipe's section data, too
# Settings of its training that a model is scored and asked with, where nothing else is said.
KEPT = (
    "task", "precision", "data.dir", "data.train_file", "data.dev_file", "data.seq_length", "data.doc_stride",
    "data.query_length", "model.casing", "answers.n_best", "answers.longest", "answers.null_threshold",
)  # fmt: skip
_CURE = f"copy the run's folder again; or remove its {NAME}, and name the task with -t"


@dataclass(frozen=True)
class RunTask:
    """The parts of a run's task.json that later commands go by."""

    task: str  # its name
    version: int  # of what the task makes of its files
    seq_length: int
    doc_stride: int
    query_length: int
    casing: str  # "cased" or "uncased"; "": the run knew no words
    kind: str  # of its head
    origin: str  # BUILT_IN, PLUGIN, OBJECT or OWN
    package: str  # of a plug-in, as pip calls it
    own: Task | None = None  # of OWN: the task itself


# ---- writing ----


def write_task(
    folder: Path, task: Task, recipe: Recipe, vocabulary: Vocabulary, versions: Mapping[str, str], own: bool = False
) -> dict[str, Any]:
    """Write the run's task.json; returns what it holds. `own`: the caller made the task, so no name finds it."""
    package = plugin_packages().get(task.name)
    told = {
        "schema": SCHEMA,
        "task": task.name,
        "title": task.title,
        "origin": _origin(task, own, package),
        "package": package,
        "task_version": task.version,
        "head": dataclasses.asdict(task.head),
        "labels": list(task.labels),
        "metric": task.primary,
        **({"own": to_values(task.format)} if isinstance(task.format, OwnFormat) else {}),
        "files": {split: [_file(one.file, one.columns) for one in files] for split, files in task.splits.items()},
        **{name: getattr(recipe.data, name) for name in LENGTHS},
        "casing": _casing(vocabulary),
        "versions": dict(versions),
    }
    made: dict[str, Any] = parse_json(to_json(told), NAME)  # as it will be read
    made["sha256"] = seal(made)
    write_json(folder / NAME, made)
    return made


def _origin(task: Task, own: bool, package: str | None) -> str:
    if isinstance(task.format, OwnFormat):
        return OWN
    return OBJECT if own else PLUGIN if package else BUILT_IN


def _file(name: str, columns: Columns | None) -> dict[str, Any]:
    return {"file": name, "columns": None if columns is None else dataclasses.asdict(columns)}


def _casing(vocabulary: Vocabulary) -> str:
    if not vocabulary.has_words:
        return ""
    return "uncased" if vocabulary.lower_case else "cased"


# ---- reading ----


def read_task(folder: Path) -> RunTask | None:
    """What the run in `folder` was trained on; None where it has no task.json, or one that other programs wrote.

    Raises UserError where the file is not as it was written, or of a newer bertkit.
    """
    path = folder / NAME
    if not exists(path):
        return None
    raw = read_json(path, _CURE)
    if not isinstance(raw, dict) or not {"schema", "sha256"} & raw.keys():
        return None
    schema = whole_value(raw.get("schema"), f"{path}: schema", 1, cure=_CURE)
    if schema > SCHEMA:
        raise UserError(f"{path}: was written by a newer bertkit (schema {schema})", "update bertkit")
    if not _sealed(raw):
        raise UserError(f"{path}: is not as it was written: its checksum does not fit", _CURE)
    name, casing = raw.get("task"), raw.get("casing")
    origin, package, head = raw.get("origin", BUILT_IN), raw.get("package"), raw.get("head")
    if not isinstance(name, str) or (origin == BUILT_IN and name not in TASKS):
        raise UserError(f"{path}: its task {name!r} is not known here", "update bertkit, or name a task with -t")
    if origin not in (BUILT_IN, PLUGIN, OBJECT, OWN):
        raise UserError(f"{path}: its task's origin is {origin!r}", "update bertkit")
    kind = head.get("kind") if isinstance(head, dict) else None
    if kind not in get_args(HeadKind):
        raise UserError(f"{path}: its head is {head!r}", _CURE)
    if casing not in ("cased", "uncased", ""):
        raise UserError(f"{path}: casing is {casing!r}, neither cased nor uncased", _CURE)
    numbers = {key: whole_value(raw.get(key), f"{path}: {key}", 1, cure=_CURE) for key in ("task_version", *LENGTHS)}
    return RunTask(
        task=name,
        version=numbers.pop("task_version"),
        casing=casing,
        kind=str(kind),
        origin=origin,
        package=str(package or ""),
        own=_own(raw, path) if origin == OWN else None,
        **numbers,
    )


def _own(raw: Mapping[str, Any], path: Path) -> Task:
    return from_values(raw.get("own"), raw.get("labels"), raw.get("metric"), str(path), _CURE)


def _sealed(raw: Mapping[str, Any]) -> bool:
    try:
        return raw.get("sha256") == seal(raw)
    except RecursionError:  # nested deeper than what we write
        return False


def run_settings(run: str, own: Task | None = None, known_only: bool = True) -> dict[str, Value]:
    """What the run itself says of `KEPT`; empty for a folder that is no run of bertkit's.

    `own`: a task that the caller made; `known_only`: False where its task does not matter. Raises UserError where the
    run's task is not known here, and where its task.json and its recipe.toml contradict each other.
    """
    folder = Path(run).expanduser()
    path = folder / "recipe.toml"
    recipe = flatten(read_toml(path)) if is_file(path) else {}
    kept = {key: recipe[key] for key in KEPT if key in recipe}
    told = read_task(folder)
    if told is None:
        return kept
    if own is None and known_only:
        _check_known(told, run)
    for key, value in settings_of(told).items():
        before = kept.get(key, value)
        same = task_key(before) == value if key == "task" and isinstance(before, str) else before == value
        if not same and (key, before) not in (("model.casing", "auto"), ("task", "")):
            raise UserError(
                f"{path}: {key} is {before!r}, but {NAME} beside it has {value!r}",
                "undo what was changed; an option on the command line asks for another value",
            )
        kept[key] = value
    return kept


def _check_known(told: RunTask, run: str) -> None:
    """Raises UserError where the run's task is not known here."""
    if told.origin == OBJECT:
        raise UserError(
            f"{run} was trained on {told.task}, a task that a program made",
            f"load it in Python and pass the task: bertkit.load({run!r}, task=…)",
        )
    if told.origin == PLUGIN and not is_known(told.task):
        raise UserError(
            f"{run} was trained on {told.task}, a task of {told.package}, which is not installed",
            f"pip install {told.package}; or pass the task in Python: bertkit.load({run!r}, task=…)",
        )


def settings_of(told: RunTask) -> dict[str, Value]:
    """The settings, by the recipe's keys, that the run's task.json decides."""
    found: dict[str, Value] = {"task": told.task, **{f"data.{name}": getattr(told, name) for name in LENGTHS}}
    return found | ({"model.casing": told.casing} if told.casing else {})


# ---- comparing with what is asked ----


def check_task(told: RunTask | None, task: Task, run: str, force: bool) -> tuple[str, ...]:
    """What to warn of where a run that was trained on `told` is to answer `task`.

    Raises UserError where the two do not belong together and `force` does not say that this is meant.
    """
    if told is None or told.task == task.name or told.kind == "pretraining":
        return ()  # of a pre-trained model's missing head others tell
    if told.task in (task.parts_of, *task.models_of):
        return ()
    if not force:
        raise UserError(
            f"{run} was trained on {told.task}, not on {task.name}",
            f"drop -t, train it on {task.name} first, or insist with --force",
        )
    return (f"{run} was trained on {told.task}, and answers {task.name} only because of --force",)


def differing(told: RunTask | None, task: Task, recipe: Recipe, vocabulary: Vocabulary, run: str) -> list[str]:
    """What the run was trained with and what is asked for now differ in, a line each."""
    if told is None:
        return []
    names = LENGTHS if task.head.kind == "span" else LENGTHS[:1]
    asked = {f"data.{name}": (getattr(recipe.data, name), getattr(told, name)) for name in names}
    if told.casing and vocabulary.has_words:
        asked["the casing"] = (_casing(vocabulary), told.casing)
    if told.task == task.name:
        asked[f"version of task {task.name}"] = (task.version, told.version)
    return [f"{what} is {now}, but {run} was trained with {then}" for what, (now, then) in asked.items() if now != then]
