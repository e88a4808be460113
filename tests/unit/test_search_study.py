"""The study in a search's folder: the same trials for the same seed, none given out twice, what was left is resumed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bertkit.comparison.search.pruning import Pruning
from bertkit.comparison.search.space import Dimension
from bertkit.comparison.search.study import (
    COMPLETE,
    FAILED,
    PRUNED,
    RUNNING,
    SharedStudy,
    open_folder,
    open_study,
    require_optuna,
)
from bertkit.errors import UserError
from bertkit.model.checkpoint import Progress
from bertkit.training.run import Run

pytest.importorskip("optuna")
SPACE = (
    Dimension(key="optimizer.learning_rate", low=1e-5, high=1e-3, log=True),
    Dimension(key="train.epochs", low=1, high=4, whole=True),
    Dimension(key="optimizer.name", choices=("adamw", "lamb")),
)


def shared(folder: Path, trials: int = 4, seed: int = 1, facts: Mapping[str, Any] | None = None) -> SharedStudy:
    require_optuna()
    open_folder(folder, resume=True, overwrite=False)
    return SharedStudy(folder, open_study(folder, facts or {}), SPACE, seed, trials)


def compute(study: SharedStudy, most: int = 99) -> list[dict[str, Any]]:
    """Settings of the trials that this process gets, each ended with a score that its rate makes."""
    found: list[dict[str, Any]] = []
    while len(found) < most:
        with study.next_trial() as claim:
            if claim is None:
                break
            found.append(dict(claim.settings))
            study.end(claim, COMPLETE, 1e3 * float(str(claim.settings["optimizer.learning_rate"])), 1.0)
    return found


def test_the_same_seed_draws_the_same_trials_and_a_resume_does_not_change_them(tmp_path: Path) -> None:
    whole = compute(shared(tmp_path / "whole", 14))
    assert len(whole) == 14
    assert compute(shared(tmp_path / "parts", 14), most=3) + compute(shared(tmp_path / "parts", 14)) == whole
    assert compute(shared(tmp_path / "other", 14, seed=2)) != whole
    assert len({str(one) for one in whole}) == 14
    assert compute(shared(tmp_path / "whole", 16)) == compute(shared(tmp_path / "parts", 16))


def test_two_at_once_never_get_the_same_trial(tmp_path: Path) -> None:
    one, other = shared(tmp_path), shared(tmp_path)
    with one.next_trial() as first, other.next_trial() as second:
        assert first is not None
        assert second is not None
        assert (first.number, second.number) == (0, 1)
        assert [tried.state for tried in one.tried()] == [RUNNING, RUNNING]
        few = shared(tmp_path, trials=2)
        with few.next_trial() as third:
            assert third is None
        assert few.wait()  # for the two
        assert "trial 0: a training is under way there" in few.others
        one.end(first, COMPLETE, 0.5, 1.0)
        other.end(second, FAILED, None, None, "why")
    assert not few.wait()
    assert [(tried.state, tried.score, tried.reason) for tried in few.tried()] == [
        (COMPLETE, 0.5, ""), (FAILED, None, "why"),
    ]  # fmt: skip


def test_a_trial_whose_process_is_gone_is_given_out_again(tmp_path: Path) -> None:
    study = shared(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), study.next_trial() as left:
        assert left is not None
        settings = dict(left.settings)
        raise KeyboardInterrupt
    with shared(tmp_path).next_trial() as again:
        assert again is not None
        assert (again.number, again.again, dict(again.settings)) == (0, True, settings)


def test_a_trial_of_a_killed_process_is_given_out_again(tmp_path: Path) -> None:
    shared(tmp_path)
    child = os.fork()
    if child == 0:
        context = shared(tmp_path).next_trial()
        context.__enter__()
        os._exit(9)
    os.waitpid(child, 0)
    assert (tmp_path / "trials" / "0000.lock").exists()
    with shared(tmp_path).next_trial() as again:
        assert again is not None
        assert (again.number, again.again) == (0, True)


def test_a_resume_with_other_settings_is_refused_by_name(tmp_path: Path) -> None:
    shared(tmp_path, facts={"train.epochs": 3})
    with pytest.raises(UserError, match=r"started with train.epochs = 3, not 4; resume with the same"):
        shared(tmp_path, facts={"train.epochs": 4})


def test_a_damaged_journal_is_a_line(tmp_path: Path) -> None:
    compute(shared(tmp_path))
    (tmp_path / "study.journal").write_text("{}\nno json\n{}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"study.journal: is damaged"):
        shared(tmp_path)


def test_an_earlier_search_is_replaced_only_where_that_is_asked_for(tmp_path: Path) -> None:
    compute(shared(tmp_path))
    (tmp_path / "trials" / "0000").mkdir(parents=True)
    with pytest.raises(UserError, match="already holds a search; resume with --resume"):
        open_folder(tmp_path, resume=False, overwrite=False)
    open_folder(tmp_path, resume=False, overwrite=True)
    assert not (tmp_path / "trials" / "0000").exists()
    assert shared(tmp_path).tried() == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "record.json").touch()
    with pytest.raises(UserError, match="holds a run, not a search"):
        open_folder(tmp_path / "run", resume=False, overwrite=False)


def follow(study: SharedStudy, scores: list[float]) -> tuple[Pruning, Run]:
    """A trial with these scores at its evaluations, as far as it goes."""
    with study.next_trial() as claim:
        assert claim is not None
        callback, run = Pruning(claim.trial, "accuracy", lambda text: None), Run(steps=len(scores), metric="accuracy")
        entries: list[dict[str, Any]] = []
        for step, score in enumerate(scores, 1):
            entries.append({"step": step, "metrics": {"accuracy": score}})
            run.progress = Progress(step, {}, evaluations=tuple(entries))
            callback.on_evaluation(run, {"accuracy": score})
            if run.finished:
                break
        study.end(claim, PRUNED if callback.pruned else COMPLETE, scores[-1], 1.0, callback.pruned)
    return callback, run


def test_a_trial_below_the_median_ends_early_and_says_so(tmp_path: Path) -> None:
    study = shared(tmp_path, trials=9)
    for number in range(5):
        assert follow(study, [0.5 + 0.01 * number, 0.8])[0].pruned == ""
    callback, run = follow(study, [0.4, 0.8])
    assert callback.pruned == "accuracy 0.4000 at evaluation 1 is worse than the median of earlier trials"
    assert run.finished == f"pruned: {callback.pruned}"
    assert follow(study, [0.6, 0.3])[0].pruned == ""  # at its last evaluation nothing is left to end
    assert follow(study, [float("nan"), 0.9])[0].pruned == ""  # it may be a number yet
    tried = study.tried()[5]
    assert (tried.state, tried.score, tried.scores) == (PRUNED, 0.4, (0.4,))


def test_a_resumed_trial_that_was_to_end_ends(tmp_path: Path) -> None:
    study = shared(tmp_path, trials=9)
    for _ in range(5):
        follow(study, [0.6, 0.8])
    with study.next_trial() as claim:
        assert claim is not None
        claim.trial.report(0.1, 1)
        callback, run = Pruning(claim.trial, "accuracy", lambda text: None), Run(steps=2, metric="accuracy")
        run.progress = Progress(1, {}, evaluations=({"step": 1, "metrics": {"accuracy": 0.1}},))
        callback.on_start(run)
        assert callback.pruned
        assert run.finished


def test_of_an_error_the_smallest_is_best(tmp_path: Path) -> None:
    study = shared(tmp_path, 3, facts={"metric": "rmse"})
    compute(study)
    assert study.study.best_value == min(one.value for one in study.study.trials if one.value is not None)
