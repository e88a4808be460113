"""`--profile` of train, evaluate and bench as a user calls it, with torch's profiler; and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from command import CPU, NULL, settings
from conftest import Run, assert_one_line_error
from profiles import profiled

BENCH = ("bench", "infer", "-m", "tiny", "-d", "fp32", "--lengths", "32", "-b", "2", "--steps", "4")


def test_each_is_a_chrome_trace_of_what_was_asked_for(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    found = profiled(bertkit, tmp_path, sample_dir, "cpu")
    assert found["run/trace.json"].count("aten::embedding") >= 2
    norms = [names.count("aten::native_layer_norm") for names in list(found.values())[1:]]
    assert norms == [2 * (2 * 2 + 1)] * 3  # two batches or calls, of tiny's two layers and its embeddings


def test_a_backend_without_a_profiler_is_refused_by_name(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    train = (*NULL, "--data-dir", sample_dir, *settings(train__steps=2, data__eval_rows=8), "-o", "run")
    assert_one_line_error(bertkit(*train, "--profile", "1"), "backend null has no profiler; drop --profile")
    assert_one_line_error(bertkit(*BENCH, "--backend", "null", "--profile", "1"), "backend null has no profiler")
    assert bertkit(*train).returncode == 0
    done = bertkit("evaluate", "run", "--backend", "null", "--profile", "1")
    assert_one_line_error(done, "backend null has no profiler; drop --profile")
    assert not list(tmp_path.rglob("*trace*"))


@pytest.mark.parametrize("calls", ["3-2", "some"])
def test_what_names_no_calls(bertkit: Run, calls: str) -> None:
    assert_one_line_error(bertkit(*BENCH, "--backend", "cpu", "--profile", calls), f"--profile {calls} names no calls")


def test_batches_that_an_evaluation_does_not_have(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    train = (*CPU, "--data-dir", sample_dir, *settings(train__steps=1, data__eval_rows=8), "-o", "run")
    assert bertkit(*train).returncode == 0
    words = ("evaluate", "run", "-b", "4", *settings(data__eval_rows=8), "--profile")
    assert_one_line_error(bertkit(*words, "2-3"), "--profile 2-3: the evaluation has 2 batches; name some of these")
    assert_one_line_error(bertkit(*words, "2-1", "--dry-run"), "names no batches")
    assert_one_line_error(bertkit("evaluate", "absent", "-t", "sample", "--profile", "1"), "is not a folder")
    assert not list(tmp_path.rglob("*trace*"))


def test_a_training_that_ends_before_says_so(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    train = (*CPU, "--data-dir", sample_dir, *settings(train__steps=2, data__eval_rows=8))
    done = bertkit(*train, "-o", "short", "--profile", "5-6")
    assert "the job ended after 2 updates, before update 6: nothing was profiled" in done.stderr
    assert not (tmp_path / "short" / "trace.json").exists()
    done = bertkit(*train, "-o", "half", "--profile", "2-6")
    assert "updates 2 to 2 alone are in" in done.stderr
    assert (tmp_path / "half" / "trace.json").exists()


def test_a_trace_that_is_there_is_kept(bertkit: Run, tmp_path: Path) -> None:
    words = (*BENCH, "--backend", "cpu", "--profile", "1", "-o", "bench.json")
    (tmp_path / "bench.trace-1.json").write_text("mine")
    assert_one_line_error(bertkit(*words), "bench.trace-1.json is there already; choose another -o")
    assert not (tmp_path / "bench.json").exists()
    assert bertkit(*words, "--overwrite").returncode == 0
    assert (tmp_path / "bench.trace-1.json").read_text() != "mine"
