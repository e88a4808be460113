"""The published figures: whole, in known units, and each number where its source has it."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from bertkit.comparison.published import PublishedFigure, documents, every_figure, figures, named, systems
from bertkit.errors import UserError
from conftest import ROOT

FOLDER = ROOT / "bertkit" / "comparison" / "published"
ROWS = 700  # of the tables that the figures were read from; one of them holds no figure
ADDED = {701}  # rows of documents whose figures stand in no table
EMPTY = {646}  # logs that the collection lacks
# cells of a source's row that hold a figure; the rest is what was measured, or a ratio of figures
RESULTS = re.compile(
    r"throughput(?! speedup)|latency|accuracy - |time to train(?! speedup)|final loss|eval_f1|train_runtime|"
    r"train_samples|mean|seed \d|(inf/s|p50|p90|p95|p99|avg|F1)$",
    re.I,
)


def test_names_and_aliases_mean_machines() -> None:
    assert {system.name for system in named("nvidia-a100")} == {
        "nvidia-a100-80gb", "nvidia-a100-40gb", "nvidia-dgx-a100",
    }  # fmt: skip
    assert [system.name for system in named("gaudi2")] == ["habana-gaudi2"]
    assert [system.name for system in named(" BI-V100 ")] == ["iluvatar-bi-v100"]
    assert {figure.system.name for figure in figures("v100")} == {"nvidia-v100-16gb", "nvidia-v100-32gb"}
    with pytest.raises(UserError, match=r"did you mean .*gaudi2"):
        figures("gaudi22")


def test_no_alias_hides_a_machine() -> None:
    for system in systems().values():
        assert named(system.name) == (system,)


def test_a_row_says_all_that_is_known_of_it() -> None:
    (fp16,) = [f for f in figures("nvidia-a100", task="squad", metric="f1") if f.printed == "90.96 %"]
    assert (fp16.devices, fp16.batch, fp16.global_batch, fp16.seq_length) == (8, 32, 256, 384)
    assert (fp16.precision, fp16.model, fp16.value, fp16.unit, fp16.runs) == ("fp16", "large", 90.96, "%", 10)
    assert "the best of ten seeds, printed as the score" in fp16.caveats
    assert fp16.document.batch_means.endswith("before accumulation divides them")
    (rate,) = [f for f in figures("bi-v100", metric="sequences_per_second") if f.printed == "227"]
    assert rate.per_device == pytest.approx(28.375)
    assert rate.seq_length == 512


def test_figures_of_a_server_say_under_which_load() -> None:
    """NVIDIA's tables of Triton: each row with its rate, four percentiles, their mean and F1, and its conditions."""
    served = [figure for figure in every_figure() if figure.served]
    tables = [figure for figure in served if figure.served == 1]
    assert {figure.document.name for figure in tables} == {
        "nvidia-triton-large", "nvidia-triton-6l", "nvidia-triton-4l",
    }  # fmt: skip
    assert {(one.kind, one.task, one.seq_length, one.precision) for one in tables} == {("infer", "squad", 384, "fp16")}
    assert all(one.padded and one.batch in (1, 8, 16) for one in tables if one.metric != "f1")
    assert len({one.row for one in tables}) * 7 == len(tables)
    (p99,) = [
        one for one in figures("nvidia-a30", metric="latency_milliseconds_p99")
        if one.model == "large" and one.batch == 1 and one.detail == "Triton server, TensorRT"
    ]  # fmt: skip
    assert (p99.value, p99.unit) == (5.9, "ms")
    (together,) = [figure for figure in served if figure.served > 1]
    assert (together.served, together.value, together.batch, together.precision) == (9, 1045, 12, "")
    assert together.system.name == "nvidia-a100-40gb"


def test_filters_are_all_kept_to() -> None:
    found = figures("gaudi2", kind="train", task="squad", metric="sequences_per_second")
    assert found
    assert {(f.kind, f.task, f.metric, f.unit) for f in found} == {
        ("train", "squad", "sequences_per_second", "sequences/s")
    }


def test_every_figure_is_within_what_its_metric_can_be() -> None:
    for figure in every_figure():
        top = {"fraction": 1.0, "%": 100.0}.get(figure.unit, float("inf"))
        assert 0 < figure.value <= top, figure
        assert figure.kind in ("train", "infer")
        assert figure.precision in ("", "fp32", "tf32", "bf16", "fp16"), figure
        assert figure.devices is None or figure.devices > 0
        if figure.low is not None and figure.high is not None:
            assert figure.low <= figure.value <= figure.high, figure
        if figure.each:
            assert len(figure.each) == figure.runs
            # some documents print a mean that is off in its last digit
            assert figure.value == pytest.approx(sum(figure.each) / len(figure.each), abs=6.5e-3)


def test_percentiles_of_one_measurement_rise() -> None:
    rows: dict[int, dict[str, float]] = defaultdict(dict)
    for figure in every_figure():
        if figure.metric.startswith("latency_milliseconds_p"):
            rows[figure.row][figure.metric.rpartition("_p")[2]] = figure.value
    falling = [
        row for row, found in rows.items() if sorted(found.values()) != [found[p] for p in sorted(found, key=int)]
    ]
    assert falling == []


def test_every_document_machine_and_caveat_is_used() -> None:
    used = every_figure()
    assert {figure.document.name for figure in used} == set(documents())
    assert {figure.system.name for figure in used} == set(systems())
    caveats = tomllib.loads((FOLDER / "caveats.toml").read_text(encoding="utf-8"))
    assert {caveat for figure in used for caveat in figure.caveats} == set(caveats.values())


def test_every_row_of_the_tables_is_there() -> None:
    assert {figure.row for figure in every_figure()} == (set(range(1, ROWS + 1)) - EMPTY) | ADDED


@pytest.fixture(scope="module")
def tables(real_data: Path) -> list[list[str]]:
    """[source, section, cells] of each row that the figures were read from."""
    path = real_data.parent / "reference" / "published_figures.tsv"
    if not path.exists():
        pytest.skip("the tables that the figures were read from are not here")
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def test_numbers_are_those_of_the_sources(tables: list[list[str]]) -> None:
    assert len(tables) == ROWS
    by_row: dict[int, list[PublishedFigure]] = defaultdict(list)
    for figure in every_figure():
        by_row[figure.row].append(figure)
    for row, (_, section, cells) in enumerate(tables, 1):
        said = set(re.findall(r"\d*\.?\d+", f"{section} {cells}"))
        for figure in by_row[row]:
            digits = re.findall(r"\d*\.?\d+", figure.printed)
            assert set(digits) <= said, (row, figure.printed, cells)
            _check_value(figure)
            if figure.batch:
                assert str(figure.batch) in said, (row, figure.batch, cells)
            if figure.accumulation:
                assert str(figure.accumulation) in said, (row, figure.accumulation, cells)


def _check_value(figure: PublishedFigure) -> None:
    """The value is the printed number, in the metric's unit."""
    number, _, unit = figure.printed.partition(" ")
    if "h" in number:  # 8h53
        hours, minutes = number.split("h")
        assert figure.value == int(hours) * 3600 + int(minutes) * 60
        return
    factor = {"h": 3600.0, "min": 60.0}.get(unit, 1.0)
    if figure.unit == "fraction" and ("%" in figure.printed):
        factor = 0.01
    assert figure.value == pytest.approx(float(number.rstrip("%x")) * factor, rel=1e-9), figure


def test_no_figure_of_the_sources_is_left_out(tables: list[list[str]]) -> None:
    numbers: dict[int, set[str]] = defaultdict(set)
    for figure in every_figure():
        numbers[figure.row] |= set(re.findall(r"\d*\.?\d+", figure.printed))
    checked = 0
    for row, (source, _, cells) in enumerate(tables, 1):
        for cell in cells.split("; "):
            name, value = cell.split("=", 1) if "=" in cell else (cell.rpartition(" ")[0], cell.rpartition(" ")[2])
            number = re.fullmatch(r"[\d.]+", value)
            if number and RESULTS.search(name) and ("=" in cell or "triton" in source) and "seed" not in name.lower():
                assert value in numbers[row], (row, cell)
                checked += 1
    assert checked > 2500
