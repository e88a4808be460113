"""The boundary of an accumulated graph. In eager mode nothing is accumulated and nothing happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from habana_frameworks import _sim

_closures: list[Callable[[], Any]] = []


def add_step_closure(closure: Callable[..., Any], args: tuple[Any, ...] = ()) -> None:
    _closures.append(lambda: closure(*args))


def _run_step_closures() -> None:
    waiting = list(_closures)
    _closures.clear()
    for closure in waiting:
        closure()


def mark_step(device_str: str = "", sync: bool = False) -> None:
    if not _sim.LAZY:
        return
    _sim.STATE.mark_steps += 1
    if sync:
        _sim.C.host_waits("mark_step")
    _sim.C.graph_ends("mark_step")
    _run_step_closures()


def iter_mark_step(device_str: str = "") -> None:
    mark_step(device_str)


def _mark_step_if_lazy() -> None:
    mark_step()
