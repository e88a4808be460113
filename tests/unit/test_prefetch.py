"""`bertkit.training.prefetch`: the same items in the same order, made ahead; errors arrive; nobody is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.training.prefetch import ahead


@given(st.lists(st.integers() | st.none(), max_size=30), st.integers(1, 5))
def test_items_come_in_their_order(items: list[int | None], depth: int) -> None:
    assert list(ahead(items, depth)) == items


def test_only_so_many_are_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    iterator = ahead(items(), depth=3)
    assert next(iterator) == 0
    until = time.monotonic() + 5
    while len(made) < 5 and time.monotonic() < until:  # the one taken, three waiting, one in hand
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 5
    iterator.close()


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    iterator = ahead(items())
    assert [next(iterator), next(iterator)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(iterator)


def test_the_thread_ends_when_the_consumer_goes() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    iterator = ahead(endless())
    next(iterator)
    iterator.close()
    assert not _running()


def test_closing_waits_for_the_item_in_hand() -> None:
    """Or the thread would hold its items' owner, an engine and its connections, when Python ends."""
    begun, done = threading.Event(), threading.Event()

    def slow() -> Iterator[int]:
        yield 1
        begun.set()
        time.sleep(0.2)
        done.set()
        yield 2

    iterator = ahead(slow())
    next(iterator)
    assert begun.wait(5)
    iterator.close()
    assert done.is_set()
    assert not _running()


def test_what_hangs_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertkit.training.prefetch.LEAVING", 0.1)
    hang = threading.Event()

    def hanging() -> Iterator[int]:
        yield 1
        hang.wait(60)

    iterator = ahead(hanging())
    next(iterator)
    iterator.close()
    assert _running()
    hang.set()


def _running() -> bool:
    return any(thread.name == "bertkit-prefetch" for thread in threading.enumerate())
