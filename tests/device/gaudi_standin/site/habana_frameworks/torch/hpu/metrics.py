"""Counters of the bridge: compilations, ops that went to the host, recipe cache. Times are nominal, one unit each."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from habana_frameworks import _sim


class MetricNotFound(Exception):
    pass


class Metric:
    """Counts from the moment it is made until it is stopped."""

    kind = ""
    title = ""

    def __init__(self) -> None:
        self.total = 0
        self.names: Counter[str] = Counter()
        _sim.listeners.append(self._hear)

    def _hear(self, kind: str, name: str, detail: list[str], number: int) -> None:
        if kind == self.kind:
            self.total += 1
            self.names[name.removeprefix("aten::")] += 1

    def name(self) -> str:
        return self.title

    def stats(self) -> list[tuple[str, Any]]:
        return [("TotalNumber", self.total)]

    def reset(self) -> None:
        self.total = 0
        self.names.clear()

    def stop(self) -> None:
        if self._hear in _sim.listeners:
            _sim.listeners.remove(self._hear)


class GraphCompilation(Metric):
    kind, title = "compile", "graph_compilation"

    def stats(self) -> list[tuple[str, Any]]:
        return [("TotalNumber", self.total), ("TotalTime", self.total), ("AvgTime", 1.0 if self.total else 0)]


class CpuFallback(Metric):
    kind, title = "fallback", "cpu_fallback"

    def stats(self) -> list[tuple[str, Any]]:
        return [("TotalNumber", self.total), ("FallbackOps", dict(self.names))]


class MemoryDefragmentation(Metric):
    kind, title = "never", "memory_defragmentation"

    def stats(self) -> list[tuple[str, Any]]:
        return [("TotalNumber", 0), ("TotalSuccessful", 0), ("AvgTime", 0), ("MaxTime", 0)]


class RecipeCache(Metric):
    kind, title = "compile", "recipe_cache"

    def stats(self) -> list[tuple[str, Any]]:
        return [("TotalHit", 0), ("RecipeHit", {}), ("TotalMiss", self.total), ("RecipeMiss", dict(self.names))]


_kinds: dict[str, type[Metric]] = {m.title: m for m in (GraphCompilation, CpuFallback, MemoryDefragmentation)}
if os.environ.get("PT_HPU_ENABLE_CACHE_METRICS", "0").lower() in ("1", "true", "yes", "on"):
    _kinds[RecipeCache.title] = RecipeCache
_global = {title: kind() for title, kind in _kinds.items()}


def metric_global(name: str) -> Metric | None:
    return _global.get(name)


@contextmanager
def metric_localcontext(name: str) -> Iterator[Metric]:
    if name not in _kinds:
        raise MetricNotFound(f"Metric with given name ({name}) doesn't exist.")
    metric = _kinds[name]()
    try:
        yield metric
    finally:
        metric.stop()


def metrics_dump(file_name: str, format: Any = None) -> None:
    with open(file_name, "w") as file:
        json.dump([{"metric_name": m.name(), "statistics": dict(m.stats())} for m in _global.values()], file)
