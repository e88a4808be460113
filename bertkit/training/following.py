"""A run under way: it follows the loop, evaluates, keeps checkpoints, and in the end writes the results."""

from __future__ import annotations

import dataclasses
import functools
import math
import platform
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Counter, Display
from bertkit.data.tasks.task import Answered
from bertkit.distributed.consistency import agree, anybody, gather_json
from bertkit.distributed.world import World
from bertkit.engine.flops import of_batch, training_flops
from bertkit.engine.interface import Engine, Peak, Sensors
from bertkit.errors import UserError
from bertkit.model.checkpoint import Checkpoints, Progress
from bertkit.recipes.recipe import KEYS
from bertkit.recipes.resolve import Resolved
from bertkit.records import collect
from bertkit.records.energy import energy_of
from bertkit.records.event_log import RunLog
from bertkit.records.meter import Meter, over_ranks, unknown, warmup_updates
from bertkit.records.profiling import TRACE, profiled
from bertkit.training.objective import Course
from bertkit.training.results import Results, write_results
from bertkit.training.run_folder import write_recipe
from bertkit.training.run_loggers import followers
from bertkit.training.run_task import write_task
from bertkit.training.signals import EXIT_CODES, StopRequest, stop_on_signals
from bertkit.training.trainer import Logged, fit

RECENT = 20  # updates whose mean loss is shown beside the dev set's scores


class Training:
    """The state of one run; it is the loop's Watch."""

    def __init__(
        self,
        resolved: Resolved,
        course: Course,
        engine: Engine,
        world: World,
        display: Display,
        folder: Path,
    ) -> None:
        self.resolved, self.course, self.engine, self.world = resolved, course, engine, world
        self.display, self.folder = display, folder
        self.ready, self.plan = course.ready, course.plan
        ready = self.ready
        self.checkpoints = Checkpoints(folder / "checkpoints", ready.recipe.checkpoint.keep, course.saves_best)
        self.log = RunLog(folder if world.is_first else None, followers(course, folder, world))
        trace = folder / TRACE if world.is_first else None
        self.profiled = profiled(engine, ready.recipe.log.profile, trace, display.say)
        self.log.tell("init")
        self.energy = energy_of(engine, world)
        self.meter = Meter(
            0,
            functools.partial(of_batch, training_flops, ready.job.model, ready.job.head),
            energy=self.energy.joules,
            communication=engine.communication if isinstance(engine, Sensors) else unknown,
        )
        self.progress = Progress(0, {})
        self.peaks: list[Peak] = []  # measured at the start and at the end
        self.answered: list[Answered] | None = None  # at the last evaluation of this leg
        self.updates = 0  # of this leg
        self.stop = StopRequest()
        self.bar: Counter | None = None
        self.before = (0.0, 0.0)  # seconds of training in earlier legs of a resumed run: without and with pauses

    def run(self, shaped_by: Mapping[str, Any], resume: bool) -> tuple[dict[str, Any] | None, int]:
        """(the record, exit code); no record where a signal stopped the run."""
        self.peaks = [self.engine.peak()]
        environment = collect.environment(self.world, self.engine)
        environment["hardware"]["hosts"] = gather_json(self.engine.gather, platform.node())  # by rank
        self.progress = Progress(0, shaped_by)
        if resume:
            self._take_up(shaped_by)
        if self.progress.step == 0 and self.ready.recipe.train.moments_from:
            self._take_over(Path(self.ready.recipe.train.moments_from).expanduser())
        if resume:
            agree(self.engine.gather, {"its last checkpoint's update": self.progress.step}, "share the run's folder")
        self.before = (self.progress.train_seconds, self.progress.wall_seconds)
        if self.world.is_first:
            write_recipe(self.folder, self.resolved.flat())
            ready = self.ready
            write_task(self.folder, ready.task, ready.recipe, ready.source.vocabulary, collect.versions())
        for name, value in self.engine.describe().items():
            self.display.say(f"  {name}: {value}")
        samples = self.course.samples(self.progress.step)
        self.log.write("start", step=self.progress.step, samples=samples, **environment)
        if not self._fit():
            self._stopped()
            if self._job_is_done:
                return None, 0
            return None, self.stop.exit_code or EXIT_CODES[signal.SIGTERM]  # 0: another rank was asked
        made = self._finish(environment)
        self.log.write("end", step=self.progress.step, metrics=made["metrics"], **self._figures(made))
        return made, 0

    def _fit(self) -> bool:
        """Train to the end of the plan; False where a signal asked to stop."""
        first, last = self.progress.step + 1, self.plan.steps
        if self.reached():
            return True
        self.meter.warmup = warmup_updates(last - first + 1)
        shares = self.course.updates(first, last)
        with stop_on_signals() as self.stop, self.display.progress("training", last, first - 1) as self.bar:
            return fit(self.engine, shares, self.plan, self.meter, self, self.profiled)

    def _figures(self, made: Mapping[str, Any]) -> dict[str, Any]:
        """What the log's last line tells besides the metrics."""
        target = self.course.target(self.progress.step)
        return {
            "reached": self.reached() if target else True,
            "final_loss": self.progress.losses[-1] if self.progress.losses else None,
            "sequences_per_second": made["throughput"]["sequences_per_second"],
            "training_seconds": made["time"]["training_seconds_of_all_legs"],
        }

    def _take_over(self, run: Path) -> None:
        """Begin with another run's weights and moments."""
        found = Checkpoints(run / "checkpoints").newest()
        if found is None:
            raise UserError(f"{run}: has no checkpoint to take moments from", "name a run's folder")
        self.engine.load_state_dict(found[0])
        self.display.say(f"weights and moments: those of {run} after update {found[1].step}")

    def _take_up(self, shaped_by: Mapping[str, Any]) -> None:
        """Go on from the newest whole checkpoint, if there is one."""
        found = self.checkpoints.newest()
        if found is None:
            self.display.say("resume: no checkpoint yet, so the run starts at its beginning")
            self.log.cut_after(0)
            return
        arrays, progress = found
        # A setting that the checkpoint does not know is younger than it, and had its default.
        before = {key: known.default for key, known in KEYS.items()} | dict(progress.shaped_by)
        changed = [key for key, value in shaped_by.items() if before.get(key) != value]
        if changed:
            key = changed[0]
            others = f" (and {', '.join(changed[1:])})" if changed[1:] else ""
            raise UserError(
                f"{self.folder}: the run was started with {key} = {before.get(key)!r}, not {shaped_by[key]!r}{others}",
                "resume with the same settings and data, or start anew with --overwrite",
            )
        self.engine.load_state_dict(arrays)
        self.progress = progress
        self.log.cut_after(progress.step)
        self.display.say(f"resume: goes on after update {progress.step} of {self.plan.steps}")

    # ---- the loop's Watch ----

    def logged(self, done: list[Logged]) -> None:
        for one in done:
            self.log.write("update", **{name: v for name, v in dataclasses.asdict(one).items() if v is not None})
            if not math.isfinite(one.loss):
                raise UserError(
                    f"the loss is {one.loss} at update {one.step}",
                    "lower optimizer.learning_rate, lengthen the warm-up, or train with -d fp32",
                )
        losses = (*self.progress.losses, *(one.loss for one in done))
        self.progress = dataclasses.replace(self.progress, step=done[-1].step, losses=losses)
        if self.bar:
            reading = self.meter.reading()
            speed = reading.per_second(reading.sequences)
            shown = {
                "loss": f"{np.mean([one.loss for one in done]):.4f}",
                "lr": f"{done[-1].learning_rate:.1e}",
            }
            self.bar.to(done[-1].step, shown | ({"seq/s": f"{speed:.0f}"} if math.isfinite(speed) else {}))

    def evaluate(self, step: int) -> bool:
        self.log.tell("evaluating", step=step, samples=self.course.samples(step))
        metrics = self.score(step)
        score, best = metrics[self.ready.task.primary], self.progress.best_step
        better = best == 0 or score > self.progress.best_score
        self.progress = dataclasses.replace(
            self.progress,
            step=step,
            evaluations=(*self.progress.evaluations, self._evaluation(step, metrics)),
            best_step=step if better else best,
            best_score=score if better else self.progress.best_score,
        )
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        loss = f"loss {np.mean(self.progress.losses[-RECENT:]):.4f}, " if self.progress.losses else ""
        self.display.say(f"update {step} ({self.course.place(step)}): {loss}dev {shown}")
        self.log.write("evaluation", step=step, samples=self.course.samples(step), **metrics)
        return better and self.course.saves_best

    def reached(self) -> bool:
        """Whether the last evaluation reached the accuracy that is aimed at."""
        if not self.progress.evaluations:
            return False
        last = self.progress.evaluations[-1]
        target = self.course.target(last["step"])
        return bool(target) and last["metrics"].get("mlm_accuracy", 0.0) >= target

    def _evaluation(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        """The update, this rank's seconds until this evaluation began, and the scores."""
        training, wall = self._seconds()
        times = {"training_seconds": collect.number(training), "wall_seconds": collect.number(wall)}
        return {"step": step, **times, "metrics": dict(metrics)}

    def _seconds(self) -> tuple[float, float]:
        """Wall seconds of all legs until now: of training alone, and with evaluations and checkpoints."""
        training, pauses = self.meter.trained_seconds, sum(self.meter.pauses.values())
        return self.before[0] + training, self.before[1] + training + pauses

    def save(self, step: int) -> None:
        arrays = self.engine.state_dict()  # on every rank: a sharded optimizer gathers here
        if self.world.is_first:
            training, wall = self._seconds()
            self.progress = dataclasses.replace(self.progress, train_seconds=training, wall_seconds=wall)
            path = self.checkpoints.save(arrays, self.progress)
            self.log.write("checkpoint", step=step, file=path.name)
        anybody(self.engine.gather, True)  # no rank goes on, or reads it, before it is whole

    def stop_requested(self) -> bool:
        """On any rank: a signal may reach them at different updates, and all must end after the same one."""
        self.updates += 1
        return self._job_is_done or anybody(self.engine.gather, bool(self.stop))

    # ---- the end ----

    def score(self, step: int) -> dict[str, float]:
        """Metrics now, after update `step`."""
        metrics, self.answered = self.course.score(self.engine, self.display, step)
        return metrics

    @property
    def _job_is_done(self) -> bool:
        """Whether this leg has made as many updates as it was to make."""
        most = self.ready.recipe.train.steps_this_run
        return 0 < most <= self.updates

    def _stopped(self) -> None:
        if self._job_is_done:
            self.log.write("stopped", step=self.progress.step, signal=None)
            self.display.say(
                f"this job ends after its {self.updates:,} updates, with {self.progress.step:,} of "
                f"{self.plan.steps:,} done and saved; the same command with --resume goes on"
            )
            return
        name = self.stop.signal.name if self.stop.signal else "a signal to another rank"
        self.log.write("stopped", step=self.progress.step, signal=name)
        self.display.say(
            f"stopped by {name} after update {self.progress.step} of {self.plan.steps}, which is saved; "
            "the same command with --resume goes on"
        )

    def _finish(self, environment: Mapping[str, Any]) -> dict[str, Any]:
        """The final scores, and everything written that a run leaves."""
        best = self.ready.recipe.checkpoint.result == "best" and self.progress.best_step
        if best:
            self.engine.load_state_dict(self.checkpoints.load(self.progress.best_step)[0])
        if best or self.answered is None:
            metrics = self.score(self.progress.best_step if best else self.progress.step)
        else:
            metrics = dict(self.progress.evaluations[-1]["metrics"])
        reading = over_ranks(self.meter.reading(), self.engine.gather)
        hardware = environment["hardware"] | {"device": collect.device(self.engine, self.world)}  # its clock now
        environment = {**environment, "hardware": hardware}
        memory = collect.peak_memory(self.engine.peak_memory(), self.engine.gather)  # before the peak's own matrices
        peak = collect.best_peak([*self.peaks, self.engine.peak()])
        results = Results(
            self.resolved, self.course, self.world, environment, self.progress, metrics, self.answered or [],
            reading, self.meter, peak, memory, self.energy,
        )  # fmt: skip
        return write_results(self.folder if self.world.is_first else None, results, self.engine.weights())
