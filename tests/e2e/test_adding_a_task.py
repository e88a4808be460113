"""The example task as others write theirs: installed from outside the tree, listed, trained, scored, taken away."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from command import settings
from conftest import ROOT, Run, assert_one_line_error
from examples_outside import assert_page_shows, install, run_own_tests

EXAMPLE = ROOT / "examples" / "bertkit_sample_task"
PAGE = ROOT / "docs" / "adding-a-task.md"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(EXAMPLE, tmp_path_factory.mktemp("outside"))


def write_reviews(folder: Path, sample_dir: Path) -> None:
    (folder / "reviews").mkdir(parents=True)
    names = {"label": "verdict", "0": "bad", "1": "good"}
    for split in ("train", "dev"):
        rows = [line.split("\t") for line in (sample_dir / "sample" / f"{split}.tsv").read_text().splitlines()[:121]]
        text = "\n".join(f"{'text' if first == 'sentence' else first}\t{names[label]}" for first, label in rows)
        (folder / "reviews" / f"{split}.tsv").write_text(text + "\n")
    shutil.copy(sample_dir / "sample" / "vocab.txt", folder / "reviews")


@pytest.mark.slow
def test_it_is_listed_trained_and_scored_by_name(site: Path, bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    here = {"PYTHONPATH": str(site)}
    listed = bertkit("data", "list", **here)
    assert re.search(r"^reviews +plug-in +reviews +reviews of films", listed.stdout, re.MULTILINE), listed.stderr
    write_reviews(tmp_path / "data", sample_dir)
    words = ("train", "--backend", "cpu", "-t", "reviews", "-m", "tiny", "-s", "48", "-d", "fp32", "-b", "16")
    done = bertkit(*words, "-e", "1", "-o", "run", *settings(data__dir="data"), **here)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "record.json").read_text())["metrics"]
    assert set(metrics) == {"balanced_accuracy", "accuracy"}
    told = json.loads((tmp_path / "run" / "task.json").read_text())
    assert (told["task"], told["origin"], told["package"]) == ("reviews", "plug-in", "bertkit-sample-task")
    scored = bertkit("evaluate", "run", "--json", **here)
    assert json.loads(scored.stdout)["metrics"] == pytest.approx(metrics), scored.stderr
    gone = bertkit("evaluate", "run", "--json")
    assert_one_line_error(gone, "a task of bertkit-sample-task, which is not installed", "pip install bertkit-sample-")


def test_its_files_are_asked_for_where_they_are_missing(site: Path, bertkit: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = bertkit("train", "-t", "reviews", "-m", "tiny", "--data-dir", "data", PYTHONPATH=str(site))
    assert_one_line_error(
        done, "data holds no folder reviews", "put train.tsv, dev.tsv, test.tsv into a folder reviews"
    )


def test_a_package_that_takes_a_built_in_name_is_refused_by_name(bertkit: Run, tmp_path: Path) -> None:
    info = tmp_path / "site" / "shadow-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shadow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[bertkit.tasks]\nmrpc = shadow:task\n")
    here = {"PYTHONPATH": str(tmp_path / "site")}
    done = bertkit("train", "-t", "mrpc", "-m", "tiny", **here)
    assert_one_line_error(done, "the task 'mrpc' is built in, but shadow has one", "uninstall shadow")
    assert "the task 'mrpc' is built in, but shadow" in bertkit("data", "list", **here).stdout


def test_its_own_tests_pass_in_its_own_folder(site: Path, tmp_path: Path) -> None:
    run_own_tests(EXAMPLE / "test_reviews.py", site, tmp_path)


def test_the_pages_blocks_are_the_examples_files() -> None:
    assert_page_shows(PAGE, EXAMPLE)
