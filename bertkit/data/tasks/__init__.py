"""Tasks: what to learn from which files, and how to score it. A task is a value, not a class.

Beside those that are built in there are plug-ins (entry points in `bertkit.tasks`): the name is the task's, the value a
`Task`, or a callable without arguments that returns one. None is imported before it is asked for by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bertkit.data.tasks.glue import GLUE
from bertkit.data.tasks.makers import check_name, table_task
from bertkit.data.tasks.own.labels import KINDS
from bertkit.data.tasks.pretrain import PRETRAIN
from bertkit.data.tasks.sample import SAMPLE
from bertkit.data.tasks.squad.task import SQUAD
from bertkit.data.tasks.swag import SWAG
from bertkit.data.tasks.task import Split, Task
from bertkit.data.tasks.xnli import XNLI
from bertkit.errors import UserError, nearest
from bertkit.files.entry_points import by_name, load, package

GROUP = "bertkit.tasks"
BUILT_IN = (*GLUE, *SQUAD, SWAG, *XNLI, SAMPLE, PRETRAIN)
TASKS: Mapping[str, Task] = {task.name: task for task in BUILT_IN}
ALIASES = {
    "sst-2": "sst2",
    "sts-b": "stsb",
    "mnli-m": "mnli",
    "diagnostic": "ax",
    "squad1": "squad",
    "squadv2": "squad2",
}


def task_key(name: str) -> str:
    """The one spelling of a task's name."""
    return ALIASES.get(name.lower(), name.lower())


def find_task(name: str) -> Task:
    """The task called `name`. Raises UserError, naming the nearest, and for a plug-in that cannot be used."""
    key, plugins = task_key(name), _plugins()
    if key in plugins:
        return _load(plugins[key])
    if key not in TASKS:
        raise UserError(f"there is no task {name!r}", nearest(key, (*TASKS, *plugins, *KINDS)))
    return TASKS[key]


def task_recipe(name: str) -> str:
    """The recipe that the task's runs start from where no other is named; "" where there is none or no such task."""
    return find_task(name).recipe if is_known(name) else ""


def is_known(name: str) -> bool:
    """Whether there is such a task, built in or installed; none is imported."""
    return task_key(name) in TASKS or task_key(name) in _plugins()


def plugin_packages() -> dict[str, str]:
    """Name -> distribution of the tasks that are plug-ins; none is imported."""
    return {name: ", ".join(sorted({package(point) for point in points})) for name, points in _plugins().items()}


def check_own(task: Task) -> Task:
    """A task object that a caller made. Raises UserError where its name is one that is known already.

    Whatever keeps a task's name (caches, records, comparisons) would take the two for one.
    """
    check_name(task.name)
    if is_known(task.name):
        raise UserError(f"there is a task {task.name!r} already", "give yours another name")
    if task.head.kind == "pretraining":
        raise UserError(f"task {task.name} is of pre-training", "pass task='pretrain', and its data by data_dir=")
    return task


def _plugins() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for name, points in by_name(entry_points(group=GROUP)).items():
        found.setdefault(task_key(name), []).extend(points)
    return found


def _load(points: list[EntryPoint]) -> Task:
    name = task_key(points[0].name)
    if name in TASKS:
        raise UserError(
            f"the task {name!r} is built in, but {_named(points)} has one of this name too",
            f"uninstall {_named(points)}, or have it take another name",
        )

    def make(value: Any) -> Task:
        made = value if isinstance(value, Task) else value()
        if not isinstance(made, Task):
            raise TypeError(f"it gives {type(made).__name__}, not a Task")
        check_name(made.name)
        if made.name != name:
            raise ValueError(f"its task calls itself {made.name!r}")
        return made

    return load(points, "task", make)


def _named(points: Iterable[EntryPoint]) -> str:
    return " and ".join(sorted({package(point) for point in points}))


__all__ = [
    "TASKS", "Split", "Task", "check_own", "find_task", "is_known", "plugin_packages", "table_task", "task_key",
    "task_recipe",
]  # fmt: skip
