"""A plan's cases one after another, each in an engine of its own; the file is whole on disk after each of them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bertkit import record
from bertkit.backend import Arrays, Engine, Job, Peak, Precision
from bertkit.bench.measure import RULES, Amount, Measured, infer_case, train_case
from bertkit.bench.plan import SETTINGS, Case, Plan
from bertkit.bench.workload import Kind, Workload
from bertkit.disk import write_json
from bertkit.display import Display
from bertkit.errors import UserError
from bertkit.parameters import initial
from bertkit.preparation import exchange, optimizer_spec, with_dropout
from bertkit.pretrained import starting_weights
from bertkit.recipe import to_flat
from bertkit.specimens import HEADS, MODEL, example_batch
from bertkit.specimens import train as train_specimen
from bertkit.world import World

SCHEMA = 1
OUT_OF_MEMORY = ("memoryerror", "outofmemory", "out of memory", "allocate memory", "not enough memory")


@dataclass
class Bench:
    """A measurement under way."""

    plan: Plan
    amount: Amount
    world: World
    display: Display
    _weights: tuple[object, Arrays] | None = None  # of the last case: the next one often has the same model
    _memory: int | None = None  # what the last engine said of its process
    peaks: dict[Precision, Peak] = field(default_factory=dict)
    cases: list[dict[str, Any]] = field(default_factory=list)

    def run(self, output: Path) -> dict[str, Any]:
        """Measure all cases, keep the record in `output`, return it."""
        self._try_precisions()
        made = {
            "schema": SCHEMA,
            "kind": f"bench-{self.plan.kind}",
            **record.environment(self.world),
            "backend": {"name": self.plan.backend.name, "reason": self.plan.choice.reason},
            "rules": RULES,
            "settings": self._settings(),
            "cases": self.cases,
        }
        self._write(output, made)  # a place that cannot be written is known before the work, not after it
        for number, case in enumerate(self.plan.cases, 1):
            self.display.say(f"case {number} of {len(self.plan.cases)}: {case}")
            self.cases.append(self._case(case))
            self._write(output, made)
        return made

    def _write(self, output: Path, made: dict[str, Any]) -> None:
        if self.world.is_first:
            write_json(output, made)

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
            "device": dict(self.plan.settings),
        }

    def _try_precisions(self) -> None:
        """One small update or call in each precision: an engine that refuses one says so before the work.

        The rate for MFU is taken here too, so that all cases of a precision are held against the same.
        """
        for precision in dict.fromkeys(case.precision for case in self.plan.cases):
            weights = initial(MODEL, HEADS["classification"], 1)
            head, rules = HEADS["classification"], exchange(self.plan.recipe)
            job = Job(MODEL, head, weights, precision=precision, settings=self.plan.settings, exchange=rules)
            with self._engine(job) as engine:
                if self.plan.kind == "train":
                    train_specimen(engine, example_batch("classification"), "classification", 1)
                else:
                    engine.predict(example_batch("classification"))
                self.peaks[precision] = engine.peak()

    @contextlib.contextmanager
    def _engine(self, job: Job) -> Iterator[Engine]:
        engine = self.plan.backend.engine(job, self.world)
        try:
            yield engine
        finally:
            engine.close()
            del engine
            gc.collect()

    def _case(self, case: Case) -> dict[str, Any]:
        """One case's entry in the record; one that does not fit into memory is an entry too."""
        work = self.plan.workload(case)
        entry = {
            "model": case.model.name,
            "precision": case.precision,
            "lengths": case.lengths,
            "batch_size": case.batch_size,
            "global_batch_size": case.batch_size * self.world.size,
            "workload": work.describe(),
        }
        forget_peak_memory()
        try:
            with self._engine(self._job(case, work)) as engine:
                measured = self._measure(engine, case, work)
                if case.precision not in self.peaks:
                    self.peaks[case.precision] = engine.peak()
                return entry | {"status": "measured"} | self._figures(case, measured, engine)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            if self.world.size > 1:  # the other ranks wait in a collective for this one
                raise UserError(f"{case}: out of memory on rank {self.world.rank}", "take a smaller batch") from error
            reason = f"out of memory: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
            self.display.warn(f"{case}: {reason}")
            return entry | {"status": "failed", "reason": reason}

    def _job(self, case: Case, work: Workload) -> Job:
        recipe, model = self.plan.recipe, case.model
        key = (model, work.head)
        if self._weights is None or self._weights[0] != key:
            self._weights = None  # before the next is made
            if model.source:
                weights = dict(starting_weights(model.source, work.head, recipe.seed).weights)
            else:
                weights = initial(model.config, work.head, recipe.seed)
            self._weights = key, weights
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
        )

    def _measure(self, engine: Engine, case: Case, work: Workload) -> Measured:
        recipe, model = self.plan.recipe, case.model.config
        common = self.amount, self.world, self.display
        if self.plan.kind == "infer":
            return infer_case(engine, model, work, case.batch_size, recipe.seed, *common)
        micro, rate = recipe.train.micro_batch_size, recipe.optimizer.learning_rate
        return train_case(engine, model, work, case.batch_size, micro, rate, recipe.seed, *common)

    def _figures(self, case: Case, measured: Measured, engine: Engine) -> dict[str, Any]:
        reading = measured.reading
        rates = record.throughput(reading, self.peaks[case.precision], self.world)
        del rates["warmup_rule"]  # RULES has it, for calls too
        times = record.percentiles([1e3 * seconds for seconds in measured.times])
        name = "update_milliseconds" if self.plan.kind == "train" else "latency_milliseconds"
        return {
            "throughput": rates,
            "waiting_for_data_seconds": record.number(reading.waiting_for_data),
            "waiting_for_data_share": record.number(reading.per_second(reading.waiting_for_data)),
            name: times | {"timed": len(measured.times)},
            **({"updates_between_waits": measured.waits} if self.plan.kind == "train" else {}),
            "last_loss": record.number(measured.loss),
            **self._peak_memory(engine),
            "engine": dict(engine.describe()),
        }

    def _peak_memory(self, engine: Engine) -> dict[str, Any]:
        """Of the rank that needed most. A counter that stands where the last case left it only says `at most`."""
        mine = engine.peak_memory()
        most = float(engine.gather(np.array([np.nan if mine is None else float(mine)])).max())
        before, self._memory = self._memory, mine
        return {
            "peak_memory_bytes": None if np.isnan(most) else int(most),
            "peak_memory_at_most": mine is not None and mine == before,
        }


def record_file(kind: Kind, asked: Path | None, overwrite: bool) -> Path:
    """Where the record goes; by itself a new file each time. Raises UserError where `asked` is taken."""
    if asked is None:
        return Path("runs", "bench", f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}.json")
    path = asked.expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder", "-o takes the record's file, as in -o bench.json")
    if path.exists() and not overwrite:
        raise UserError(f"{path} is there already", "choose another file, or replace it with --overwrite")
    return path


def forget_peak_memory() -> None:
    """Let the process's peak count from now, where the system can (Linux, proc(5), clear_refs)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def out_of_memory(error: BaseException) -> bool:
    """Whether a framework's error means that something did not fit; frameworks name it in words."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)
