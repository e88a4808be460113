"""`bertkit compare`: how seeds become one figure, what is held against what, and that a gap stays a gap."""

from __future__ import annotations

import csv
import io
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.comparison.comparison import Comparison, compare
from bertkit.comparison.entries import entry
from bertkit.comparison.figures import GAP, Spread, against, as_ratio, spread, with_spread
from bertkit.comparison.files import to_csv, to_mapping
from bertkit.comparison.tables import all_tables
from bertkit.errors import UserError
from bertkit.records.files import Record, sealed
from made_records import evaluations, record


def compared(*records: tuple[str, dict[str, Any]], **how: Any) -> Comparison:
    """(folder, record) each."""
    return compare([entry(Record(sealed(made), Path(name, "record.json"))) for name, made in records], **how)


def cells(made: Comparison, title: str) -> dict[str, dict[str, str]]:
    """A table's cells by row and heading; of two equal headings the first."""
    table = next(table for table in all_tables(made) if table.title.startswith(title))
    return {row[0]: dict(reversed(list(zip(table.headings, row, strict=True)))) for row in table.rows}


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20))
def test_a_spread_is_mean_deviation_and_n(values: list[float]) -> None:
    found = spread([None, *values, float("nan")])
    assert found is not None
    assert found.n == len(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert found.sd == pytest.approx(statistics.stdev(values), abs=1e-6)


def test_a_single_seed_has_no_deviation_and_no_seed_no_figure() -> None:
    assert spread([0.5]) == Spread(0.5, None, 1)
    assert spread([]) is None
    assert spread([None, float("inf")]) is None
    assert with_spread(None) == GAP


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (Spread(61.34, 1.43, 3), "61.3 ± 1.4"),
        (Spread(3247.2, 75.8, 3), "3,247 ± 76"),
        (Spread(112.1, 0.0689, 2), "112 ± 0.07"),
        (Spread(0.0123, 0.0, 2), "0.0123 ± 0.0000"),
        (Spread(2e-7, 1e-9, 2), "2e-07 ± 1e-09"),
    ],
)
def test_a_deviation_has_the_decimals_of_its_mean(found: Spread, text: str) -> None:
    assert with_spread(found) == text


def test_a_difference_that_the_spread_explains_is_marked() -> None:
    near = against(Spread(105, 4, 3), Spread(100, 2, 3))
    far = against(Spread(110, 4, 3), Spread(100, 2, 3))
    alone = against(Spread(101, None, 1), Spread(100, None, 1))
    assert [as_ratio(one) for one in (near, far, alone)] == ["≈1.05×", "1.10×", "1.01×"]
    assert as_ratio(against(Spread(1, None, 1), Spread(0, None, 1))) == GAP
    assert against(None, Spread(1, None, 1)) is None


def test_runs_that_differ_in_the_seed_alone_are_one_system() -> None:
    scores = (0.80, 0.84, 0.91)
    runs = [
        (f"runs/mrpc-seed{seed}", record(seed=seed, rate=99.0 + seed, metrics={"accuracy": score}))
        for seed, score in enumerate(scores, 1)
    ]
    made = compared(*runs, ("runs/other", record(facts={"clip_norm": 2.0})))
    assert [system.name for system in made.systems] == ["mrpc", "other"]
    assert made.systems[0].spread("metric.accuracy") == Spread(
        pytest.approx(statistics.fmean(scores)), pytest.approx(statistics.stdev(scores)), 3
    )
    row = cells(made, "Results")["mrpc"]
    assert row["accuracy"] == "0.8500 ± 0.0557"
    assert row["n"] == "3"
    shown = str(all_tables(made))
    assert "0.91" not in shown, "the best seed is not the score"
    assert cells(made, "Speed")["mrpc"]["sequences/s"] == "101 ± 1"


def test_a_single_seed_is_marked() -> None:
    table = next(table for table in all_tables(compared(("a", record()))) if table.title == "Results")
    assert table.notes[0].startswith("n = 1: a single seed")


@pytest.mark.parametrize(
    "change",
    [
        {"precision": {"name": "bf16"}},
        {"backend": {"name": "another"}},
        {"devices": 2},
        {"facts": {"hidden_dropout": 0.0}},
        {"config": {"seed": 2, "model.layout": "padded"}},
    ],
)
def test_whatever_else_differs_is_another_system(change: dict[str, Any]) -> None:
    assert len(compared(("a", record(seed=1)), ("b", record(**({"seed": 2} | change)))).systems) == 2


def test_places_and_paths_do_not_make_another_system() -> None:
    one = record(seed=1, config={"seed": 1, "data.dir": "/here", "output": "a", "log.every": 10})
    two = record(seed=2, config={"seed": 2, "data.dir": "/there", "output": "b", "log.every": 1})
    assert len(compared(("a", one), ("b", two)).systems) == 1


def test_of_several_workers_the_mean_is_the_score_and_not_the_best() -> None:
    seeds = [
        {"seed": seed, "metrics": {"accuracy": score}, "folder": None, "shard": None}
        for seed, score in ((1, 0.7), (2, 0.9))
    ]
    chosen = {"of": 2, "seed": 2, "metric": "accuracy", "mean": 0.8, "standard_deviation": 0.14, "note": ""}
    made = compared(("a", record(metrics={"accuracy": 0.9}, seeds=seeds, selected=chosen)), ("b", record(rate=50.0)))
    assert cells(made, "Results")["a"]["accuracy"].startswith("0.8000 ± ")
    assert any("best of 2" in mark for mark in made.marks)


def test_ratios_are_against_the_baseline_total_and_a_device() -> None:
    made = compared(("a", record(rate=100.0)), ("b", record(rate=300.0, devices=4)), baseline="a")
    speed = next(table for table in all_tables(made) if table.title == "Speed")
    assert speed.rows[1][1:5] == ("300", "3.00×", "75.0", "0.75×")
    assert speed.rows[0][1:5] == ("100", "1", "100", "1")
    turned = compared(("a", record(rate=100.0)), ("b", record(rate=300.0, devices=4)), baseline="b")
    assert next(table for table in all_tables(turned) if table.title == "Speed").rows[0][2] == "0.33×"


def test_a_baseline_that_is_none_is_an_error_with_the_nearest() -> None:
    runs = ("mrpc-cpu", record()), ("mrpc-chip", record(rate=50.0, devices=2))
    with pytest.raises(UserError, match="mrpc-chip"):
        compared(*runs, baseline="mrpc-chop")
    with pytest.raises(UserError, match="several systems"):
        compared(*runs, baseline="mrpc")
    assert compared(*runs, baseline="chip").baseline.name == "mrpc-chip"


def test_what_a_record_lacks_stays_a_gap() -> None:
    made = compared(("a", record()), ("b", record(rate=None, metrics={"accuracy": 0.7}, devices=2, losses=())))
    results = cells(made, "Results")
    assert results["b"]["f1"] == GAP
    assert results["b"]["last loss"] == GAP
    assert cells(made, "Speed")["b"]["sequences/s"] == GAP
    figures = to_mapping(made)["systems"][1]["figures"]
    assert figures["metric.f1"] is None
    assert figures["sequences_per_second"] is None
    rows = list(csv.DictReader(io.StringIO(to_csv(made))))
    empty = next(row for row in rows if (row["system"], row["figure"]) == ("b", "metric.f1"))
    assert empty["mean"] == empty["ratio"] == empty["n"] == ""


def test_a_metric_that_one_seed_lacks_says_of_how_many_it_is() -> None:
    made = compared(("a1", record()), ("a2", record(seed=2, metrics={"accuracy": 0.7})), ("b", record(devices=2)))
    assert cells(made, "Results")["a"]["f1"] == "0.8500 (n = 1)"


def test_a_record_without_a_metric_that_others_have_is_named() -> None:
    less = record(metrics={"accuracy": 0.8}, devices=2)
    other_task = record(metrics={"mcc": 0.5}, facts={"task": "cola"})
    made = compared(("a", record()), ("b", less), ("c", other_task))
    assert made.marks == ["b: has no f1, which others of its task have"]
    assert compared(("a", record()), ("b", record(metrics={}, devices=2))).marks == [], "what is not scored is no gap"


def test_scaling_is_the_rate_a_device_against_that_of_the_fewest() -> None:
    runs = [
        (f"n{devices}", record(devices=devices, rate=rate, facts={"global_batch": 32 * devices}))
        for devices, rate in ((4, 320.0), (1, 100.0), (2, 190.0))
    ]
    other = ("padded", record(devices=8, rate=1.0, hardware={"engine": {"layout": "padded"}}))
    (family,) = compared(*runs, other).families
    assert [(point.devices, point.efficiency) for point in family.points] == [
        (1, 1.0), (2, pytest.approx(0.95)), (4, pytest.approx(0.8)),
    ]  # fmt: skip
    assert family.batch == "the same on each device"
    strong = compared(*((f"n{n}", record(devices=n, rate=10.0 * n)) for n in (1, 2)))
    assert strong.families[0].batch == "the same over all devices"


def test_time_and_energy_are_told_to_a_score_that_all_reached() -> None:
    power = {"joules": 500.0, "seconds": 10.0, "source": "a meter"}
    quick = record(evaluations=evaluations((10, 1.0, 0.6), (20, 2.0, 0.9)), energy=power)
    slow = record(devices=2, evaluations=evaluations((10, 4.0, 0.5), (20, 8.0, 0.7)))
    race = compared(("quick", quick), ("slow", slow)).race
    assert race is not None
    assert race.target == 0.7
    assert [one.seconds.mean if one.seconds else None for one in race.systems] == [2.0, 8.0]
    assert race.systems[0].joules == Spread(100.0, None, 1)
    assert race.systems[1].joules is None, "no counter, no energy"
    higher = compared(("quick", quick), ("slow", slow), target=0.85).race
    assert higher is not None
    assert [(one.reached, one.of) for one in higher.systems] == [(1, 1), (0, 1)]
    assert higher.systems[1].seconds is None


def test_without_evaluations_on_the_way_there_is_no_race() -> None:
    assert compared(("a", record())).race is None


def test_names_are_distinct_whatever_the_folders_are_called() -> None:
    runs = [("x/run", record()), ("y/run", record(devices=2)), ("y/run2", record(precision={"name": "bf16"}))]
    names = [system.name for system in compared(*runs).systems]
    assert len(set(names)) == 3
    twice = compared(("x/run", record()), ("y/run", record(facts={"clip_norm": 0.5})))
    assert [system.name for system in twice.systems] == ["x/run", "y/run"]


def test_nothing_to_compare_is_an_error() -> None:
    with pytest.raises(UserError, match="no record"):
        compare([])
