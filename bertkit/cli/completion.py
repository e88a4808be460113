"""What the shell offers for an option's value; everything is imported when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable


def tasks(incomplete: str) -> list[str]:
    from bertkit.data.tasks import TASKS
    from bertkit.data.tasks.own.labels import KINDS

    return _beginning([*TASKS, *KINDS], incomplete)


def recipes(incomplete: str) -> list[str]:
    from bertkit.recipes.resolve import packaged

    return _beginning([*packaged(), *_files(incomplete, ".toml")], incomplete)


def backends(incomplete: str) -> list[str]:
    from bertkit.engine.registry import installed

    return _beginning(["auto", *installed()], incomplete)


def formats(incomplete: str) -> list[str]:
    from bertkit.engine.exports import format_names

    return _beginning(format_names(), incomplete)


def models(incomplete: str) -> list[str]:
    from bertkit.model.config import ARCHITECTURES

    return _beginning([*ARCHITECTURES, *_files(incomplete)], incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str, suffix: str = "") -> list[str]:
    """Folders, and files with this ending, whose path goes on from what is typed."""
    before = incomplete[: incomplete.rfind("/") + 1]
    try:
        found = sorted(os.scandir(before or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    ending = {True: "/", False: ""}
    return [
        f"{before}{entry.name}{ending[entry.is_dir()]}"
        for entry in found
        if entry.is_dir() or (suffix and entry.name.endswith(suffix))
    ]
