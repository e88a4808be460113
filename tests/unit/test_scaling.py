"""The model of an update's time on N ranks: its limits, and the cases that docs/scaling.md holds it against."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st


def load() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "scaling.py"
    spec = importlib.util.spec_from_file_location("scaling", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling"] = module
    spec.loader.exec_module(module)
    return module


scaling = load()


def test_two_boxes_each_send_everything_once() -> None:
    assert scaling.ring(2, 438e6, 0.946e9 / 8, 0.0) == pytest.approx(3.70, abs=0.01)
    assert scaling.ring(1, 438e6, 1.0, 1.0) == 0.0


@given(st.integers(1, 9), st.floats(0.01, 10), st.floats(1e6, 1e9), st.floats(1e7, 1e11), st.floats(0, 1e-3))
def test_more_boxes_take_longer_and_at_most_twice_the_bytes(
    power: int, compute: float, size: float, rate: float, latency: float
) -> None:
    ranks = 2**power
    here, more = (scaling.update(n, compute, size, 2, 0.1, rate, latency) for n in (ranks, 2 * ranks))
    assert compute <= here <= more
    assert more <= compute + 0.1 + 2 * size / rate + 2 * ranks * latency + 1e-9


def test_the_table_has_a_row_for_each_number_of_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    scaling.main("--compute 2.56 --megabytes 438 --local 2 --local-seconds 0.068 --gbit 10 --ranks 1,2,512".split())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].split()[:2] == ["2", "2.628"]
    assert lines[3].split()[1] == "3.341"
