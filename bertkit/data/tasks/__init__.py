"""Tasks: what to learn from which files, and how to score it. A task is a line in a table, not a class."""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.data.tasks.glue import GLUE
from bertkit.data.tasks.pretrain import PRETRAIN
from bertkit.data.tasks.sample import SAMPLE
from bertkit.data.tasks.squad.task import SQUAD
from bertkit.data.tasks.task import Split, Task
from bertkit.errors import UserError, nearest

TASKS: Mapping[str, Task] = {task.name: task for task in (*GLUE, *SQUAD, SAMPLE, PRETRAIN)}
ALIASES = {
    "sst-2": "sst2",
    "sts-b": "stsb",
    "mnli-m": "mnli",
    "diagnostic": "ax",
    "squad1": "squad",
    "squadv2": "squad2",
}


def find_task(name: str) -> Task:
    """The task called `name`. Raises UserError, naming the nearest."""
    key = ALIASES.get(name.lower(), name.lower())
    if key not in TASKS:
        raise UserError(f"there is no task {name!r}", nearest(key, TASKS))
    return TASKS[key]


def task_recipe(name: str) -> str:
    """The recipe that the task's runs start from where no other is named; "" where there is none or no such task."""
    task = TASKS.get(ALIASES.get(name.lower(), name.lower()))
    return task.recipe if task else ""


__all__ = ["TASKS", "Split", "Task", "find_task", "task_recipe"]
