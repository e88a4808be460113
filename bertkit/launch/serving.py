"""What a server of trained models is: a plug-in (entry points in `bertkit.servers`), and what it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Protocol

from bertkit.errors import UserError, nearest
from bertkit.files.entry_points import by_name, load

GROUP = "bertkit.servers"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """What is to be served, as the user said it."""

    runs: Mapping[str, str]  # name -> folder of a run
    task: str | None = None  # what the runs were trained on, where their folders do not say
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # by dotted key
    force: bool = False  # use a run for another task
    host: str = "127.0.0.1"
    port: int = 8000  # 0: a free one
    workers: int = 1  # processes
    batch_tokens: int = 0  # of one batch at the most; 0: as many as take 0.05 s, 512 to 4,096
    request_tokens: int = 65_536  # of one request
    queue: int = 1024  # sequences that wait for a model
    body_bytes: int = 4 << 20  # of one request
    timeout: float = 30.0  # seconds that a request may take
    watch: bool = False  # load a run anew when its folder changes
    log_texts: bool = False
    quiet: bool = False


class ModelServer(Protocol):
    """One way to serve."""

    def serve(self, options: ServeOptions) -> int:
        """Serve until a signal ends it; the exit code. Raises UserError for what cannot be served."""


def find_server(name: str = "http") -> ModelServer:
    """The installed server called `name`. Raises UserError, naming those there are."""
    points = by_name(entry_points(group=GROUP))
    if name not in points:
        raise UserError(f"there is no server {name!r} here", nearest(name, points) if points else "reinstall bertkit")

    def make(kind: type[ModelServer]) -> ModelServer:
        return kind()

    return load(points[name], "server", make)
