"""`bertkit compare`: score against size and latency, of students beside their teachers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.comparison.comparison import Comparison, compare
from bertkit.comparison.entries import entry
from bertkit.comparison.figures import GAP
from bertkit.comparison.files import to_mapping
from bertkit.comparison.page import to_html
from bertkit.comparison.tables import all_tables
from bertkit.comparison.trade_off import TradeOff, front
from bertkit.comparison.trade_off_plot import MOST_NAMED, caption, log_ticks, named
from bertkit.records.files import Record, sealed
from made_records import SHA, record

POINTS = st.lists(st.tuples(st.integers(0, 6).map(float), st.integers(0, 6).map(float)), min_size=1, max_size=12)


def student(name: str, size: float, accuracy: float, seconds: float | None, **changes: Any) -> tuple[str, Any]:
    """(folder, record) of a distillation; `size` in millions."""
    told = {
        "teacher": "runs/large/", "teacher_sha256": SHA, "parameters": {"teacher": 110_000_000, "student": size * 1e6},
        "teacher_metrics": {"accuracy": 0.92}, "teacher_dev_seconds": 4.08, "dev_seconds": seconds,
    }  # fmt: skip
    told |= changes.pop("told", {})
    facts = {"parameters": int(size * 1e6)} | changes.pop("facts", {})
    made = {
        "metrics": {"accuracy": accuracy, "agreement": 0.9, "teacher_kl": 0.1},
        "model": {"parameters": int(size * 1e6)},
    }
    return name, record(**(made | {"callbacks": {"distillation": told}, "facts": facts} | changes))


def compared(*records: tuple[str, dict[str, Any]]) -> Comparison:
    return compare([entry(Record(sealed(made), Path(name, "record.json"))) for name, made in records])


def found_in(*records: tuple[str, dict[str, Any]]) -> TradeOff:
    found = compared(*records).trade_off
    assert found is not None
    return found


def members(found: TradeOff) -> dict[str, list[str]]:
    return {one.cost: [found.contenders[at].name for at in one.members] for one in found.fronts}


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(POINTS)
def test_nobody_on_the_front_is_beaten_and_everybody_off_it_is(points: list[tuple[float, float]]) -> None:
    on = front(points)
    for at, point in enumerate(points):
        assert any(beats(other, point) for other in points) == (at not in on)
    assert sorted(set(on)) == sorted(on)
    assert [points[at] for at in on] == sorted(points[at] for at in on)


def test_a_teacher_is_a_point_of_its_own_once() -> None:
    found = found_in(
        student("a-seed1", 14, 0.80, 0.408), student("a-seed2", 14, 0.82, 0.816, seed=2), student("b", 28, 0.79, 1.0),
    )  # fmt: skip
    assert [one.name for one in found.contenders] == ["a", "b", "large (teacher)"]
    a, _, large = found.contenders
    assert a.score.n == 2
    assert a.score.mean == pytest.approx(0.81)
    assert a.parameters is not None
    assert a.parameters.mean == 14.0
    assert a.latency is not None
    assert a.latency.mean == pytest.approx(1.5)
    assert a.latency.sd == pytest.approx(0.5 * 2**0.5)
    assert large.is_teacher
    assert large.latency is not None
    assert large.latency.mean == pytest.approx(10.0)
    assert (large.score.mean, large.score.sd) == (0.92, None)
    assert members(found) == {"parameters": ["a", "large (teacher)"], "dev_example": ["a", "large (teacher)"]}
    other = student("c", 7, 0.7, 0.1, told={"teacher_sha256": "f" * 64})
    names = [one.name for one in found_in(student("a", 14, 0.8, 0.4), other).contenders]
    assert names[2:] == [f"large (teacher {SHA[:8]})", "large (teacher ffffffff)"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hardware": {"hosts": ["other"]}}, "host box, other"),
        ({"precision": {"name": "bf16", "reason": None}}, "precision fp32, bf16"),
        ({"hardware": {"engine": {"threads": "2: asked for"}}}, "threads unknown, 2"),
        ({"devices": 2}, "number of processes 1, 2"),
    ],
)
def test_latencies_of_different_conditions_are_not_drawn(changes: dict[str, Any], said: str) -> None:
    made = compared(student("a", 14, 0.8, 0.4), student("b", 28, 0.9, 0.8, **changes))
    found = made.trade_off
    assert found is not None
    assert list(members(found)) == ["parameters"]
    assert said in caption(found)
    assert any(said in note for table in all_tables(made) for note in table.notes)
    assert sum(said in note for table in all_tables(made) for note in table.notes) == 1


def test_what_cannot_be_drawn_is_not() -> None:
    plain: dict[str, Any] = {"callbacks": {}, "metrics": {"accuracy": 0.8}}
    assert (
        compared(student("a", 14, 0.8, None, **plain), student("b", 14, 0.9, None, devices=2, **plain)).trade_off
        is None
    )
    elsewhere = student("b", 28, 0.9, None, facts={"evaluation_sha256": "f" * 64}, **plain)
    assert compared(student("a", 14, 0.8, None, **plain), elsewhere).trade_off is None, "scores of other examples"
    states = {"teacher_metrics": "lost", "teacher_dev_seconds": "soon", "parameters": None}
    assert compared(student("a", 14, 0.8, 0.4, told=states)).trade_off is None, "callbacks may hold anything"
    found = found_in(student("a", 14, 0.8, 0.4), elsewhere)
    assert found.left_out == ["b"]
    assert "Left out, without accuracy on this dev set: b." in caption(found)


def test_a_smaller_error_is_the_better_score() -> None:
    plain: dict[str, Any] = {"callbacks": {}}
    sizes = [student(f"s{n}", n, 0, None, metrics={"rmse_mm": error}, **plain) for n, error in ((1, 0.3), (2, 0.4))]
    assert members(found_in(*sizes)) == {"parameters": ["s1"]}


def test_a_teacher_that_took_unlike_times_is_named() -> None:
    slow = student("b", 28, 0.9, 0.8, told={"teacher_dev_seconds": 6.12})
    assert "large, 10.0 to 15.0 ms per example" in caption(found_in(student("a", 14, 0.8, 0.4), slow))


def test_tables_and_files_hold_the_figures() -> None:
    teacher = ("large", record(metrics={"accuracy": 0.92}, model={"parameters": 110_000_000}))
    made = compared(teacher, student("a", 14, 0.8, 0.408))
    tables = {
        table.title: [dict(zip(table.headings, row, strict=True)) for row in table.rows] for table in all_tables(made)
    }
    assert [row["parameters (million)"] for row in tables["Systems"]] == ["110", "14.0"]
    assert [row["time for the dev set (s)"] for row in tables["Time, memory, energy"]] == [GAP, "0.408"]
    results = tables["Results"][1]
    assert results["agreement with the teacher"] == "0.9000"
    assert results["KL to the teacher (nats)"] == "0.1000"
    rows = {row["system"]: row for row in tables["Score, size and latency: accuracy"]}
    assert rows["a"]["time per example (ms)"] == "1"
    assert rows["large (teacher)"]["not beaten"] == "by size, by latency"
    assert made.marks == [], "a teacher has no agreement with itself to lack"
    figures = to_mapping(made)["systems"][1]["figures"]
    assert (figures["parameters"]["mean"], figures["parameters"]["unit"]) == (14.0, "million")
    assert to_mapping(made)["trade_off"]["metric"] == "accuracy"


def test_a_page_of_three_students_holds_the_plot() -> None:
    made = compared(*(student(f"s{n}", 7 * n, 0.7 + 0.02 * n, 0.2 * n) for n in (1, 2, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = to_html(made)
    assert page.count('aria-label="accuracy against size and latency"') == 2  # for wide pages and for narrow ones
    assert page.index("<h2>Score, size and latency") < page.index("accuracy against size") < page.index("<h2>Speed")
    plot = page[page.index('aria-label="accuracy against size') : page.index("<h2>Speed")]
    for text in ("s1", "s2", "s3", "large (teacher)", "50", "parameters (million)", "time per example (ms)"):
        assert plot.count(f">{text}</text>") == 2, text


def test_of_many_systems_those_of_a_front_and_teachers_are_named() -> None:
    many = [student(f"s{n:02}", 50 - n, 0.5 if n < 19 else 0.9, 0.4) for n in range(20)]
    found = found_in(*many)
    assert len(named(found)) == MOST_NAMED
    assert {found.contenders[at].name for at in named(found)} >= {"s19", "large (teacher)"}
    assert "Grey: 9 more" in caption(found)


@given(st.floats(1e-3, 1e4), st.floats(1.0, 1e4))
def test_ticks_of_a_logarithmic_axis_lie_within_it(low: float, times: float) -> None:
    ticks = log_ticks(low, low * times)
    assert 2 <= len(ticks) <= 12
    assert all(low <= tick <= low * times for tick in ticks)
