"""The compiler's limit of graphs a function: granted to every thread that calls it, once, and to no other."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")
from bertkit_torch.allowance import Allowance  # noqa: E402

LIMIT = "cache_size_limit" if torch.__version__.startswith("2.6.") else "recompile_limit"
NAMES = (LIMIT, f"accumulated_{LIMIT}")


def in_a_thread(do: Callable[[], tuple[int, ...]]) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    thread = threading.Thread(target=lambda: found.append(do()))
    thread.start()
    thread.join()
    return found


def limits() -> tuple[int, ...]:
    from torch._dynamo import config

    return tuple(getattr(config, name) for name in NAMES)


def test_each_thread_is_granted_once() -> None:
    """Backward calls recomputed layers in a thread of its own, whose configuration is its own too (torch 2.12)."""
    (before,), allowance = in_a_thread(limits), Allowance(30)

    def twice() -> tuple[int, ...]:
        allowance.grant()
        allowance.grant()
        return limits()

    assert in_a_thread(twice) == [tuple(limit + 30 for limit in before)]
    after = limits()  # before torch 2.12 there is one configuration for all
    assert in_a_thread(twice) == [tuple(limit + 30 for limit in after)]


def test_engines_of_one_thread_add_up_and_none_asks_for_nothing() -> None:
    def both() -> tuple[int, ...]:
        for graphs in (30, 0, 12):
            Allowance(graphs).grant()
        return limits()

    (before,) = in_a_thread(limits)
    assert in_a_thread(both) == [tuple(limit + 42 for limit in before)]
