"""Tasks of others: made as tables, found as plug-ins, refused by name, and passed as objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertkit
from bertkit.data import tasks
from bertkit.data.tasks import GROUP, find_task, plugin_packages, table_task, task_recipe
from bertkit.errors import UserError
from bertkit.files.inputs import read_text
from bertkit.model.tokenizer import Vocabulary
from bertkit.recipes.recipe import Recipe
from bertkit.records.files import seal
from bertkit.training.run_task import NAME, read_task, run_settings, write_task

REVIEWS = table_task("reviews", first="text", label="verdict", labels=("bad", "good"), recipe="demo")
STARS = table_task("stars", first="text", second="other", label="stars")

Install = Callable[..., list[str]]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make these the installed plug-ins: name -> what its entry point loads. Returns the names loaded since."""

    def these(**plugins: Any) -> list[str]:
        loaded: list[str] = []

        class Point(EntryPoint):
            def load(self) -> Any:
                loaded.append(self.name)
                found = plugins[self.name]
                if isinstance(found, Exception):
                    raise found
                return found

        points = [Point(name, f"package_{name}:task", GROUP) for name in plugins]
        monkeypatch.setattr(tasks, "entry_points", lambda group: points if group == GROUP else [])
        return loaded

    return these


def test_a_plug_in_is_a_task_or_returns_one(install: Install) -> None:
    install(reviews=REVIEWS, stars=lambda: STARS)
    assert find_task("Reviews") is REVIEWS
    assert find_task("stars") is STARS
    assert (task_recipe("reviews"), task_recipe("stars"), task_recipe("nonesuch")) == ("demo", "", "")


def test_none_is_imported_before_it_is_asked_for(install: Install) -> None:
    loaded = install(reviews=REVIEWS, broken=ImportError("no torch"))
    assert find_task("mrpc").name == "mrpc"
    assert task_recipe("SQuAD1") == find_task("squad").recipe
    assert plugin_packages() == {"reviews": "package_reviews:task", "broken": "package_broken:task"}
    with pytest.raises(UserError, match=r"there is no task 'reviewz'; did you mean reviews\?"):
        find_task("reviewz")
    assert loaded == []
    find_task("reviews")
    assert loaded == ["reviews"]


def wrong_name() -> Any:
    return STARS


BAD = {
    "it raises": (ImportError("no module rows"), "ImportError: no module rows"),
    "it returns something else": (lambda: 3, "gives int, not a Task"),
    "it is called otherwise": (wrong_name, "calls itself 'stars'"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_plug_in_that_cannot_be_used_is_named_with_its_package(name: str, install: Install) -> None:
    plugin, said = BAD[name]
    install(reviews=plugin)
    with pytest.raises(UserError, match=rf"task plug-in 'reviews' .*{said}.*uninstall its package 'package_reviews"):
        find_task("reviews")


@pytest.mark.parametrize("name", ["mrpc", "sst-2"])
def test_a_built_in_name_is_not_taken(name: str, install: Install) -> None:
    loaded = install(**{name: REVIEWS})
    with pytest.raises(UserError, match=f"the task '{name.replace('-', '')}' is built in, but package_{name}"):
        find_task(name)
    assert find_task("rte").name == "rte"
    assert loaded == []


def test_two_packages_with_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("reviews", "one:task", GROUP), EntryPoint("Reviews", "two:task", GROUP)]
    monkeypatch.setattr(tasks, "entry_points", lambda group: points)
    with pytest.raises(UserError, match=r"several packages have a task '[Rr]eviews': two:task, one:task"):
        find_task("reviews")


# ---- table tasks ----


def test_a_table_task_of_classes_and_one_of_numbers() -> None:
    assert (REVIEWS.head.kind, REVIEWS.head.outputs, REVIEWS.primary) == ("classification", 2, "accuracy")
    assert (STARS.head.kind, STARS.head.outputs, STARS.primary) == ("regression", 1, "pearson")
    assert {split: [one.file for one in files] for split, files in STARS.splits.items()} == {
        "train": ["train.tsv"], "dev": ["dev.tsv"], "test": ["test.tsv"],
    }  # fmt: skip
    assert STARS.splits["dev"][0].columns == bertkit.data.tasks.task.Columns("text", "other", "stars")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": "My Task"}, "'My Task' is no name for a task"),
        ({"labels": ("good",)}, "labels are good; name two or more"),
        ({"labels": ("good", "good")}, "labels are good, good"),
        ({"metric": "acuracy"}, r"no metric 'acuracy' for classes; did you mean accuracy\?"),
        ({"metric": "f1", "labels": ()}, "no metric 'f1' for numbers; known: pearson, spearman"),
    ],
)
def test_a_table_task_that_cannot_be(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        table_task(**{"name": "reviews", "first": "text", "label": "verdict", "labels": ("bad", "good")} | changed)


def test_a_metric_of_ones_own() -> None:
    def always(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return {"luck": float(len(labels))}

    made = table_task("reviews", first=0, label=1, labels="ab", metric="luck", score=always, header=False, columns=2)
    assert (made.primary, made.labels) == ("luck", ("a", "b"))


@pytest.mark.parametrize("task", [dataclasses.replace(REVIEWS, name="mrpc"), dataclasses.replace(REVIEWS, name="A")])
def test_an_object_with_a_name_that_cannot_be(task: bertkit.Task) -> None:
    with pytest.raises(UserError, match=r"there is a task 'mrpc' already; give yours another|'A' is no name"):
        bertkit.Trainer(task=task)


# ---- runs ----


def written(folder: Path, own: bool = False) -> None:
    words = Vocabulary(Path("vocab.txt"), ("[PAD]", "a"), lower_case=True)
    write_task(folder, REVIEWS, Recipe(task="reviews"), words, {}, own)


def test_a_run_on_an_object_wants_it_again(tmp_path: Path) -> None:
    written(tmp_path, own=True)
    made = json.loads(read_text(tmp_path / NAME))
    assert (made["origin"], made["package"], made["labels"]) == ("object", None, ["bad", "good"])
    assert made["files"]["dev"][0]["columns"]["label"] == "verdict"
    with pytest.raises(UserError, match=r"reviews, a task that a program made; .*bertkit\.load\(.*, task=…\)"):
        run_settings(str(tmp_path))
    assert run_settings(str(tmp_path), REVIEWS)["task"] == "reviews"


def test_a_run_on_a_plug_in_names_its_package(tmp_path: Path, install: Install) -> None:
    install(reviews=REVIEWS)
    written(tmp_path)
    found = read_task(tmp_path)
    assert found is not None
    assert (found.origin, found.package) == ("plug-in", "package_reviews:task")
    assert run_settings(str(tmp_path))["task"] == "reviews"
    install()
    with pytest.raises(UserError, match="which is not installed; pip install package_reviews:task"):
        run_settings(str(tmp_path))
    assert run_settings(str(tmp_path), REVIEWS)["task"] == "reviews"


def test_a_run_of_before_there_were_plug_ins_is_read(tmp_path: Path) -> None:
    words = Vocabulary(Path("vocab.txt"), ("[PAD]", "a"), lower_case=True)
    made = write_task(tmp_path, find_task("mrpc"), Recipe(task="mrpc"), words, {})
    old = {key: value for key, value in made.items() if key not in ("origin", "package", "sha256")}
    (tmp_path / NAME).write_text(json.dumps(old | {"sha256": seal(old)}))
    assert run_settings(str(tmp_path))["task"] == "mrpc"


# ---- the whole way ----


def data_of(sample_dir: Path, folder: Path) -> Path:
    """The sample's files as those of `reviews`, whose labels and columns have other names."""
    (folder / "reviews").mkdir(parents=True)
    names = {"label": "verdict", "0": "bad", "1": "good"}
    for split in ("train", "dev"):
        rows = [line.split("\t") for line in (sample_dir / "sample" / f"{split}.tsv").read_text().splitlines()]
        text = "\n".join(f"{'text' if first == 'sentence' else first}\t{names[label]}" for first, label in rows)
        (folder / "reviews" / f"{split}.tsv").write_text(text + "\n")
    (folder / "reviews" / "vocab.txt").write_bytes((sample_dir / "sample" / "vocab.txt").read_bytes())
    return folder


SHORT: dict[str, Any] = {
    "backend": "cpu", "model": "tiny", "precision": "fp32", "seq_length": 32, "steps": 4, "train_rows": 64,
    "eval_rows": 40, "quiet": True,
}  # fmt: skip


@pytest.mark.slow
def test_an_object_learns_what_the_built_in_task_learns(tmp_path: Path, sample_dir: Path) -> None:
    mine = table_task("reviews", first="text", label="verdict", labels=("bad", "good"), vocab="vocab.txt")
    short = SHORT | {"cache": str(tmp_path / "cache")}
    run = bertkit.train(task=mine, data_dir=data_of(sample_dir, tmp_path / "data"), output=tmp_path / "mine", **short)
    built_in = bertkit.train(task="sample", data_dir=sample_dir, output=tmp_path / "built-in", **short)
    assert run.losses == built_in.losses
    assert run.metrics["accuracy"] == built_in.metrics["accuracy"]
    common = {name: short[name] for name in ("backend", "precision", "cache")}
    scored = bertkit.evaluate(run.folder, task=mine, **common, settings={"data.eval_rows": 40})
    assert scored["metrics"]["accuracy"] == run.metrics["accuracy"]
    with bertkit.load(run.folder, task=mine, **common) as predictor:
        assert predictor.labels == ("bad", "good")
        assert predictor.predict("the plot is good .").label in predictor.labels
    with pytest.raises(UserError, match="a task that a program made"):
        bertkit.load(run.folder)


def test_other_columns_of_the_same_file_are_not_taken_from_the_cache(tmp_path: Path, sample_dir: Path) -> None:
    """As in a notebook, where a task is made again under its name."""
    folder = data_of(sample_dir, tmp_path / "data")
    known = {"vocab": "vocab.txt", "first": "text", "label": "verdict"}
    found = []
    for labels in (("bad", "good"), ("good", "bad")):
        task = table_task("reviews", labels=labels, **known)
        setup = bertkit.prepare(task=task, data_dir=folder, **SHORT | {"cache": str(tmp_path / "cache")})
        found.append(setup.train.features.labels["labels"])
    assert (found[0] == 1 - found[1]).all()
