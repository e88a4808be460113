"""Model-FLOP utilisation is a share of a peak: never above 1, and of the best of several measurements."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bertkit.comparison.comparison import compare
from bertkit.comparison.entries import entry
from bertkit.distributed.world import World
from bertkit.engine.interface import Peak
from bertkit.errors import NO_CAUSE, UserError
from bertkit.records.collect import best_peak, throughput
from bertkit.records.files import load
from bertkit.records.meter import Reading
from made_records import save


def reading(flops: float) -> Reading:
    """One second of work."""
    found = dict.fromkeys(Reading.__dataclass_fields__, 0)
    return Reading(
        **(found | {"seconds": 1.0, "flops": flops, "updates": 3, "sequences": 8, "tokens": 80, "slots": 80})
    )


def test_a_share_of_the_peak() -> None:
    made = throughput(reading(5e9), Peak(10e9, "measured"), World())
    assert (made["mfu"], made["peak_source"]) == (0.5, "measured")


def test_above_the_peak_there_is_no_share_and_a_note() -> None:
    made = throughput(reading(10.7e9), Peak(10e9, "measured"), World())
    assert made["mfu"] is None
    assert made["peak_flops_per_device"] == 10e9
    assert "no MFU: the work ran at 1.07 times this rate" in made["peak_source"]


def test_the_best_of_several_counts() -> None:
    assert best_peak([Peak(3.0, "a"), Peak(5.0, "b"), Peak(4.0, "c")]) == Peak(5.0, "b; best of 3")
    assert best_peak([Peak(math.nan, "none"), Peak(4.0, "c")]) == Peak(4.0, "c")
    assert best_peak([Peak(math.nan, "none")]).source == "none"


@pytest.mark.parametrize(("rates", "said"), [((100e9, 120e9), True), ((100e9, 109e9), False), ((100e9, None), False)])
def test_compare_says_where_one_chips_peaks_differ(rates: tuple[float, float], said: bool, tmp_path: Path) -> None:
    for name, rate in zip(("a", "b"), rates, strict=True):
        save(tmp_path / name, seed=ord(name), throughput={"peak_flops_per_device": rate})
    made = compare([entry(load(tmp_path / name)) for name in ("a", "b")])
    marks = [str(one) for one in made.differences if one.field == "peak_flops"] + list(made.marks)
    assert any("MFU cannot be compared" in mark for mark in marks) is said


def test_no_error_is_without_a_cause() -> None:
    for cause in ("", " ", ";", ": ", "\n"):
        assert str(UserError(cause, "try again")) == f"{NO_CAUSE}; try again"
