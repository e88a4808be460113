"""A report of the checks that its reader can tell a machine by: what ran, on what, with which versions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bertkit.conformance import CHECKS, Result
from bertkit.conformance.fixtures import job, with_settings
from bertkit.distributed.world import World
from bertkit.engine.interface import Backend, Capabilities, Engine, Job, Probe, Setting
from bertkit.errors import UserError, nearest
from bertkit.recipes.recipe import DEVICE
from bertkit.recipes.resolve import parse_set
from bertkit.records import collect, host
from bertkit.training.setup import device_settings

SCHEMA = 1


class Configured:
    """A backend whose settings have other defaults."""

    def __init__(self, inner: Backend, settings: Mapping[str, str | int | float | bool]) -> None:
        self.inner = inner
        self.name, self.aliases, self.preference = inner.name, inner.aliases, inner.preference
        self.capabilities: Capabilities = inner.capabilities
        self.settings: Mapping[str, Setting] = {
            name: dataclasses.replace(setting, default=settings[name]) for name, setting in inner.settings.items()
        }

    def probe(self) -> Probe:
        return self.inner.probe()

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return self.inner.variables(settings)

    def engine(self, job: Job, world: World) -> Engine:
        return self.inner.engine(job, world)


def configured(backend: Backend, sets: Iterable[str]) -> Configured:
    """`backend` with what ``device.<name>=value`` texts say. Raises UserError for other settings and wrong values."""
    said: dict[str, str | int | float | bool] = {}
    for key, value in map(parse_set, sets):
        if not key.startswith(DEVICE):
            raise UserError(f"{key} is no setting of a backend", "the checks take --set device.<name>=<value> only")
        said[key.removeprefix(DEVICE)] = value if value is not None else ""
    return Configured(backend, device_settings(backend, said))


def chosen(names: Sequence[str]) -> tuple[str, ...]:
    """Checks by name. Raises UserError for one that there is not."""
    for name in names:
        if name not in CHECKS:
            raise UserError(f"there is no check {name!r}", nearest(name, CHECKS))
    return tuple(names)


def count(results: Sequence[Result], outcome: str) -> int:
    return sum(result.outcome == outcome for result in results)


def make_report(backend: Backend, results: Sequence[Result]) -> dict[str, Any]:
    """The checks of one backend on this machine, for --json and for whoever it is sent to."""
    engine = with_settings(backend, job("classification"))
    described = dict(engine.describe())
    engine.close()
    return {
        "schema": SCHEMA,
        "kind": "check",
        "backend": backend.name,
        "probe": backend.probe().detail,
        "settings": {name: setting.default for name, setting in backend.settings.items()},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": collect.versions(),
        "machine": host.box(),
        "engine": described,
        "results": [dataclasses.asdict(result) for result in results],
        **{outcome: count(results, outcome) for outcome in ("passed", "failed", "skipped")},
    }
