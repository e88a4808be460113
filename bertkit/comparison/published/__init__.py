"""The figures that the reference systems' documents print, as data, so that a run can stand beside them.

`figures("gaudi2")` gives those of one machine, each with what keeps it from being compared. Ratios that the documents
print beside their figures (speed-up, scaling) are left out: they follow from the figures. A number of two cells is
found in `figures.tsv` by its `row`: the line of the source's table that its figures share.

    for name in "nvidia-a100,gaudi2".split(","):
        for figure in figures(name, task="squad", metric="sequences_per_second"):
            print(figure.system, figure.devices, figure.precision, figure.value, *figure.caveats)
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bertkit.errors import UserError, nearest
from bertkit.files.packaged import packaged_table, packaged_text

UNITS: Mapping[str, str] = {
    "accuracy": "fraction",
    "exact_match": "%",
    "f1": "%",  # of GLUE's tasks a fraction, as bertkit's own metrics have it
    "latency_milliseconds": "ms",
    "loss": "nats",
    "mlm_accuracy": "fraction",
    "peak_memory_gb_per_device": "GB",
    "samples_to_accuracy": "sequences",
    "scaling": "ratio",
    "seconds_per_update": "s",
    "seconds_to_accuracy": "s",
    "sequences_per_second": "sequences/s",
    "speed_over_fp32": "ratio",
    "train_seconds": "s",
    "watts_per_device": "W",
}
SERVED: Mapping[str, int] = {"served": 1, "served-together": 9}  # caveat -> requests in flight


@dataclass(frozen=True)
class PublishedSystem:
    """A machine that figures were published for."""

    name: str
    title: str
    aliases: tuple[str, ...]  # other names that mean it, alone or with others


@dataclass(frozen=True)
class SystemSummary:
    """What stands under a machine's names."""

    names: tuple[str, ...]  # its own first; one that several machines share means all of them
    title: str
    figures: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Document:
    """Where figures stand."""

    name: str
    title: str
    url: str
    batch_means: str


@dataclass(frozen=True)
class PublishedFigure:
    """One published number and all that is known of how it came about; None and "" where the source does not say."""

    row: int  # figures of one row of a source's table share it
    document: Document
    system: PublishedSystem
    machine: str  # as "32 x DGX A100"
    devices: int | None  # of the whole system; the value is for all of them
    kind: str  # train or infer
    task: str
    model: str
    seq_length: int | None
    batch: int | None  # what it counts: document.batch_means
    accumulation: int | None
    global_batch: int | None  # sequences of one update or call over all devices
    precision: str
    metric: str  # as in bertkit's records where they have it
    value: float
    unit: str
    printed: str  # the source's own digits and unit
    runs: int | None  # that the value is the mean or the best of
    deviation: float | None
    low: float | None
    high: float | None
    each: tuple[float, ...]  # every run's value, where they are published
    detail: str
    caveats: tuple[str, ...]  # what keeps it from being compared with a run of bertkit's
    served: int  # requests in flight at a server; 0: computed without one
    padded: bool  # whether every row was computed at the whole length

    @property
    def per_device(self) -> float | None:
        """Of a rate: the share of one device."""
        return self.value / self.devices if self.devices and self.unit == "sequences/s" else None

    @property
    def source(self) -> str:
        return f"{self.document.title} ({self.document.url})"


@functools.cache
def systems() -> Mapping[str, PublishedSystem]:
    """Name -> machine, all there are."""
    return {
        name: PublishedSystem(name, raw["title"], tuple(raw["aliases"]))
        for name, raw in packaged_table("comparison", "published", "systems.toml").items()
    }


@functools.cache
def documents() -> Mapping[str, Document]:
    """Name -> document, all there are."""
    found = packaged_table("comparison", "published", "documents.toml")
    return {name: Document(name, raw["title"], raw["url"], raw["batch"]) for name, raw in found.items()}


@functools.cache
def every_figure() -> tuple[PublishedFigure, ...]:
    """All figures, in the order of their sources."""
    caveats = packaged_table("comparison", "published", "caveats.toml")
    text = packaged_text("comparison", "published", "figures.tsv")
    rows = csv.DictReader(text.splitlines(), dialect=csv.excel_tab, quoting=csv.QUOTE_NONE)
    return tuple(_figure(row, caveats) for row in rows)


def figures(name: str, *, kind: str = "", task: str = "", metric: str = "") -> tuple[PublishedFigure, ...]:
    """The figures of the machine, or machines, that `name` means; of one kind, task or metric where one is given.

    Raises UserError for a name that means none, naming the nearest.
    """
    meant = {system.name for system in named(name)}
    wanted = {"kind": kind, "task": task, "metric": metric}
    return tuple(
        figure
        for figure in every_figure()
        if figure.system.name in meant and all(getattr(figure, key) == value for key, value in wanted.items() if value)
    )


def listing() -> list[SystemSummary]:
    """All machines, in the order of their file."""
    found = []
    for system in systems().values():
        own = figures(system.name)
        tasks = tuple(dict.fromkeys(figure.task for figure in own if figure.task))
        found.append(SystemSummary((system.name, *system.aliases), system.title, len(own), tasks))
    return found


def named(name: str) -> tuple[PublishedSystem, ...]:
    """The machines that a name or alias means. Raises UserError where it means none."""
    word = name.strip().lower()
    found = tuple(system for system in systems().values() if word == system.name or word in system.aliases)
    if not found:
        cure = f"{nearest(word, _names(systems().values()))}; bertkit compare --published list names all"
        raise UserError(f"no figures are published under {name!r}", cure)
    return found


def _names(known: Iterable[PublishedSystem]) -> list[str]:
    return sorted({name for system in known for name in (system.name, *system.aliases)})


def _figure(row: Mapping[str, str], caveats: Mapping[str, str]) -> PublishedFigure:
    metric, task = row["metric"], row["task"]
    return PublishedFigure(
        row=int(row["row"]),
        document=documents()[row["document"]],
        system=systems()[row["system"]],
        machine=row["machine"],
        devices=_whole(row["devices"]),
        kind=row["kind"],
        task=task,
        model=row["model"],
        seq_length=_whole(row["seq_length"]),
        batch=_whole(row["batch"]),
        accumulation=_whole(row["accumulation"]),
        global_batch=_whole(row["global_batch"]),
        precision=row["precision"],
        metric=metric,
        value=float(row["value"]),
        unit=unit(metric, task),
        printed=row["printed"],
        runs=_whole(row["runs"]),
        deviation=_number(row["deviation"]),
        low=_number(row["low"]),
        high=_number(row["high"]),
        each=tuple(float(part) for part in row["each"].split()),
        detail=row["detail"],
        caveats=tuple(caveats[key] for key in row["caveats"].split()),
        served=next((SERVED[key] for key in row["caveats"].split() if key in SERVED), 0),
        padded="padded" in row["caveats"].split(),
    )


def unit(metric: str, task: str) -> str:
    """The unit of a metric; several share one name with an ending, as latency's percentiles do."""
    if metric == "f1" and task != "squad":
        return "fraction"
    return next(unit for name, unit in UNITS.items() if metric.startswith(name))


def _whole(text: str) -> int | None:
    return int(text) if text else None


def _number(text: str) -> float | None:
    return float(text) if text else None
