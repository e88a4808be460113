"""`bertkit bench` as a user calls it: sane figures, one record a call, one line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertkit.records.files import load_all
from command import start_ranks
from conftest import Run, assert_one_line_error

NULL = ("--backend", "null", "-m", "tiny", "-d", "fp32")
CPU = ("--backend", "cpu", "-m", "tiny", "-d", "fp32")


def check_rates(case: dict[str, Any], processes: int = 1) -> None:
    """What holds of every measured case, whatever the machine."""
    rates = case["throughput"]
    assert rates["sequences_per_second"] > 0
    for name in ("sequences_per_second", "tokens_per_second"):
        assert rates[f"{name}_per_device"] * processes == pytest.approx(rates[name], rel=1e-4)
    counted = rates["counted"]
    assert rates["tokens_per_second"] == pytest.approx(counted["tokens"] / rates["seconds"], rel=1e-4)
    assert counted["sequences"] == counted["updates"] * case["fairness"]["global_batch"]
    times = case["time"]
    assert 0 <= times["waiting_for_data_seconds"] < times["training_seconds"]
    if processes == 1:  # of several, each is the slowest rank's
        assert times["whole_seconds"] >= 0.999 * (times["training_seconds"] + times["warmup_seconds"])
    assert case["data"]["train"]["mean_tokens"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_real_figures_on_the_cpu(bertkit: Run, tmp_path: Path, kind: str) -> None:
    lists = ("-b", "2,4", "--lengths", "mrpc,wiki128")
    done = bertkit("bench", kind, *CPU, *lists, "--steps", "4", "-o", "bench.json", "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made == json.loads((tmp_path / "bench.json").read_text())
    assert made["kind"] == "collection"
    assert [(one["case"]["lengths"], one["case"]["batch_size"]) for one in made["records"]] == [
        ("mrpc", 2), ("mrpc", 4), ("wiki128", 2), ("wiki128", 4),
    ]  # fmt: skip
    for case in made["records"]:
        check_rates(case)
        assert (case["kind"], case["fairness"]["measures"]) == ("bench", kind)
        assert "first tenth" in case["method"]["warmup_rule"]
        assert 0.98 < case["throughput"]["padding_efficiency"] <= 1.0  # unpadded, rounded up to whole kernels
        assert 0 < case["throughput"]["mfu"] < 1
        assert case["memory"]["peak_bytes_per_device"] > 0
        assert case["hardware"]["engine"]["compute dtype"] == "float32"
        times = case["time"]["step_seconds"]
        values = [times[f"p{p}"] for p in (50, 90, 95, 99, 100)]
        assert values[0] > 0
        assert values == sorted(values)


def test_a_tasks_own_lengths(bertkit: Run, sample_dir: Path) -> None:
    words = ("-t", "sample", "--data-dir", sample_dir, "-b", "8", "--steps", "20", "--json")
    found = {}
    for kind, rows in (("train", 6000), ("infer", 800)):
        done = bertkit("bench", kind, *NULL, *words)
        assert done.returncode == 0, done.stderr
        found[kind] = json.loads(done.stdout)["records"][0]
        assert found[kind]["data"]["train"]["sequences"] == rows
        check_rates(found[kind])
    assert found["train"]["case"]["lengths"] == "sample"


def test_the_table_is_plain_and_narrow_and_names_the_record(bertkit: Run, tmp_path: Path) -> None:
    done = bertkit("bench", "infer", *NULL, "--steps", "200", "--lengths", "mrpc,squad384,64", "-s", "60")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["model", "dtype", "lengths", "batch"]
    assert [line.split()[2:4] for line in lines[1:7]] == [
        [name, size] for name in ("mrpc", "squad384", "64") for size in ("1", "32")
    ]
    assert max(map(len, lines[:7])) <= 100
    assert "\x1b" not in done.stdout + done.stderr
    assert "the first tenth" in done.stdout
    (record,) = (tmp_path / "runs" / "bench").glob("infer-*.json")
    assert f"record: {record.relative_to(tmp_path)}" in done.stderr
    cases = load_all(record)
    assert [case.mapping["data"]["train"]["tokens"]["p100"] for case in cases] == [60] * 6
    assert not any(case.edited for case in cases)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["train", "infer"])
def test_ranks_are_summed(bertkit: Run, tmp_path: Path, kind: str) -> None:
    words = ["bench", kind, *CPU, "--lengths", "mrpc", "-b", "3,2", "--steps", "5", "-o", "bench.json", "--json"]
    ranks = start_ranks(tmp_path, 2, words)
    assert [done.returncode for done in ranks] == [0, 0], "\n".join(done.stderr for done in ranks)
    assert ranks[1].stdout == ""
    made = json.loads(ranks[0].stdout)
    case, second = made["records"]
    assert case["hardware"]["processes"] == case["hardware"]["device"]["count"] == 2
    assert second["throughput"]["counted"]["sequences"] == 16
    counted = case["throughput"]["counted"]
    assert (counted["updates"], counted["sequences"]) == (4, 24)
    if kind == "train":
        check_rates(case, 2)
    else:
        assert case["time"]["steps_timed"] == 8


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lengths", "mrcp"], ["mrcp", "did you mean mrpc"]),
        (["--lengths", ""], ["--lengths", "lacks a value"]),
        (["--lengths", "mrpc,"], ["lacks a value"]),
        (["--lengths", "513"], ["513", "512 positions", "-s 512"]),
        (["-b", "0"], ["-b 0", "above 0"]),
        (["-b", "8,x"], ["'x'"]),
        (["-m", "tiny,bsae"], ["bsae", "base"]),
        (["-m", "./nowhere"], ["./nowhere"]),
        (["-d", "fp32,tf32"], ["tf32", "fp32, bf16"]),
        (["-d", "int4"], ["int4"]),
        (["--steps", "1"], ["--steps"]),
        (["--steps", "5", "--seconds", "5"], ["--steps", "--seconds"]),
        (["--lengths", "mrpc", "-t", "mrpc"], ["--lengths", "-t"]),
        (["--data-dir", "data"], ["-t"]),
        (["-t", "mrcp"], ["mrcp", "mrpc"]),
        (["-t", ""], ["no task ''"]),
        (["--set", "train.epochs=3"], ["train.epochs"]),
        (["--set", "device.cores=3"], ["device.cores"]),
        (["--set", "model.layout=heap"], ["model.layout"]),
        (["--backend", "gpu9"], ["gpu9"]),
        (["-o", "."], ["is a folder"]),
        (["-o", "/proc/nowhere/bench.json"], ["cannot be written"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(
    bertkit: Run, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    done = bertkit("bench", "train", "--backend", "null", "-m", "tiny", *words)
    assert_one_line_error(done, *said)
    assert done.stdout == ""
    assert not list(tmp_path.rglob("*.json"))


def test_a_record_is_not_overwritten_unasked(bertkit: Run, tmp_path: Path) -> None:
    words = ("bench", "train", *NULL, "--steps", "3", "-o", "bench.json")
    assert bertkit(*words).returncode == 0
    before = (tmp_path / "bench.json").read_bytes()
    assert_one_line_error(bertkit(*words), "bench.json", "--overwrite")
    assert (tmp_path / "bench.json").read_bytes() == before
    assert bertkit(*words, "--overwrite").returncode == 0
