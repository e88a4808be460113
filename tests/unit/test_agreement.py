"""What ranks must have in common: all see the same error, which names the one that differs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.distributed.consistency import Gather, agree, anybody, gather_json
from bertkit.errors import UserError


def together(size: int, work: Callable[[int, Gather], Any]) -> list[Any]:
    """`work` on so many threads that stand for ranks; what each returned, or the error that it raised."""
    slots: list[Any] = [None] * size
    barrier, results = threading.Barrier(size), [None] * size

    def run(rank: int) -> None:
        def gather(rows: np.ndarray) -> np.ndarray:
            slots[rank] = rows
            barrier.wait(10)
            found = np.concatenate(slots)
            barrier.wait(10)
            return found

        try:
            results[rank] = work(rank, gather)
        except UserError as error:
            results[rank] = error  # type: ignore[call-overload]

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))


@given(st.lists(JSON, min_size=1, max_size=3))
def test_every_rank_has_every_ranks_value(values: list[Any]) -> None:
    found = together(len(values), lambda rank, gather: gather_json(gather, values[rank]))
    assert found == [values] * len(values)


def test_a_difference_is_named_alike_on_every_rank() -> None:
    facts = [{"torch": "2.13.0", "data": "ab"}, {"torch": "2.13.0", "data": "ab"}, {"torch": "2.12.1", "data": "ab"}]
    found = together(3, lambda rank, gather: agree(gather, facts[rank], "install the same"))
    assert len({str(error) for error in found}) == 1
    assert "rank 2 on" in str(found[0])
    assert "torch = '2.12.1'" in str(found[0])
    assert "'2.13.0'; install the same" in str(found[0])


def test_no_difference_is_no_error() -> None:
    assert together(2, lambda rank, gather: agree(gather, {"a": 1.5}, "")) == [None, None]


@pytest.mark.parametrize(("mine", "all_"), [((False, True), True), ((False, False), False)])
def test_anybody(mine: tuple[bool, ...], all_: bool) -> None:
    assert together(2, lambda rank, gather: anybody(gather, mine[rank])) == [all_, all_]
