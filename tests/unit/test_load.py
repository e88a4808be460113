"""The load generator: how many are in flight, from when a latency counts, what is counted, and that seeds repeat."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.bench.load import Sent, Timed, arrivals, closed_loop, measured, open_loop


def nothing() -> None:
    pass


class Server:
    """Takes `seconds` for each request, at most `at_once` at a time; `stall`: the first takes longer by that."""

    def __init__(self, seconds: float, at_once: int = 1000, stall: float = 0.0) -> None:
        self.seconds, self.stall = seconds, stall
        self.slots = threading.Semaphore(at_once)
        self.lock = threading.Lock()
        self.inside = self.most = 0
        self.numbers: list[int] = []

    def send(self, number: int) -> Sent:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
            self.numbers.append(number)
        with self.slots:
            time.sleep(self.seconds + (self.stall if number == 0 else 0.0))
        with self.lock:
            self.inside -= 1
        return Sent()


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_closed_loop_has_so_many_in_flight(concurrency: int) -> None:
    server = Server(0.02)
    made = closed_loop(server.send, concurrency, 0.3, nothing)
    assert server.most == concurrency
    assert sorted(server.numbers) == list(range(len(made)))
    assert all(one.due == one.start for one in made)
    assert all(one.latency >= 0.02 for one in made)
    assert 3 * concurrency <= len(made) <= 16 * concurrency
    assert max(one.done for one in made) >= 0.3


def test_an_open_loop_sends_whatever_is_in_flight() -> None:
    server = Server(0.2)
    made = open_loop(server.send, np.arange(10) * 0.01, nothing)
    assert server.most == 10
    assert len(made) == 10
    assert max(one.latency for one in made) < 0.4


def test_a_stall_is_in_the_latency_of_all_that_were_due_meanwhile() -> None:
    """The server does one thing at a time and stalls at the first: a closed loop of one sees one slow request, an open
    loop sees the wait of each that was due during the stall."""
    closed = closed_loop(Server(0.001, 1, stall=0.3).send, 1, 0.5, nothing)
    assert sum(one.latency > 0.05 for one in closed) <= 2
    due = np.arange(40) * 0.01
    opened = open_loop(Server(0.001, 1, stall=0.3).send, due, nothing)
    assert sum(one.latency > 0.05 for one in opened) >= 20
    by_number = sorted(opened, key=lambda one: one.number)
    assert [one.due for one in by_number] == pytest.approx(due)
    assert by_number[0].latency >= 0.3
    assert by_number[10].latency == pytest.approx(0.2, abs=0.09)


def test_ctrl_c_ends_an_open_loop_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = time.sleep, []

    def sleep(seconds: float) -> None:
        calls.append(seconds)
        if threading.current_thread() is threading.main_thread() and seconds > 5:
            raise KeyboardInterrupt
        real(seconds)

    monkeypatch.setattr("bertkit.bench.load.time.sleep", sleep)
    server, start = Server(0.05, 1), time.perf_counter()
    monkeypatch.setattr("bertkit.bench.load.MOST_WAITING", 1)
    with pytest.raises(KeyboardInterrupt):
        open_loop(server.send, [*([0.0] * 50), 60.0], nothing)
    assert time.perf_counter() - start < 2
    assert len(server.numbers) < 5


def test_a_client_that_is_late_itself_counts_its_lateness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertkit.bench.load.MOST_WAITING", 1)
    made = open_loop(Server(0.05).send, [0.0, 0.0, 0.0, 0.0], nothing)
    assert [round(one.latency, 1) for one in made][-1] >= 0.2
    assert made[-1].start - made[-1].due >= 0.15


@given(rate=st.floats(0.5, 500), seconds=st.floats(0.1, 30), seed=st.integers(0, 2**31))
def test_arrivals_repeat_rise_and_end_in_time(rate: float, seconds: float, seed: int) -> None:
    found = arrivals(rate, seconds, seed)
    assert found.tolist() == arrivals(rate, seconds, seed).tolist()
    assert (np.diff(found) >= 0).all()
    assert not len(found) or (found[0] >= 0 and found[-1] < seconds)


def test_arrivals_are_a_poisson_process() -> None:
    """Gaps of an exponential distribution: mean and deviation are both one over the rate."""
    found = arrivals(100.0, 200.0, 3)
    gaps = np.diff(found)
    assert len(found) == pytest.approx(20_000, rel=0.03)
    assert gaps.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps.std() == pytest.approx(0.01, rel=0.05)
    assert arrivals(100.0, 200.0, 4)[0] != found[0]


def timed(number: int, due: float, done: float, error: str = "") -> Timed:
    return Timed(number, due, due, done, Sent(error))


MADE = [
    timed(0, 0.0, 0.5), timed(1, 0.2, 1.2), timed(2, 1.1, 1.5, "HTTP 429"), timed(3, 1.2, 1.9), timed(4, 1.8, 2.4),
    timed(5, 1.9, 9.0), timed(6, 1.9, 2.1, "HTTP 500"),
]  # fmt: skip


def test_a_closed_loop_counts_what_ended_between_warm_up_and_end() -> None:
    found = measured(MADE, 1.0, 2.0, is_open=False)
    assert [one.number for one in found.counted] == [1, 3]
    assert [one.number for one in found.within] == [1, 3]
    assert found.errors == {"HTTP 429": 1}
    assert found.seconds == 1.0


def test_an_open_loop_counts_all_that_were_due_however_late() -> None:
    found = measured(MADE, 1.0, 2.0, is_open=True)
    assert [one.number for one in found.counted] == [3, 4, 5]
    assert [one.number for one in found.within] == [1, 3]
    assert found.errors == {"HTTP 429": 1, "HTTP 500": 1}
    assert max(one.latency for one in found.counted) == pytest.approx(7.1)
