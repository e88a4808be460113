"""Where a server says that requests spent their time: its statistics before and after a load.

Source: Triton's statistics extension of the Open Inference Protocol, GET /v2/models/NAME/stats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertkit.engine.remote import RemoteModel
from bertkit.errors import UserError
from bertkit.files.inputs import parse_json

PARTS = ("queue", "compute_input", "compute_infer", "compute_output", "success")


@dataclass(frozen=True)
class ServerTimes:
    """Sums since the server's start."""

    counts: Mapping[str, int]
    nanoseconds: Mapping[str, int]
    inferences: int | None  # sequences
    executions: int | None  # batches that the server made of them


def server_times(model: RemoteModel) -> ServerTimes | None:
    """None where the server does not tell."""
    try:
        reply = model.server.request("GET", f"{model.path}/stats")
        told: Any = parse_json(reply.content, "the server's statistics", "") if reply.ok else {}
    except UserError:
        return None
    try:
        found = told["model_stats"][0]
        inside = {name: found["inference_stats"][name] for name in PARTS if name in found["inference_stats"]}
        return ServerTimes(
            {name: int(one["count"]) for name, one in inside.items()},
            {name: int(one["ns"]) for name, one in inside.items()},
            _whole(found.get("inference_count")),
            _whole(found.get("execution_count")),
        )
    except (KeyError, TypeError, IndexError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def between(before: ServerTimes | None, after: ServerTimes | None) -> dict[str, float | None]:
    """Mean milliseconds of a request in each part, and sequences of a batch; None where it is not known."""
    found: dict[str, float | None] = dict.fromkeys([*(f"{name}_ms" for name in PARTS), "sequences_per_batch"])
    if before is None or after is None:
        return found
    for name in PARTS:
        count = after.counts.get(name, 0) - before.counts.get(name, 0)
        spent = after.nanoseconds.get(name, 0) - before.nanoseconds.get(name, 0)
        if name in after.counts and count > 0:
            found[f"{name}_ms"] = spent / count / 1e6
    if None not in (before.inferences, before.executions, after.inferences, after.executions):
        batches = after.executions - before.executions  # type: ignore[operator]
        found["sequences_per_batch"] = (after.inferences - before.inferences) / batches if batches > 0 else None  # type: ignore[operator]
    return found
