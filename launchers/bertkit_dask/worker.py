"""What is run on Dask's workers, which import it by its name."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from bertkit.plugin import UserError

Done = dict[str, Any]
# A worker may have several threads. A task is Python's own work for the most part, and holds a piece of the corpus in
# memory, so a process does one at a time.
_ONE_TASK = threading.Lock()


def do(number: int, task: Callable[[int], Done]) -> str:
    """What the task gives, or what the user can put right, as JSON."""
    with _ONE_TASK:
        try:
            return json.dumps({"done": task(number)})
        except UserError as error:
            return json.dumps({"cause": error.cause, "cure": error.cure})


def running(prefix: str, dask_worker: Any) -> int:
    """Tasks whose key begins so and that this worker still does, cancelled ones too: no thread can be ended."""
    return sum(str(task.key).startswith(prefix) for task in dask_worker.state.all_running_tasks)
