"""The study that the processes of a search share: Optuna's journal, and which process computes which trial.

A trial is given out while `claims.lock` is held, so none is given out twice, and stays with its process for as long as
that holds `trials/0007.lock`. What a killed process left is given out again: to whoever asks next on the same machine.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertkit.comparison.search.space import Dimension
from bertkit.data.tasks.metrics import SMALLER_IS_BETTER
from bertkit.errors import UserError
from bertkit.files.inputs import exists, inside, is_folder, reading
from bertkit.files.locks import holding, locked
from bertkit.recipes.recipe import Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

JOURNAL, CLAIMS, TRIALS = "study.journal", "claims.lock", "trials"
RESULTS = ("tune.json", "trials.csv", "trials.svg", "best.toml")
NAME = "bertkit"  # the study's in the journal, for other programs
STARTUP = 10  # trials drawn at random before the sampler follows what was found; Optuna's own number
UNPRUNED = 5  # trials before the first may be pruned; Optuna's own number
FACTS = "search"  # the study's attribute that holds what must be the same on a resume
COMPLETE, PRUNED, FAILED, RUNNING = "complete", "pruned", "failed", "running"
_STATES = {"COMPLETE": COMPLETE, "PRUNED": PRUNED, "FAIL": FAILED, "RUNNING": RUNNING, "WAITING": RUNNING}
POLL_S = 0.5  # between two looks at the trials of other processes


@dataclass(frozen=True)
class Tried:
    """One trial, as far as it is."""

    number: int
    state: str
    settings: Mapping[str, Value]
    score: float | None  # of a complete one; of a pruned one, at its last evaluation
    scores: tuple[float, ...]  # at each evaluation
    seconds: float | None  # of training
    reason: str  # why it was pruned, or failed

    @property
    def folder(self) -> str:
        """Within the search's."""
        return f"{TRIALS}/{self.number:04}"


@dataclass(frozen=True)
class Claim:
    """A trial that this process is to compute."""

    trial: Trial
    settings: Mapping[str, Value]
    again: bool  # whether it was begun before

    @property
    def number(self) -> int:
        return int(self.trial.number)


class SharedStudy:
    """A search's trials. `trials`: how many there are to be in all, pruned and failed ones included."""

    def __init__(self, folder: Path, study: Study, space: Sequence[Dimension], seed: int, trials: int) -> None:
        self.folder, self.study, self.trials, self.seed = folder, study, trials, seed
        self.distributions = {one.key: distribution(one) for one in space}
        self.others = ""  # what other processes are at work on, in words

    @contextlib.contextmanager
    def next_trial(self) -> Iterator[Claim | None]:
        """The next trial for this process, and no other's meanwhile. None: there is none now."""
        with contextlib.ExitStack() as held:
            with locked(self.folder / CLAIMS, lambda: None):
                claim = self._left_behind(held) or self._new(held)
            yield claim

    def wait(self) -> bool:
        """Wait a moment for the trials of other processes; False: all trials have ended."""
        if all(one.state.is_finished() for one in self._all()):
            return False
        time.sleep(POLL_S)
        return True

    def end(self, claim: Claim, state: str, score: float | None, seconds: float | None, reason: str = "") -> None:
        """Write down how a trial ended."""
        from optuna.trial import TrialState

        claim.trial.set_user_attr("seconds", seconds)
        claim.trial.set_user_attr("reason", reason)
        if state == COMPLETE:
            self.study.tell(claim.trial, score)
        else:
            self.study.tell(claim.trial, state=TrialState.PRUNED if state == PRUNED else TrialState.FAIL)

    def tried(self) -> list[Tried]:
        return [_tried(one) for one in self._all()]

    def _all(self) -> list[FrozenTrial]:
        found: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return found

    def _left_behind(self, held: contextlib.ExitStack) -> Claim | None:
        """A trial that was begun, and whose process is gone."""
        from optuna.trial import Trial

        self.others = ""
        for one in self._all():
            if one.state.is_finished():
                continue
            try:
                held.enter_context(self._hold(one.number))
            except UserError as error:
                self.others = self.others or _at_work(error)
                continue
            self.study.sampler = sampler(self.seed, one.number)
            trial = Trial(self.study, one._trial_id)  # Optuna has no other way to a trial that was begun elsewhere
            return self._claim(trial, again=True)
        return None

    def _new(self, held: contextlib.ExitStack) -> Claim | None:
        count = len(self._all())
        if count >= self.trials:
            return None
        self.study.sampler = sampler(self.seed, count)
        trial = self.study.ask(self.distributions)
        held.enter_context(self._hold(trial.number))
        return self._claim(trial, again=False)

    def _claim(self, trial: Trial, again: bool) -> Claim:
        # A process that was killed within `ask` left some settings undrawn; those that it drew stay.
        settings = {key: trial._suggest(key, drawn) for key, drawn in self.distributions.items()}
        return Claim(trial=trial, settings=settings, again=again)

    def _hold(self, number: int) -> contextlib.AbstractContextManager[None]:
        return _hold(self.folder, number)


def sampler(seed: int, number: int) -> BaseSampler:
    """What draws the settings of one trial: anew for each, so that a resumed search draws as one that was not."""
    from optuna.samplers import TPESampler

    drawn = np.random.SeedSequence((seed, number)).generate_state(1)
    return TPESampler(n_startup_trials=STARTUP, seed=int(drawn[0]))


def distribution(one: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.choices:
        return CategoricalDistribution(one.choices)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def require_optuna() -> None:
    """Raises UserError where it is not installed. Optuna's own messages of each trial are left out."""
    try:
        import optuna
    except ImportError:
        raise UserError("tune needs optuna", "pip install 'bertkit[tune]'") from None
    optuna.logging.set_verbosity(logging.ERROR)


def open_study(folder: Path, facts: Mapping[str, Any]) -> Study:
    """The study in the folder, which is made where there is none.

    `facts`: what must be the same on a resume, the metric among it. Raises UserError where the study's differ, or its
    file is damaged.
    """
    from optuna import create_study
    from optuna.pruners import MedianPruner
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = folder / JOURNAL
    with locked(folder / CLAIMS, lambda: None), reading(path, "start over with --overwrite"):
        study = create_study(
            storage=JournalStorage(JournalFileBackend(str(path))),
            study_name=NAME,
            direction="minimize" if facts.get("metric") in SMALLER_IS_BETTER else "maximize",
            pruner=MedianPruner(n_startup_trials=UNPRUNED),
            load_if_exists=True,
        )
        if FACTS not in study.user_attrs:
            study.set_user_attr(FACTS, dict(facts))
        before = study.user_attrs[FACTS]
    for name, value in facts.items():
        if before.get(name) != value:
            raise UserError(
                f"{folder}: the search was started with {name} = {before.get(name)!r}, not {value!r}",
                "resume with the same file and settings, or start over with --overwrite",
            )
    return study


def open_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Make the folder ready. Raises UserError where it holds a search that is neither resumed nor overwritten."""
    if exists(folder) and not is_folder(folder):
        raise UserError(f"{folder} is a file", "choose another folder with -o")
    if exists(folder / JOURNAL):
        if not (resume or overwrite):
            raise UserError(
                f"{folder} already holds a search",
                "resume with --resume, start over with --overwrite, or choose another folder with -o",
            )
        if overwrite and not resume:
            _clear(folder)
    elif exists(folder / "record.json"):
        raise UserError(f"{folder} holds a run, not a search", "choose another folder with -o")
    folder.mkdir(parents=True, exist_ok=True)


def _clear(folder: Path) -> None:
    """Remove an earlier search. Raises UserError where a process is at work on it."""
    trials = folder / TRIALS
    with contextlib.ExitStack() as held:
        for place in inside(trials) if exists(trials) else []:
            if is_folder(place) and place.name.isdigit():
                held.enter_context(_hold(folder, int(place.name)))
        for name in (JOURNAL, *RESULTS):
            (folder / name).unlink(missing_ok=True)
        for place in inside(trials) if exists(trials) else []:
            if is_folder(place) and place.name.isdigit():
                shutil.rmtree(place)


def _hold(folder: Path, number: int) -> contextlib.AbstractContextManager[None]:
    return holding(folder / TRIALS / f"{number:04}.lock", "a training", f"{folder}: trial {number}")


def _at_work(error: UserError) -> str:
    """What a refused lock says of its holder, and how to take it from one on another host that is gone."""
    cure = error.cure.partition("; ")[2]  # before it: what whoever does not wait would do
    return f"{error.cause}; {cure}" if cure else error.cause


def _tried(one: FrozenTrial) -> Tried:
    state = _STATES[one.state.name]
    scores = tuple(score for _, score in sorted(one.intermediate_values.items()))
    score = one.value if state == COMPLETE else scores[-1] if state == PRUNED and scores else None
    return Tried(
        number=one.number,
        state=state,
        settings=dict(one.params),
        score=score,
        scores=scores,
        seconds=one.user_attrs.get("seconds"),
        reason=one.user_attrs.get("reason", ""),
    )
