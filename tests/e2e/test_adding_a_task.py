"""The example task as others write theirs: installed from outside the tree, listed, trained, scored, taken away."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import settings
from conftest import ROOT, Run, assert_one_line_error, command_env

EXAMPLE = ROOT / "examples" / "bertkit_sample_task"
PAGE = ROOT / "docs" / "adding-a-task.md"
BLOCK = re.compile(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example installed in it, and bertkit not; building leaves nothing in the tree."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools, which builds the example, is not installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"the example needs setuptools 77, this is {setuptools.__version__}")
    folder = tmp_path_factory.mktemp("outside")
    source, target = folder / "source", folder / "site"
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info", ".*"))
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-index", "--no-deps"]
    command = [*pip, "--no-build-isolation", "--target", str(target), str(source)]
    done = subprocess.run(command, cwd=folder, env=command_env(folder), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def write_reviews(folder: Path, sample_dir: Path) -> None:
    (folder / "reviews").mkdir(parents=True)
    names = {"label": "verdict", "0": "bad", "1": "good"}
    for split in ("train", "dev"):
        rows = [line.split("\t") for line in (sample_dir / "sample" / f"{split}.tsv").read_text().splitlines()[:121]]
        text = "\n".join(f"{'text' if first == 'sentence' else first}\t{names[label]}" for first, label in rows)
        (folder / "reviews" / f"{split}.tsv").write_text(text + "\n")
    shutil.copy(sample_dir / "sample" / "vocab.txt", folder / "reviews")


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
    shutil.copy(EXAMPLE / "test_reviews.py", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    env = command_env(tmp_path) | {"PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_pages_blocks_are_the_examples_files() -> None:
    blocks = dict(BLOCK.findall(PAGE.read_text(encoding="utf-8")))
    files = [path for path in EXAMPLE.rglob("*") if path.suffix in (".py", ".toml") and "build" not in path.parts]
    assert set(blocks) == {path.relative_to(ROOT).as_posix() for path in files}
    for name, text in blocks.items():
        assert text == (ROOT / name).read_text(encoding="utf-8"), f"{name} is another in docs/adding-a-task.md"
