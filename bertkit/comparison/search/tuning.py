"""A search from its settings to its folder: trials are computed one after the other, until there are as many as wanted.

FOLDER/study.journal   the trials, in Optuna's own form
FOLDER/trials/0007     an ordinary run
FOLDER/tune.json trials.csv trials.svg best.toml   what was found
"""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.comparison.search.pruning import Pruning
from bertkit.comparison.search.report import Findings, write_files
from bertkit.comparison.search.space import TABLE, Dimension, check_space, parse_space
from bertkit.comparison.search.study import (
    COMPLETE,
    FAILED,
    PRUNED,
    Claim,
    SharedStudy,
    open_folder,
    open_study,
    require_optuna,
)
from bertkit.console import Display
from bertkit.data.tasks.task import Task
from bertkit.distributed.collectives import join
from bertkit.distributed.consistency import gather_json
from bertkit.distributed.world import World, from_env
from bertkit.errors import PeersLost, Stopped, UserError, out_of_memory
from bertkit.recipes.recipe import build
from bertkit.recipes.resolve import Resolved
from bertkit.training.callbacks.base import Callback
from bertkit.training.resume import restarted
from bertkit.training.run import Run
from bertkit.training.run_folder import output_folder

# The trainer and what measures it are imported within functions: they stand at the end of long chains of imports.

TRIALS = 20
MOST_FAILED = 3  # in a row; what fails every trial is not found by more of them
OPENING_S = 600.0  # for which the processes of a launched job wait for the folder
FREE = (
    "output",
    "offline",
    "backend",
    "log.",
    "checkpoint.",
    "ranks.",
    "data.cache",
    "device.",
)  # may change on a resume


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """What a search is made of."""

    base: Resolved
    space: tuple[Dimension, ...]
    trials: int
    task: Task  # of all trials
    own_task: Task | None = None  # where a caller made it
    keep_checkpoints: bool = False

    @property
    def folder(self) -> Path:
        recipe = self.base.recipe
        return output_folder(recipe) if recipe.output else output_folder(recipe).with_name(self._name)

    @property
    def _name(self) -> str:
        return f"tune-{output_folder(self.base.recipe).name}"

    @property
    def facts(self) -> dict[str, Any]:
        """What must be the same on a resume."""
        kept = {key: value for key, value in self.base.flat().items() if not key.startswith(FREE)}
        searched = {f"{TABLE} {one.key}": one.to_mapping() for one in self.space}
        return kept | searched | {"metric": self.task.primary, "searched settings": [one.key for one in self.space]}

    def settings_of(self, claim: Claim) -> Resolved:
        """A trial's own."""
        own = {**claim.settings, "output": str(self.folder / "trials" / f"{claim.number:04}")}
        sources = {**self.base.sources, **dict.fromkeys(own, f"trial {claim.number}")}
        return Resolved(build({**self.base.flat(), **own}, sources), sources)


def plan_search(
    base: Resolved,
    table: Mapping[str, Any],
    where: str,
    trials: int,
    own_task: Task | None = None,
    keep_checkpoints: bool = False,
) -> SearchPlan:
    """The plan, checked. Raises UserError for whatever can be found before anything is read."""
    from bertkit.training.setup import task_of

    if trials < 1:
        raise UserError(f"{trials} trials are none", "give --trials 20")
    space = check_space(parse_space(table, where), base, where)
    require_optuna()
    task = task_of(base.recipe, own_task)
    return SearchPlan(
        base=base, space=space, trials=trials, task=task, own_task=own_task, keep_checkpoints=keep_checkpoints
    )


def check(plan: SearchPlan, world: World, display: Display) -> None:
    """Read and check what a trial needs, show its plan and what is searched; nothing is trained or written."""
    from bertkit.training.trainer import Trainer

    first = {one.key: one.tried[0] for one in plan.space}
    recipe = build({**plan.base.flat(), **first}, plan.base.sources)
    Trainer.of(Resolved(recipe, plan.base.sources), _alone(world), display, task=plan.own_task).check()
    for one in plan.space:
        display.say(f"search: {one.told()}")
    display.say(
        f"search: {plan.trials} trials, by dev {plan.task.primary}, seed {plan.base.recipe.seed}, in {plan.folder}"
    )


def run_search(
    plan: SearchPlan,
    world: World,
    display: Display,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
) -> Findings:
    """Compute this process's trials, and write what all found. Its `exit_code` says whether a signal ended it."""
    again = restarted(os.environ)
    check(plan, world, display)
    _enter(plan, world, resume or again, overwrite and not again)
    study = SharedStudy(
        plan.folder, open_study(plan.folder, plan.facts), plan.space, plan.base.recipe.seed, plan.trials
    )
    worker = _Worker(plan, study, world, display, callbacks)
    code = worker.work()
    found = _findings(plan, study, code)
    if code == 0:
        for warning in write_files(found):
            display.warn(warning)
    return found


def _findings(plan: SearchPlan, study: SharedStudy, code: int) -> Findings:
    return Findings(
        folder=plan.folder,
        task=plan.base.recipe.task,
        metric=plan.task.primary,
        seed=plan.base.recipe.seed,
        wanted=plan.trials,
        space=plan.space,
        base=plan.base,
        trials=tuple(study.tried()),
        exit_code=code,
    )


def _enter(plan: SearchPlan, world: World, resume: bool, overwrite: bool) -> None:
    """Make the folder ready: the first process of a launched job, while the others wait."""
    if world.size == 1:
        open_folder(plan.folder, resume, overwrite)
        return
    others = join(world, plan.base.recipe.ranks.collectives, OPENING_S)
    try:
        if world.is_first:
            open_folder(plan.folder, resume, overwrite)
        gather_json(others.gather, "the folder is ready")
    finally:
        others.close()


def _alone(world: World) -> World:
    """A trial is trained by one process, which shares the machine with the others."""
    return dataclasses.replace(world, rank=0, size=1)


class _Worker:
    """One process's work on the trials."""

    def __init__(
        self, plan: SearchPlan, study: SharedStudy, world: World, display: Display, callbacks: Sequence[Callback]
    ) -> None:
        self.plan, self.study, self.world, self.display = plan, study, world, display
        self.callbacks = tuple(callbacks)
        self.failed = 0  # trials in a row
        self.said = ""

    def work(self) -> int:
        """Compute trials until all have ended. Returns the exit code: not 0 where a signal asks to stop."""
        while True:
            with self.study.next_trial() as claim:
                if claim is not None:
                    if code := self._compute(claim):
                        return code
                    continue
            if not self.study.wait():
                return 0
            if self.study.others != self.said:
                self.said = self.study.others
                self.display.say(f"waiting for other processes: {self.said}")

    def _compute(self, claim: Claim) -> int:
        shown = ", ".join(f"{key}={_short(value)}" for key, value in claim.settings.items())
        again = "resumed, " if claim.again else ""
        self.display.say(f"trial {claim.number} of {self.plan.trials}: {again}{shown}")
        pruning = Pruning(claim.trial, self.plan.task.primary, self.display.say)
        try:
            run = self._train(claim, pruning)
        except (PeersLost, Stopped):
            raise
        except (UserError, MemoryError, RuntimeError) as error:
            if not isinstance(error, UserError) and not out_of_memory(error):
                raise
            self._fail(claim, str(error).split("\n", 1)[0] or type(error).__name__)
            return 0
        if run.exit_code:
            self.display.say(
                f"stopped by {run.interrupted}: trial {claim.number} is saved after update {run.step} of {run.steps}; "
                "resume with the same command and --resume"
            )
        elif run.record is not None:
            self._end(claim, run, pruning)
        return run.exit_code

    def _train(self, claim: Claim, pruning: Pruning) -> Run:
        from bertkit.training.trainer import Trainer

        return Trainer.of(
            self.plan.settings_of(claim),
            _alone(self.world),
            Display(quiet=True),
            (pruning, *self.callbacks),
            resume=claim.again,
            overwrite=not claim.again,  # of a trial that no journal knows of
            task=self.plan.own_task,
        ).fit()

    def _end(self, claim: Claim, run: Run, pruning: Pruning) -> None:
        metric, record = self.plan.task.primary, run.record or {}
        score = float(run.metrics[metric])
        seconds = record["throughput"]["seconds"]
        if not math.isfinite(score):
            self._fail(claim, f"{metric} is {score}")
            return
        self.failed = 0
        state = PRUNED if pruning.pruned else COMPLETE
        if not self.plan.keep_checkpoints:  # each is three times the model, and nothing resumes an ended trial
            shutil.rmtree(run.folder / "checkpoints", ignore_errors=True)
        self.study.end(claim, state, score, seconds, pruning.pruned)
        self.display.say(f"trial {claim.number}: {state}: " + (pruning.pruned or f"dev {metric} {score:.4f}"))

    def _fail(self, claim: Claim, reason: str) -> None:
        """Raises UserError where trial after trial fails."""
        self.study.end(claim, FAILED, None, None, reason)
        self.display.warn(f"trial {claim.number}: failed: {reason}")
        self.failed += 1
        if self.failed >= MOST_FAILED:
            raise UserError(
                f"{self.failed} trials in a row failed, the last one: {reason}",
                "correct that, then resume with --resume and more --trials, or start over with --overwrite",
            )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tune(
    model: str | Path | None = None,
    task: str | Task | None = None,
    *,
    search: Mapping[str, Any],
    trials: int = TRIALS,
    train: Any = None,
    dev: Any = None,
    callbacks: Sequence[Callback] = (),
    resume: bool = False,
    overwrite: bool = False,
    recipe: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    keep_checkpoints: bool = False,
    world: World | None = None,
    quiet: bool = False,
    **keywords: Any,
) -> Findings:
    """Search settings: `search` is the table [search] as a dict, as {"optimizer.learning_rate": {"log": [1e-5, 1e-4]}}.

    The other arguments are those of `train`; `output` is the search's folder, `seed` the runs' and the sampler's,
    `metric` what is searched by. Needs `pip install 'bertkit[tune]'`. Raises UserError for an unknown setting, naming
    the nearest, and where trial after trial fails.
    """
    from bertkit.training.trainer import OPTIONS, own_files, resolve_keywords

    options = (*OPTIONS, "search", "trials", "keep_checkpoints")
    given = own_files(keywords | {"model": model}, train, dev)
    resolved, own = resolve_keywords(task, given, settings, recipe, config, options)
    plan = plan_search(resolved, search, "search", trials, own, keep_checkpoints)
    here = world or from_env()
    found = run_search(plan, here, Display(quiet=quiet or not here.is_first), callbacks, resume, overwrite)
    if found.exit_code and here.launcher != "alone":
        raise SystemExit(found.exit_code)
    return found
