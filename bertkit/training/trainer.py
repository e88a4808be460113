"""The trainer: from settings to a run's folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.console import Display
from bertkit.data.tables.in_memory import kept
from bertkit.data.tasks import Task
from bertkit.distributed.consistency import agree, gather_json
from bertkit.distributed.world import World, from_env
from bertkit.engine.interface import Engine
from bertkit.errors import UserError
from bertkit.files.locks import alone_in
from bertkit.model.checkpoint import Checkpoints, Progress
from bertkit.recipes.keywords import from_keywords
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import Resolved, resolve
from bertkit.records import collect
from bertkit.records.energy import energy_of
from bertkit.records.event_log import RunLog
from bertkit.records.meter import Meter, warmup_updates
from bertkit.training.callbacks.base import Callback
from bertkit.training.callbacks.checkpointing import Checkpointing
from bertkit.training.callbacks.evaluation import Evaluation
from bertkit.training.callbacks.event_log import EventLog
from bertkit.training.callbacks.profiling import Profiling, wanted
from bertkit.training.callbacks.programs import Programs
from bertkit.training.callbacks.progress import ConsoleProgress
from bertkit.training.callbacks.stopping import EarlyStopping, FiniteLoss, Interruptions, Target
from bertkit.training.distillation import check_section, distillation
from bertkit.training.ensemble import SAME, Compare, announce_workers, train_workers
from bertkit.training.finetuning import fine_tuning
from bertkit.training.general_distillation import general_distillation
from bertkit.training.log_facts import loggers
from bertkit.training.loop import fit, make_meter
from bertkit.training.objective import Objective
from bertkit.training.pretraining import pretraining
from bertkit.training.recipe_parts import user_cache
from bertkit.training.results import measure, write_results
from bertkit.training.resume import load_moments, other_masks, restarted, resumed
from bertkit.training.run import Run
from bertkit.training.run_folder import (
    TRACE,
    open_folder,
    output_folder,
    refuse_hiding,
    refuse_taken,
    write_recipe,
)
from bertkit.training.run_task import write_task
from bertkit.training.setup import named, task_of
from bertkit.training.signals import stop_on_signals

# What `Trainer` takes besides settings, for the nearest to a misspelt one.
OPTIONS = ("callbacks", "resume", "overwrite", "recipe", "config", "settings", "world", "quiet", "train", "dev")


class Trainer:
    """A run from its settings to its folder.

        run = Trainer(model="models/minilm", task="mrpc", data_dir="glue", epochs=3, callbacks=[Mine()]).fit()

    Keywords are the recipe's settings by the last part of their name; `settings` takes all of them by their dotted
    keys, those of a device too. Environment variables, a recipe and a file of settings count as for `bertkit train`.
    """

    def __init__(
        self,
        *,
        task: str | Task | None = None,
        train: Any = None,
        dev: Any = None,
        callbacks: Sequence[Callback] = (),
        resume: bool = False,
        overwrite: bool = False,
        recipe: str | None = None,
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
        world: World | None = None,
        quiet: bool = False,
        **keywords: Any,
    ) -> None:
        """`task`: its name, or a task of your own (`bertkit.table_task`). `train`, `dev`: data of your own: a file, a
        frame, a data set, or any iterable of dicts; without `dev`, rows are held out. `recipe`: a packaged one's name,
        or a file.
        `world`: None: as this process's environment says.

        Raises UserError for an unknown setting, naming the nearest, and for a value of the wrong type.
        """
        keywords = own_files(keywords, train, dev)
        self.resolved, self.task = resolve_keywords(task, keywords, settings, recipe, config, OPTIONS)
        self.world = world or from_env()
        self.display = Display(quiet=quiet or not self.world.is_first)
        again = restarted(os.environ)
        self.callbacks, self.resume, self.overwrite = tuple(callbacks), resume or again, overwrite and not again
        self.exits = self.world.launcher != "alone"

    @classmethod
    def of(
        cls,
        resolved: Resolved,
        world: World,
        display: Display,
        callbacks: Sequence[Callback] = (),
        resume: bool = False,
        overwrite: bool = False,
        task: Task | None = None,
    ) -> Trainer:
        """From settings that are resolved already."""
        trainer = cls.__new__(cls)
        trainer.resolved, trainer.world, trainer.display = resolved, world, display
        trainer.callbacks, trainer.resume, trainer.overwrite = tuple(callbacks), resume, overwrite
        trainer.exits, trainer.task = False, task
        return trainer

    @property
    def recipe(self) -> Recipe:
        return self.resolved.recipe

    @property
    def folder(self) -> Path:
        """Where the run goes."""
        return output_folder(self.recipe)

    def check(self) -> Run:
        """Read and check everything and show the plan; nothing is trained or written."""
        if self._trains_workers:
            return self._worker(announce_workers(self.resolved, self.world, self.display)).check()
        refuse_hiding(self.recipe.model.name, self.folder)
        self._objective(dry_run=True)
        return Run(folder=self.folder, settings=self.resolved.flat(), world=self.world)

    def fit(self) -> Run:
        """Train, and write what a run leaves; where gradients are not synchronised, one model in each process.

        Raises UserError for whatever the user can put right, before anything is written where it can be found then.
        Raises SystemExit where a signal interrupted the training, which is saved, and a launcher started this process:
        it is to end then, whatever the script would do next.
        """
        run = self._fit_all()
        if run.exit_code and self.exits:
            raise SystemExit(run.exit_code)
        return run

    def _fit_all(self) -> Run:
        if not self._trains_workers:
            refuse_hiding(self.recipe.model.name, self.folder)
        with alone_in(self.folder, "a training", self.world.is_first):
            if self.world.is_first:
                refuse_taken(self.folder, self.resume, self.overwrite)
            if self._trains_workers:
                metric = self._trained_on.primary
                return train_workers(self.resolved, self.world, self.display, self.overwrite, metric, self._fit_worker)
            return self._fit_one(None)

    @functools.cached_property
    def _trained_on(self) -> Task:
        """The task; one of the user's own data is made once, since its labels are read then."""
        return task_of(self.recipe, self.task, self.display.say)

    @property
    def _trains_workers(self) -> bool:
        return self.world.size > 1 and not self.recipe.ranks.synchronise

    def _worker(self, mine: Resolved) -> Trainer:
        """This process's worker. It learns alone, but shares the machine."""
        alone = dataclasses.replace(self.world, rank=0, size=1)
        return Trainer.of(mine, alone, self.display, self.callbacks, self.resume, self.overwrite, self.task)

    def _fit_worker(self, mine: Resolved, compare: Compare) -> Run:
        worker = self._worker(mine)
        refuse_hiding(worker.recipe.model.name, worker.folder)
        with alone_in(worker.folder, "a training"):
            refuse_taken(worker.folder, self.resume, self.overwrite)
            return worker._fit_one(compare)

    def _fit_one(self, compare: Compare | None) -> Run:
        """Train one model. `compare`: called with what shapes the run; None: the ranks of `world` compare it."""
        objective = self._objective(dry_run=False)
        with contextlib.closing(objective):
            return self._fit_on(objective, compare)

    def _fit_on(self, objective: Objective, compare: Compare | None) -> Run:
        engine = objective.setup.target.backend.engine(objective.setup.job, self.world)
        try:
            shape = objective.shape()
            compare = compare or functools.partial(agree, engine.gather, cure=SAME)
            compare({**collect.versions(), **shape})
            objective.begin(engine, self.recipe, self.display)
            return self._fit(objective, engine, shape)
        finally:
            engine.close()

    def _objective(self, dry_run: bool) -> Objective:
        """The inputs, read and checked, and the plan shown."""
        if self.recipe.log.profile:
            wanted(self.recipe.log.profile)
        check_section(self.recipe.distill, self._trained_on.head)
        objective: Objective
        if self._trained_on.head.kind == "pretraining":
            objective = course = pretraining(self.recipe, self.world, self.display, dry_run)
            if self.recipe.distill.teacher:
                objective = general_distillation(course, self.recipe, self.display, dry_run)
        elif self.recipe.distill.teacher:
            objective = distillation(self.recipe, self.world, self.display, dry_run, self._trained_on)
        else:
            objective = fine_tuning(self.recipe, self.world, self.display, dry_run, self._trained_on)
        target = objective.setup.target
        self.display.say(f"backend: {target.backend.name} ({target.choice.reason})")
        self.display.say(f"precision: {target.precision} ({target.reason})")
        objective.introduce(self.display)
        self.display.say(f"output: {self.folder}")
        return objective

    def _fit(self, objective: Objective, engine: Engine, shape: Mapping[str, Any]) -> Run:
        """One process's share of the run, from the engine to the record."""
        plan, display, most = objective.plan, self.display, self.recipe.train.steps_this_run
        checkpoints = Checkpoints(self.folder / "checkpoints", self.recipe.checkpoint.keep, objective.saves_best)
        log = RunLog(self.folder if self.world.is_first else None, loggers(objective, self.folder, self.world))
        energy = energy_of(engine, self.world)
        job = objective.setup.job
        meter = make_meter(job.model, job.head, engine, energy)
        callbacks: list[Callback] = []
        progress = ConsoleProgress(objective, meter, display)
        evaluation = Evaluation(objective, engine, display, callbacks)
        interruptions = Interruptions(engine, most)
        callbacks += [progress, EventLog(log, objective), Programs(engine, log), FiniteLoss(), Target(objective)]
        callbacks += self.callbacks
        if self.recipe.evaluation.patience:
            callbacks.append(EarlyStopping(self.recipe.evaluation.patience))
        if self.recipe.log.profile:
            backend = objective.setup.target.backend.name
            callbacks.append(Profiling(engine, backend, self.recipe.log.profile, self.folder / TRACE, display))
        callbacks += [evaluation, Checkpointing(checkpoints, engine, callbacks), interruptions]
        if self.world.is_first:
            open_folder(self.folder, self.overwrite)
        first_peak = engine.peak()
        run = self._start(objective, engine, shape, checkpoints, log)
        run.seconds = functools.partial(_seconds, run.progress, meter)
        try:
            for callback in callbacks:
                callback.on_start(run)
            if not run.finished:
                meter.warmup = warmup_updates(plan.steps - run.step)
                updates = objective.updates(run.step + 1, plan.steps)
                with (
                    stop_on_signals() as interruptions.request,
                    display.progress("training", plan.steps, run.step) as progress.bar,
                ):
                    fit(engine, updates, plan, meter, callbacks, run)
            if run.interrupted and not run.finished and run.step < plan.steps:
                for callback in callbacks:
                    callback.on_interrupted(run)
                return run
            run.interrupted, run.exit_code = "", 0  # a signal at the last update changed nothing
            run.metrics = self._final_metrics(run, evaluation, checkpoints)
            run.added.update(objective.added())
            results = measure(run, objective, engine, meter, energy, first_peak, self.resolved)
            run.record = write_results(run, results, evaluation.answered or [], objective.weights(engine))
            for callback in callbacks:
                callback.on_end(run)
        finally:
            for callback in callbacks:
                callback.on_close(run)
        return run

    def _start(
        self, objective: Objective, engine: Engine, shape: Mapping[str, Any], checkpoints: Checkpoints, log: RunLog
    ) -> Run:
        """The run as it stands before its next update, said and written down."""
        environment = collect.environment(self.world, engine)
        environment["hardware"]["hosts"] = gather_json(engine.gather, platform.node())  # by rank
        progress = resumed(checkpoints, engine, shape, self.folder) if self.resume else None
        if progress is not None:
            self.display.say(f"resume: continuing after update {progress.step} of {objective.plan.steps}")
            if remark := other_masks(progress, objective.setup.job.model, self.world):
                self.display.warn(remark)
        elif self.resume:
            self.display.say("resume: no checkpoint yet, so the run starts from the beginning")
        progress = dataclasses.replace(progress or Progress(0, shape), processes=self.world.size)
        if self.resume:
            log.cut_after(progress.step)
        if progress.step == 0 and self.recipe.train.moments_from:
            other = Path(self.recipe.train.moments_from).expanduser()
            step = load_moments(other, engine)
            self.display.say(f"weights and optimizer state: from {other} after update {step}")
        if self.resume:
            agree(engine.gather, {"its last checkpoint's update": progress.step}, "share the run's folder")
        if self.world.is_first:
            write_recipe(self.folder, self.resolved.flat())
            setup = objective.setup
            versions, own = collect.versions(), self.task is not None
            write_task(self.folder, setup.task, self.recipe, setup.source.vocabulary, versions, own)
        for name, value in engine.describe().items():
            self.display.say(f"  {name}: {value}")
        return Run(
            folder=self.folder,
            settings=self.resolved.flat(),
            world=self.world,
            steps=objective.plan.steps,
            metric=objective.setup.task.primary,
            environment=environment,
            progress=progress,
            metrics=progress.evaluations[-1]["metrics"] if progress.evaluations else {},
        )

    def _final_metrics(self, run: Run, evaluation: Evaluation, checkpoints: Checkpoints) -> Mapping[str, float]:
        """The result's metrics; the engine then has the result's weights. A collective."""
        best = run.progress.best_step if self.recipe.checkpoint.result == "best" else 0
        if best:
            evaluation.engine.load_state_dict(checkpoints.load(best)[0])
        scored = evaluation.answered is not None and run.evaluations[-1]["step"] == run.step
        if best or not scored:
            return evaluation.score(best or run.step)
        return run.metrics


def resolve_keywords(
    task: str | Task | None,
    keywords: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
    recipe: str | None = None,
    config: str | Path | None = None,
    options: Sequence[str] = (),
) -> tuple[Resolved, Task | None]:
    """(the settings of a call from Python, the task where the caller made it). `options`: as of `from_keywords`."""
    name, own = named(task)
    given = from_keywords({**keywords, "task": name}, settings, options)
    recipe = recipe or (own.recipe if own else "") or None
    return resolve(given, config=Path(config) if config else None, recipe=recipe), own


def own_files(keywords: Mapping[str, Any], train: Any, dev: Any) -> dict[str, Any]:
    """The keywords with the files of the caller's own data; rows that are no file yet are kept in the user's cache.

    Raises UserError where both a keyword and an argument name a file.
    """
    found = dict(keywords)
    for name, data in (("train_file", train), ("dev_file", dev)):
        if data is None:
            continue
        if found.get(name) is not None:
            raise UserError(f"{name} and {name.removesuffix('_file')} are both given", "give one")
        found[name] = data if isinstance(data, str | os.PathLike) else kept(data, user_cache() / "tables")
    return found


def _seconds(before: Progress, meter: Meter) -> tuple[float, float]:
    """Wall seconds until now, those of the jobs before a resume too: of training alone, and with pauses."""
    training, pauses = meter.trained_seconds, sum(meter.pauses.values())
    return before.train_seconds + training, before.wall_seconds + training + pauses
