"""Plug-ins by entry point: found by name without being imported, and each fault named with its package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from bertkit.errors import UserError

Made = TypeVar("Made")


def by_name(points: Iterable[EntryPoint]) -> dict[str, list[EntryPoint]]:
    """In the order of the names; of one name there may be several, each of another package."""
    found: dict[str, list[EntryPoint]] = {}
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        found.setdefault(point.name, []).append(point)
    return found


def load(points: list[EntryPoint], what: str, make: Callable[[Any], Made]) -> Made:
    """What `make` makes of the plug-in of one name. `what`: what it is, as "backend".

    Raises UserError where several packages have the name, and for whatever the plug-in raises.
    """
    point = points[0]
    if any(other.value != point.value for other in points):
        raise UserError(
            f"several packages have a {what} {point.name!r}: {', '.join(one.value for one in points)}",
            "uninstall all but one",
        )
    try:
        return make(point.load())
    except Exception as error:
        raise UserError(
            f"the {what} plug-in {point.name!r} ({point.value}) does not load: {type(error).__name__}: {error}",
            f"repair or uninstall its package {package(point)!r}",
        ) from error


def package(point: EntryPoint) -> str:
    """The distribution that brings it, as pip calls it."""
    return point.dist.name if point.dist else point.value
