"""Which backends are installed, by entry point; which name or alias means which; which one `auto` takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from bertkit.engine.interface import Backend, Probe
from bertkit.errors import UserError, nearest
from bertkit.files.entry_points import by_name, load

GROUP = "bertkit.backends"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """A backend and why it was taken."""

    backend: Backend
    reason: str


def installed() -> dict[str, Backend]:
    """Name -> card of every installed backend, in the order of their names."""
    return {name: _load(points) for name, points in _points().items()}


def find(name: str) -> Backend:
    """The installed backend called `name` or known by that alias. Raises UserError, naming those there are."""
    points = _points()
    if name in points:  # it beats another's alias, and loads no other plug-in, which may be broken
        return _load(points[name])
    cards = installed()
    names = {alias: card for card in cards.values() for alias in (*card.aliases, card.name)}
    if name in names:
        return names[name]
    raise UserError(f"there is no backend {name!r} here; installed: {', '.join(cards)}", nearest(name, names))


def _points() -> dict[str, list[EntryPoint]]:
    return by_name(entry_points(group=GROUP))


def _load(points: list[EntryPoint]) -> Backend:
    def make(card: Callable[[], Backend]) -> Backend:
        return card()

    return load(points, "backend", make)


def choose(name: str, dry_run: bool = False) -> Choice:
    """The backend for a run: the one named, which must be ready, or for `auto` the best that is.

    A dry run takes the one named without its hardware, with a warning: a command may be prepared elsewhere.
    """
    if name != "auto":
        backend = find(name)
        probe = backend.probe()
        if not probe.ready and not dry_run:
            raise UserError(f"backend {backend.name!r} is not ready: {probe.detail}", "`bertkit backends` lists all")
        if not probe.ready:
            logger.warning("backend %r is not ready here, so nothing was asked of it: %s", backend.name, probe.detail)
        return Choice(backend, f"asked for; {'' if probe.ready else 'not ready here: '}{probe.detail}")
    looked = [(card, card.probe()) for card in installed().values() if card.preference >= 0]
    ready = sorted((pair for pair in looked if pair[1].ready), key=lambda pair: -pair[0].preference)
    if not ready:
        raise UserError("no backend is ready here", "`bertkit backends` says what would help")
    backend, probe = ready[0]
    return Choice(backend, f"best that is ready; {probe.detail}{_others(looked, backend)}")


def _others(looked: list[tuple[Backend, Probe]], chosen: Backend) -> str:
    absent = [card.name for card, probe in looked if not probe.ready and card.preference > chosen.preference]
    return f"; not ready: {', '.join(absent)}" if absent else ""
