"""A plan's cases one after another, each in an engine of its own; the file is whole on disk after each of them."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bertkit.bench.measure import RULES, Amount, Measured, calls, infer_case, train_case
from bertkit.bench.plan import SETTINGS, BenchPlan, Case
from bertkit.bench.suite import DOES_NOT_FIT, Kind
from bertkit.bench.workload import Workload
from bertkit.conformance.fixtures import HEADS, MODEL, example_batch
from bertkit.conformance.fixtures import train as train_specimen
from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Engine, Job, Peak, Precision
from bertkit.errors import DoesNotFit, UserError, out_of_memory
from bertkit.files.inputs import exists, is_folder
from bertkit.model.loading import starting_weights
from bertkit.model.parameters import initial
from bertkit.recipes.recipe import to_flat
from bertkit.records import collect
from bertkit.records.energy import Energy, energy_of
from bertkit.records.files import collection, sealed, write_all
from bertkit.records.host import cpu_mhz
from bertkit.records.schema import blank
from bertkit.training.callbacks.profiling import VIEWERS, profile_calls, profiler_of
from bertkit.training.comparability import as_computed, of_case, optimizer
from bertkit.training.recipe_parts import exchange, loss_scaling, make_update_settings, optimizer_spec, with_dropout


@dataclass
class Bench:
    """A measurement under way."""

    plan: BenchPlan
    amount: Amount
    world: World
    display: Display
    profile: tuple[int, int] | None = None  # the first and the last call of each case whose trace is written
    # key, weights and their file's SHA-256 of the last case: the next one often has the same model
    _weights: tuple[object, Arrays, str | None] | None = None
    _memory: int | None = None  # what the last engine said of its process
    peaks: dict[Precision, list[Peak]] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def run(self, output: Path) -> dict[str, Any]:
        """Measure all cases, keep their records in `output`, return what it holds."""
        self._try_precisions()
        self._write(output)  # a place that cannot be written is known before the work, not after it
        for number, case in enumerate(self.plan.cases, 1):
            self.display.say(f"case {number} of {len(self.plan.cases)}: {case}")
            self.cases.append(sealed(self._case(case, trace_file(output, number))))
            self._write(output)
        return collection(self.cases)

    def check_traces(self, output: Path, overwrite: bool) -> None:
        """Raises UserError where a trace to be written is there already."""
        traces = [trace_file(output, number) for number in range(1, len(self.plan.cases) + 1)] if self.profile else []
        for path in traces:
            if exists(path) and not overwrite:
                raise UserError(f"{path} is there already", "choose another -o, or replace it with --overwrite")

    def _write(self, output: Path) -> None:
        if self.world.is_first:
            write_all(output, self.cases)

    def _settings(self) -> dict[str, Any]:
        used = (*SETTINGS[self.plan.kind], "seed")
        flat = {key: value for key, value in to_flat(self.plan.recipe).items() if key.startswith(used)}
        of_data = () if self.plan.recipe.task else tuple(key for key in flat if key.startswith("data."))
        for key in ("model.name", *of_data):  # each case has its own
            del flat[key]
        return flat | {
            "task": self.plan.recipe.task or None,
            "cut_to": self.plan.longest or None,
            "steps": self.amount.steps or None,
            "seconds": None if self.amount.steps else self.amount.seconds,
            **{f"device.{name}": value for name, value in self.plan.settings.items()},
        }

    def _try_precisions(self) -> None:
        """One small update or call in each precision: an engine that refuses one says so before the work.

        The rate for MFU is taken here too, and after each case: the best so far counts.
        """
        for precision in dict.fromkeys(case.precision for case in self.plan.cases):
            weights = initial(MODEL, HEADS["classification"], 1)
            head, rules = HEADS["classification"], exchange(self.plan.recipe)
            job = Job(MODEL, head, weights, precision=precision, settings=self.plan.settings, exchange=rules)
            with self._engine(job) as engine:
                if self.profile:
                    profiler_of(engine, self.plan.backend.name)
                if self.plan.kind == "train":
                    train_specimen(engine, example_batch("classification"), "classification", 1)
                else:
                    engine.predict(example_batch("classification"))
                self.peaks[precision] = [engine.peak()]

    @contextlib.contextmanager
    def _engine(self, job: Job) -> Iterator[Engine]:
        engine = self.plan.backend.engine(job, self.world)
        try:
            yield engine
        finally:
            engine.close()
            del engine
            gc.collect()

    def _case(self, case: Case, trace: Path) -> dict[str, Any]:
        """One case's record; one that does not fit into memory is a record too."""
        work = self.plan.workload(case)
        job = self._job(case, work)
        entry = self._entry(case, work, job)
        forget_peak_memory()
        try:
            with self._engine(job) as engine:
                energy = energy_of(engine, self.world)
                measured = self._measure(engine, case, work, energy)
                memory = self._peak_memory(engine)  # before the peak's own matrices
                self.peaks.setdefault(case.precision, []).append(engine.peak())
                self._profile(engine, case, work, trace)
                return entry | self._figures(entry, case, measured, engine, energy) | {"memory": memory}
        except (MemoryError, RuntimeError, DoesNotFit) as error:
            if not out_of_memory(error):
                raise
            if self.world.size > 1:  # the other ranks wait in a collective for this one
                raise UserError(f"{case}: out of memory on rank {self.world.rank}", "take a smaller batch") from error
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            reason = said if isinstance(error, DoesNotFit) else f"out of memory: {said}"
            self.display.warn(f"{case}: {reason}")
            return entry | {"status": DOES_NOT_FIT, "reason": reason}

    def _entry(self, case: Case, work: Workload, job: Job) -> dict[str, Any]:
        """The record before anything was measured."""
        plan, source = self.plan, case.model.source
        start = self._weights[2] if self._weights else None
        known = known_of(plan, case, work, job, self.world, self.amount.steps)
        return blank("bench") | {
            **collect.environment(self.world),
            "config": self._settings(),
            "backend": {"name": plan.backend.name, "reason": plan.choice.reason},
            "precision": {"name": case.precision, "reason": None},
            "model": blank("bench")["model"] | {"name": case.model.name, "parameters": known["parameters"]},
            "data": {"task": plan.recipe.task or None, "train": work.describe(), "evaluation": []},
            "fairness": dataclasses.asdict(of_case(job, source, start, known)),
            "method": {"warmup_rule": RULES["warm-up"], "warmup_updates": None, "rules": RULES},
            "case": {
                "model": case.model.name,
                "lengths": case.lengths,
                "batch_size": case.batch_size,
                "loss": None,
            },
        }

    def _job(self, case: Case, work: Workload) -> Job:
        recipe, model = self.plan.recipe, case.model
        key = (model, work.head)
        if self._weights is None or self._weights[0] != key:
            self._weights = None  # before the next is made
            if model.source:
                fit = starting_weights(model.source, work.head, recipe.seed)
                self._weights = key, dict(fit.weights), fit.digest
            else:
                self._weights = key, initial(model.config, work.head, recipe.seed), None
        return Job(
            with_dropout(model.config, recipe),
            work.head,
            self._weights[1],
            optimizer_spec(recipe),
            case.precision,
            recipe.seed,
            recipe.model.layout,
            self.plan.settings,
            exchange(recipe),
            loss_scaling(recipe),
            work.limits(case.batch_size, recipe.train.micro_batch_size, recipe.seed, self.world.size),
        )

    def _measure(self, engine: Engine, case: Case, work: Workload, energy: Energy) -> Measured:
        recipe, model = self.plan.recipe, case.model.config
        common = self.amount, self.world, self.display, energy
        if self.plan.kind == "infer":
            return infer_case(engine, model, work, case.batch_size, recipe.seed, *common)
        micro, rate = recipe.train.micro_batch_size, recipe.optimizer.learning_rate
        return train_case(engine, model, work, case.batch_size, micro, rate, recipe.seed, *common)

    def _profile(self, engine: Engine, case: Case, work: Workload, trace: Path) -> None:
        """Repeat the calls to be profiled, on the first rank, after all that is measured."""
        if self.profile is None or not self.world.is_first:
            return
        first, last = self.profile
        stream = calls(work.features, case.batch_size, self.plan.recipe.seed, self.world)
        batches = (update.micro_batches[0] for update in itertools.islice(stream, first - 1, last))
        profile_calls(engine, profiler_of(engine, self.plan.backend.name), batches, trace)
        self.display.say(f"profile: calls {first} to {last} are in {trace}, {VIEWERS}")

    def _figures(
        self, entry: dict[str, Any], case: Case, measured: Measured, engine: Engine, energy: Energy
    ) -> dict[str, Any]:
        reading, world = measured.reading, self.world
        step_of = "a call" if self.plan.kind == "infer" else collect.step_of(measured.waits)
        hardware = {
            "device": collect.device(engine, world), "cpu_mhz": cpu_mhz(), "engine": dict(engine.describe()),
        }  # fmt: skip
        return {
            "hardware": entry["hardware"] | hardware,
            "method": entry["method"] | {"warmup_updates": measured.warmup},
            "fairness": as_computed(entry["fairness"], engine.describe())
            | ({"updates": measured.steps} if self.plan.kind == "train" else {}),
            "updates": measured.steps,
            "case": entry["case"] | {"loss": collect.number(measured.loss)},
            "throughput": collect.throughput(reading, collect.best_peak(self.peaks[case.precision]), world),
            "time": collect.times(reading, world, measured.times, step_of),
            "energy": collect.energy(reading, energy),
        }

    def _peak_memory(self, engine: Engine) -> dict[str, Any]:
        """Of the rank that needed most. A counter that stands where the last case left it only says `at most`."""
        mine = engine.peak_memory()
        most = collect.peak_memory(mine, engine.gather)
        before, self._memory = self._memory, mine
        return {"peak_bytes_per_device": most, "at_most": mine is not None and mine == before}


def known_of(plan: BenchPlan, case: Case, work: Workload, job: Job, world: World, steps: int) -> dict[str, Any]:
    """What must be the same where a case is compared with another's."""
    found = len(work.features)
    own = plan.recipe.task or None
    made = make_update_settings(plan.recipe, steps, world.size)
    learning = (
        optimizer(job, dataclasses.replace(made, updates=steps, peak_rate=made.base_rate))
        | {"schedule": "constant", "schedule_warmup_updates": 0, "schedule_power": None, "schedule_end_rate": None}
        if plan.kind == "train"
        else {}
    )
    return learning | {
        "measures": plan.kind,
        "task": own,
        "parameters": sum(int(array.size) for array in job.weights.values()),
        "lengths": work.source,
        "training_features_sha256": work.features.digest() if own else None,  # else drawn at random
        "training_sequences": found if own else None,
        "sequence_length": int(work.features.lengths.max()),
        "most_masked": work.most_masked,
        "global_batch": case.batch_size * world.size,
        "warmup_rule": RULES["warm-up"],
    }


def trace_file(record: Path, number: int) -> Path:
    """Beside the record: where the profile of its case of this number goes, from 1 on."""
    return record.with_name(f"{record.stem}.trace-{number}.json")


def record_file(kind: Kind | Literal["serve"], asked: Path | None, overwrite: bool) -> Path:
    """Where the record goes; by itself a new file each time. Raises UserError where `asked` is taken."""
    if asked is None:
        return Path("runs", "bench", f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.json")
    path = asked.expanduser()
    if is_folder(path):
        raise UserError(f"{path} is a folder", "-o takes the record's file, as in -o bench.json")
    if exists(path) and not overwrite:
        raise UserError(f"{path} is there already", "choose another file, or replace it with --overwrite")
    return path


def forget_peak_memory() -> None:
    """Let the process's peak count from now, where the system can (Linux, proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
