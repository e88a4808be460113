"""The record's figures: measured values, totals and per device, and null for what is not known."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.distributed.world import World
from bertkit.engine.interface import Peak
from bertkit.records.collect import (
    energy,
    environment,
    git_state,
    number,
    peak_memory,
    percentiles,
    settings,
    throughput,
    times,
    versions,
)
from bertkit.records.energy import Energy, nothing
from bertkit.records.host import memory_bytes
from bertkit.records.meter import Reading
from conftest import ROOT

READING = Reading(
    updates=9, sequences=80, tokens=2000, slots=4000, flops=6e9, seconds=4.0, waiting_for_data=0.5, warmup_seconds=1.0,
    whole_sequences=90, whole_seconds=7.5, pauses={"evaluation": 2.5, "checkpoint": 0.25},
)  # fmt: skip


def test_percentiles_by_nearest_rank() -> None:
    assert percentiles([15, 20, 35, 40, 50], (5, 30, 40, 50, 100)) == {
        "p5": 15.0, "p30": 20.0, "p40": 20.0, "p50": 35.0, "p100": 50.0,
    }  # fmt: skip
    hundred = [float(value) for value in range(100, 0, -1)]
    assert percentiles(hundred) == {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p100": 100.0}
    assert percentiles([7.0]) == dict.fromkeys(("p50", "p90", "p95", "p99", "p100"), 7.0)


def test_percentiles_of_nothing_are_null() -> None:
    assert percentiles([]) == dict.fromkeys(("p50", "p90", "p95", "p99", "p100"))


@given(st.lists(st.integers(0, 99_999), min_size=1, max_size=200), st.integers(1, 100))
def test_a_percentile_is_the_least_value_that_so_many_do_not_exceed(values: list[int], p: int) -> None:
    found = percentiles(values, (p,))[f"p{p}"]
    assert found in values
    assert found is not None
    assert 100 * sum(value <= found for value in values) >= p * len(values)
    assert 100 * sum(value < found for value in values) < p * len(values)


@given(st.none() | st.floats() | st.integers(-(10**300), 10**300))
def test_a_number_is_finite_or_null(value: float | None) -> None:
    found = number(value)
    if value is None or not math.isfinite(value):
        assert found is None
    else:
        assert found is not None
        assert math.isfinite(found)
        assert math.isclose(found, value, rel_tol=1e-5, abs_tol=1e-320)
    assert "NaN" not in json.dumps(found, allow_nan=False)


def test_a_number_has_six_digits() -> None:
    assert (number(123456.789), number(1.23456789e-7), number(0.0), number(3)) == (123457.0, 1.23457e-07, 0.0, 3.0)


def test_rates_are_totals_and_per_device() -> None:
    made = throughput(READING, Peak(1e9, "by formula"), World(0, 2, 0, 2))
    assert made["sequences_per_second"] == 20
    assert made["sequences_per_second_per_device"] == 10
    assert made["tokens_per_second"] == 500
    assert made["tokens_per_second_per_device"] == 250
    assert made["padding_efficiency"] == 0.5
    assert made["model_flops_per_second"] == 1.5e9
    assert made["mfu"] == 0.75
    assert (made["peak_flops_per_device"], made["peak_source"]) == (1e9, "by formula")
    assert made["counted"] == {"updates": 9, "sequences": 80, "tokens": 2000, "slots": 4000}
    assert made["seconds"] == 4.0
    assert made["sequences_per_second_whole"] == 90 / 7.5  # with warm-up, evaluations and checkpoints
    assert made["sequences_per_second_core"] == number(80 / 3.5)  # without waiting for data


def test_rates_of_no_time_are_null_not_zero() -> None:
    made = throughput(Reading(0, 0, 0, 0, 0.0, 0.0, 0.0), Peak(1e9, ""), World())
    rates = [name for name in made if "per_second" in name] + ["mfu", "padding_efficiency"]
    assert len(rates) == 9
    assert [made[name] for name in rates] == [None] * 9
    json.dumps(made, allow_nan=False)


@pytest.mark.parametrize("peak", [float("nan"), float("inf"), 0.0])
def test_without_a_known_peak_there_is_no_utilisation(peak: float) -> None:
    made = throughput(READING, Peak(peak, "unknown"), World())
    assert made["mfu"] in (None, 0.0)
    assert made["mfu"] is None or math.isinf(peak)
    assert made["sequences_per_second"] == 20
    json.dumps(made, allow_nan=False)


def test_times_name_the_pauses() -> None:
    made = times(READING, World(), [0.1, 0.3, 0.2], "an update", 9.0)
    assert (made["training_seconds"], made["warmup_seconds"], made["whole_seconds"]) == (4.0, 1.0, 7.5)
    assert made["waiting_for_data_seconds"] == 0.5
    assert (made["evaluation_seconds"], made["checkpoint_seconds"]) == (2.5, 0.25)
    assert made["step_seconds"]["p50"] == 0.2
    assert made["step_seconds"]["p100"] == 0.3
    assert made["steps_timed"] == 3
    assert made["training_seconds_of_all_legs"] == 9.0


def test_one_rank_exchanges_nothing_and_several_may_not_know() -> None:
    alone = times(READING, World(), [], "an update")
    assert (alone["communication_seconds"], alone["compute_seconds"]) == (0.0, 3.5)
    silent = times(READING, World(size=2), [], "an update")
    assert (silent["communication_seconds"], silent["compute_seconds"]) == (None, None)
    told = times(dataclasses.replace(READING, communication=1.5), World(size=2), [], "an update")
    assert (told["communication_seconds"], told["compute_seconds"]) == (1.5, 2.0)


def test_unknown_energy_is_null_and_known_energy_says_of_what() -> None:
    assert energy(READING, nothing("no counters")) == {
        "joules": None, "seconds": None, "sequences": None, "scope": None, "source": "not read: no counters",
    }  # fmt: skip
    found = Energy(lambda: 0.0, "CPU packages", "RAPL")
    made = energy(dataclasses.replace(READING, joules=400.0), found)
    assert made == {
        "joules": 400.0, "seconds": 4.0, "sequences": 80, "scope": "CPU packages", "source": "RAPL",
    }  # fmt: skip


def test_peak_memory_is_that_of_the_rank_that_needed_most() -> None:
    assert peak_memory(5, lambda rows: np.array([*rows, 7.0, 3.0])) == 7
    assert peak_memory(5, lambda rows: np.array([*rows, np.nan])) is None
    assert peak_memory(None, lambda rows: rows) is None


def test_a_folder_outside_a_checkout_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "bertkit").mkdir()
    assert git_state(tmp_path / "bertkit") is None
    (tmp_path / ".git").mkdir()  # there, but no repository
    assert git_state(tmp_path / "bertkit") is None


def test_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path / "bertkit") is None


def test_a_checkout_says_commit_and_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@b")
    folder = tmp_path / "bertkit"
    folder.mkdir()
    (folder / "a.py").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True, capture_output=True)
    state = git_state(folder)
    assert state is not None
    assert len(state["commit"]) == 40
    assert state["changed"] is False
    (folder / "b.py").write_text("untracked")
    assert git_state(folder) == state
    (folder / "a.py").write_text("2")
    assert git_state(folder) == {"commit": state["commit"], "changed": True}


def test_versions_and_memory() -> None:
    found = versions()
    assert {"bertkit", "python", "numpy"} <= set(found)
    assert all(text[0].isdigit() for text in found.values())
    memory = memory_bytes()
    assert memory is None or memory > 2**20


def test_settings_say_where_what_is_no_default_comes_from() -> None:
    made = settings({"a": 1, "b": 2}, {"a": "default", "b": "--set"})
    assert made == {"config": {"a": 1, "b": 2}, "config_sources": {"b": "--set"}}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_a_record_names_the_commit_of_the_checkout_that_made_it() -> None:
    asked = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert environment(World())["git"]["commit"] == asked.stdout.strip()
