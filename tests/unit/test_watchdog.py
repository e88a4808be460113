"""A rank that waits too long ends itself with one line; one that does not, lives on."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from bertkit.distributed.watchdog import Watchdog
from conftest import ROOT

HANGS = """
import time
from bertkit.distributed.watchdog import Watchdog
dog = Watchdog(3, 0.4)
dog.place = "at update 7"
for pause in {pauses}:
    with dog.waiting("in a sum"):
        time.sleep(pause)
print("lived")
"""


def started(pauses: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HANGS.format(pauses=pauses)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_a_wait_that_is_too_long_ends_the_process() -> None:
    start = time.monotonic()
    done = started("(0.1, 30)")
    assert done.returncode == 75
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "bertkit: rank 3 has waited 0.4 s for the other ranks at update 7 in a sum; one of them hangs or the "
        "network is cut; see what the other ranks said, or raise ranks.timeout"
    ]
    assert time.monotonic() - start < 15


def test_many_short_waits_are_no_long_one() -> None:
    done = started("(0.1,) * 12")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lived\n", "")


def test_each_thread_has_a_wait_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    left: list[int] = []
    over = threading.Event()
    dog = Watchdog(0, 0.2, lambda code: (left.append(code), over.set()))

    def wait() -> None:
        with dog.waiting("for b"):
            over.wait(10)

    with dog.waiting("for a"):
        other = threading.Thread(target=wait)
        other.start()
    other.join()  # its wait goes on when this thread's is over
    assert left == [75]
    assert "for b" in capsys.readouterr().err
    dog.close()


def test_no_thread_before_the_first_wait_and_none_after_the_end() -> None:
    before = threading.active_count()
    dog = Watchdog(0, 100.0)
    assert threading.active_count() == before
    with dog.waiting("for nothing"):
        assert threading.active_count() == before + 1
    dog.close()
    assert threading.active_count() == before
    Watchdog(0, 1.0).close()
