"""Tasks: what to learn from which files, and how to score it. A task is a line in a table, not a class."""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.errors import UserError, nearest
from bertkit.tasks.glue import GLUE
from bertkit.tasks.sample import SAMPLE
from bertkit.tasks.task import Examples, Split, Task

TASKS: Mapping[str, Task] = {task.name: task for task in (*GLUE, SAMPLE)}
ALIASES = {"sst-2": "sst2", "sts-b": "stsb", "mnli-m": "mnli", "diagnostic": "ax"}


def find_task(name: str) -> Task:
    """The task called `name`. Raises UserError, naming the nearest."""
    key = ALIASES.get(name.lower(), name.lower())
    if key not in TASKS:
        raise UserError(f"there is no task {name!r}", nearest(key, TASKS))
    return TASKS[key]


__all__ = ["TASKS", "Examples", "Split", "Task", "find_task"]
