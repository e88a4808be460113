"""What a search reports: the best trial, the bias of its score, and files that other programs read."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest

from bertkit.comparison.search.report import Findings, best_toml, summary, table, to_csv, to_mapping, write_files
from bertkit.comparison.search.space import Dimension
from bertkit.comparison.search.study import COMPLETE, FAILED, PRUNED, Tried
from bertkit.recipes.resolve import resolve
from bertkit.training.selection import best_by_chance, selection_of

SPACE = (
    Dimension(key="optimizer.learning_rate", low=1e-5, high=1e-3, log=True),
    Dimension(key="train.epochs", choices=(2, 3)),
)


def tried(number: int, state: str, score: float | None, reason: str = "") -> Tried:
    settings = {"optimizer.learning_rate": 1e-5 * (number + 1), "train.epochs": 2 + number % 2}
    return Tried(
        number=number, state=state, settings=settings, score=score, scores=(0.5,), seconds=2.0, reason=reason
    )  # fmt: skip


TRIALS = (
    tried(0, COMPLETE, 0.70),
    tried(1, FAILED, None, "the loss is nan at update 3"),
    tried(2, COMPLETE, 0.90),
    tried(3, PRUNED, 0.95, "accuracy 0.9500 at evaluation 1 is worse than the median of earlier trials"),
    tried(4, COMPLETE, 0.90),
    tried(5, COMPLETE, 0.80),
)


def findings(folder: Path, trials: tuple[Tried, ...] = TRIALS) -> Findings:
    base = resolve({"task": "sample", "output": str(folder), "seed": 3}, env={})
    return Findings(
        folder=folder, task="sample", metric="accuracy", seed=3, wanted=6, space=SPACE, base=base, trials=trials
    )


def test_the_best_is_a_complete_trial_and_its_bias_is_stated(tmp_path: Path) -> None:
    found = findings(tmp_path)
    assert found.best is TRIALS[2]  # the first of equals, and none that was pruned
    lines = summary(found)
    assert lines[0] == (
        "best: trial 2, dev accuracy 0.9000, selected on dev among 4 completed trials (1 pruned, 1 failed)"
    )
    assert "  train.epochs = 2" in lines
    assert (
        "mean 0.8250, standard deviation 0.0957, n = 4; the best was selected on dev, so its score is biased"
        in (lines[3])
    )
    assert "0.78 standard deviations better than the mean; of 4 trials that differed by chance alone" in lines[4]


def test_of_an_error_the_best_is_the_smallest(tmp_path: Path) -> None:
    found = dataclasses.replace(findings(tmp_path), metric="rmse")
    assert found.best is TRIALS[0]
    assert "1.31 standard deviations better than the mean" in summary(found)[4]


def test_one_trial_has_no_deviation_and_none_no_best(tmp_path: Path) -> None:
    lines = summary(findings(tmp_path, TRIALS[:1]))
    assert lines[-1].startswith("mean 0.7000, n = 1; ")
    none = findings(tmp_path, TRIALS[1:2])
    assert summary(none) == ["no trial completed (1 failed)"]
    assert to_mapping(none)["best"] is None
    assert to_mapping(none)["selected"] is None


@pytest.mark.parametrize("of", [2, 5, 20, 100])
def test_the_best_of_equals_is_expected_where_a_simulation_finds_it(of: int) -> None:
    drawn = np.random.default_rng(1).standard_normal((20_000, of)).max(1).mean()
    assert best_by_chance(of) == pytest.approx(drawn, abs=0.04)


def test_equal_scores_have_no_distance_from_their_mean() -> None:
    selection = selection_of([0.5, 0.5])
    assert selection.better_than_mean(0.5) is None
    assert selection.told("compare the mean") == (
        "mean 0.5000, standard deviation 0.0000, n = 2; the best was selected on dev, so its score is biased: "
        "compare the mean"
    )


def test_the_table_has_the_best_first_and_says_why_others_ended(tmp_path: Path) -> None:
    made = table(findings(tmp_path))
    assert [row[0] for row in made.rows] == ["2 (best)", "4", "5", "0", "1", "3"]
    assert made.headings == ("trial", "state", "accuracy", "training (s)", "optimizer.learning_rate", "train.epochs")
    assert made.rows[4][:3] == ("1", "failed", "–")
    assert made.notes[0] == "trial 1: failed: the loss is nan at update 3"


def test_csv_has_a_row_for_each_trial(tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(findings(tmp_path)))))
    assert [row["trial"] for row in rows] == list("012345")
    assert (rows[1]["accuracy"], rows[1]["reason"]) == ("", "the loss is nan at update 3")
    assert float(rows[5]["optimizer.learning_rate"]) == pytest.approx(6e-5)
    assert rows[3]["folder"] == "trials/0003"


def test_best_toml_is_a_recipe_with_the_best_settings_and_no_folder(tmp_path: Path) -> None:
    text = best_toml(findings(tmp_path))
    assert text.startswith("# sample: trial 2, dev accuracy 0.9000, selected on dev among 4 completed trials")
    path = tmp_path / "best.toml"
    path.write_text(text, encoding="utf-8")
    recipe = resolve({}, recipe=str(path), env={}).recipe
    assert (recipe.optimizer.learning_rate, recipe.train.epochs, recipe.seed) == (pytest.approx(3e-5), 2, 3)
    assert (recipe.task, recipe.output) == ("sample", "")
    assert "output" not in tomllib.loads(text)


def test_the_files_are_written_and_the_plot_is_of_every_setting(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert write_files(findings(tmp_path)) == []
    made = json.loads((tmp_path / "tune.json").read_text(encoding="utf-8"))
    assert made["best"]["trial"] == 2
    assert made["selected"]["of"] == 4
    assert made["selected"]["mean"] == pytest.approx(0.825)
    assert [one["state"] for one in made["trials"]].count("complete") == 4
    plot = (tmp_path / "trials.svg").read_text(encoding="utf-8")
    for word in ("optimizer.learning_rate", "train.epochs", "dev accuracy", "best so far", "pruned"):
        assert word in plot
