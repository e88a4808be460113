"""`bertkit bench` without a framework: the cases planned, the batches made, the times taken, what does not fit."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.bench.measure import FEWEST, Amount, calls, infer_case, train_case
from bertkit.bench.plan import Lists, check_sets, make_plan, split_list, whole_numbers
from bertkit.bench.run import Bench, out_of_memory, record_file
from bertkit.bench.suite import Kind
from bertkit.bench.table import figure, show
from bertkit.bench.workload import built_in
from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.engine.flops import forward_flops, training_flops
from bertkit.engine.interface import Arrays, Batch, Capabilities, Engine, Job, Peak, Probe, Scalars, Setting, Update
from bertkit.engine.registry import Choice
from bertkit.errors import UserError
from bertkit.model.config import ARCHITECTURES
from bertkit.recipes.resolve import resolve
from bertkit.records.energy import nothing
from bertkit.records.files import load_all

TINY = ARCHITECTURES["tiny"]
QUIET = Display(quiet=True)

NO_ENERGY = nothing("a test")


class FakeEngine:
    """Takes `seconds` an update and a call, and fails where a batch is larger than `most`."""

    def __init__(self, job: Job, seconds: float, most: int, memory: list[int]) -> None:
        self.job, self.seconds, self.most, self.memory = job, seconds, most, memory
        self.steps: list[int] = []
        self.closed = False

    def stage(self, update: Update) -> Update:
        return update

    def train_step(self, update: Update, learning_rate: float) -> Scalars:
        self._work(update.micro_batches)
        self.steps.append(update.step)
        slots = 2 * sum(len(batch["input_ids"]) for batch in update.micro_batches)
        return {"loss": 0.5, "grad_norm": 1.0, "slots": slots}

    def predict(self, batch: Batch) -> Arrays:
        self._work((batch,))
        return {}

    def slots(self, lengths: np.ndarray) -> int:
        return 2 * int(lengths.sum())

    def _work(self, batches: tuple[Batch, ...]) -> None:
        if sum(len(batch["example_ids"]) for batch in batches) > self.most:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 64 bytes.\nmore")
        time.sleep(self.seconds)

    def weights(self) -> Arrays:
        return {}

    def state_dict(self) -> Arrays:
        return {}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        pass

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def synchronize(self) -> None:
        pass

    def describe(self) -> Mapping[str, str]:
        return {"layout": "padded", "compute dtype": self.job.precision}

    def peak(self) -> Peak:
        return Peak(1e18, "made up")

    def peak_memory(self) -> int | None:
        return self.memory.pop(0) if self.memory else None

    def close(self) -> None:
        self.closed = True


class FakeBackend:
    name = "fake"
    aliases: tuple[str, ...] = ()
    preference = -1
    capabilities = Capabilities(("fp32", "bf16"), ("classification", "span", "pretraining"), ("padded",))
    settings: Mapping[str, Setting] = {}

    def __init__(self, seconds: float = 0.0, most: int = 10**9, memory: tuple[int, ...] = ()) -> None:
        self.seconds, self.most, self.memory = seconds, most, list(memory)
        self.engines: list[FakeEngine] = []

    def probe(self) -> Probe:
        return Probe(True, "made up")

    def engine(self, job: Job, world: World) -> Engine:
        if self.engines:
            assert self.engines[-1].closed, "two engines at a time"
        self.engines.append(FakeEngine(job, self.seconds, self.most, self.memory))
        return self.engines[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    card = FakeBackend()
    monkeypatch.setattr("bertkit.bench.plan.choose", lambda name, dry_run: Choice(card, "asked for"))
    return card


def bench(kind: Kind, *sets: str, steps: int = 5, **lists: Any) -> Bench:
    wanted = {"models": ["tiny"], "precisions": ["fp32"], "lengths": ["mrpc"], "batch_sizes": [4]} | lists
    plan = make_plan(kind, Lists(**wanted), resolve({}, sets, env={}).recipe, 0, lambda *_: None)
    return Bench(plan, Amount(steps, 1.0), World(), QUIET)


def test_cases_are_all_combinations(fake: FakeBackend) -> None:
    plan = bench("train", precisions=["fp32", "bf16"], lengths=["mrpc", "64"], batch_sizes=[1, 8]).plan
    assert [(case.lengths, case.precision, case.batch_size) for case in plan.cases] == [
        (name, precision, size) for name in ("mrpc", "64") for precision in ("fp32", "bf16") for size in (1, 8)
    ]


@pytest.mark.parametrize(
    ("words", "lists"),
    [
        ("no int8|not for training", {"precisions": ["int8"]}),
        ("no length distribution", {"lengths": ["mrpc", "nothing"]}),
        ("1024 tokens, over tiny's 512", {"lengths": ["1024"]}),
    ],
)
def test_what_cannot_run_is_refused_in_the_plan(fake: FakeBackend, words: str, lists: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=words):
        bench("train", **lists)
    assert fake.engines == []


@pytest.mark.parametrize("text", ["", "8,", ",8", "8,,9"])
def test_a_list_with_a_hole_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="lacks a value"):
        split_list(text, "-m")


@given(st.text(max_size=8))
def test_batch_sizes_are_whole_numbers_or_an_error(text: str) -> None:
    with contextlib.suppress(UserError):
        assert all(number > 0 for number in whole_numbers(text, "-b"))


@pytest.mark.parametrize("key", ["train.batch_size=4", "model.name=base", "precision=fp32", "train.epochs=1", "x"])
def test_a_setting_without_effect_is_refused(key: str) -> None:
    with pytest.raises(UserError, match="does not use it"):
        check_sets("train", [key])
    check_sets("train", ["optimizer.clip_norm=0", "device.threads=1", "train.micro_batch_size=2"])
    with pytest.raises(UserError, match="does not use it"):
        check_sets("infer", ["optimizer.clip_norm=0"])


@pytest.mark.parametrize("name", ["mrpc", "squad384", "wiki128", "wiki512", "7"])
def test_a_workload_is_a_batch_as_the_seam_wants_it(name: str) -> None:
    work = built_in(name, TINY, 32, 0, 1)
    examples = np.array([5, 0, 77])
    batch = work.features.batch(examples)
    starts = batch["cu_seqlens"]
    tokens = int(starts[-1])
    assert len(work.features) % 32 == 0
    assert len(batch["input_ids"]) == len(batch["token_type_ids"]) == tokens
    assert batch["input_ids"].dtype == np.int32
    assert 0 <= batch["input_ids"].min() <= batch["input_ids"].max() < TINY.vocab_size
    if work.head.kind == "span":
        assert (batch["start_positions"] <= batch["end_positions"]).all()
        assert (batch["end_positions"] < np.diff(starts)).all()
    if work.head.kind == "pretraining":
        places = batch["masked_positions"]
        assert (np.diff(places) > 0).all()  # ascending, none twice
        owner = np.searchsorted(starts, places, side="right") - 1
        assert work.masked(np.diff(starts)) == len(places) == len(batch["masked_labels"])
        assert np.bincount(owner).tolist() == [work.masked(np.array([length])) for length in np.diff(starts)]
        assert not set(starts.tolist()) & set(places.tolist())  # never a sequence's first token
    assert built_in(name, TINY, 32, 0, 1).features.digest() == work.features.digest()


def test_lengths_are_cut(fake: FakeBackend) -> None:
    assert built_in("squad384", TINY, 8, 100, 1).features.lengths.max() == 100


def test_calls_bring_every_sequence_once_a_turn_over_all_ranks() -> None:
    features = built_in("mrpc", TINY, 8, 0, 1).features
    groups = len(features) // 8
    streams = [calls(features, 8, 1, World(rank, 2)) for rank in range(2)]
    seen = np.concatenate([next(streams[n % 2]).micro_batches[0]["example_ids"] for n in range(groups)])
    assert sorted(seen) == list(range(len(features)))
    first = next(calls(features, 8, 2, World())).micro_batches[0]
    assert np.ptp(np.diff(first["cu_seqlens"])) <= 20  # like lengths in one call


def test_training_counts_what_the_loop_does() -> None:
    work = built_in("mrpc", TINY, 4, 0, 1)
    engine = FakeEngine(Job(TINY, work.head, {}), 0.002, 99, [])
    done = train_case(engine, TINY, work, 4, 0, 1e-5, 1, Amount(40, 1.0), World(), QUIET, NO_ENERGY)
    assert engine.steps == list(range(1, 41))
    assert (done.reading.updates, done.reading.sequences, done.waits) == (36, 144, 4)
    assert done.reading.padding_efficiency == 0.5
    assert len(done.times) == 9  # 36 updates, the device waited for after every fourth
    assert min(done.times) >= 0.002
    assert 4 * sum(done.times) == pytest.approx(done.reading.seconds, rel=0.05)
    assert done.loss == 0.5


def test_inference_times_each_call_after_the_warm_up() -> None:
    work = built_in("wiki512", TINY, 3, 0, 1)
    engine = FakeEngine(Job(TINY, work.head, {}), 0.001, 99, [])
    done = infer_case(engine, TINY, work, 3, 1, Amount(20, 1.0), World(), QUIET, NO_ENERGY)
    assert (done.reading.updates, done.reading.sequences, len(done.times)) == (18, 54, 18)
    assert min(done.times) >= 0.001
    assert sum(done.times) <= done.reading.seconds
    assert done.reading.padding_efficiency == 0.5  # the engine says that it computes twice as many places


@pytest.mark.parametrize("kind", ["train", "infer"])
def test_flops_are_those_of_the_counted_batches(kind: Kind) -> None:
    """With every sequence of one length the sum is known: masked positions and the backward pass included."""
    work = built_in("wiki128", TINY, 4, 0, 1)
    engine, amount = FakeEngine(Job(TINY, work.head, {}), 0.0, 99, []), Amount(10, 1.0)
    if kind == "train":
        done = train_case(engine, TINY, work, 4, 0, 1e-5, 1, amount, World(), QUIET, NO_ENERGY)
    else:
        done = infer_case(engine, TINY, work, 4, 1, amount, World(), QUIET, NO_ENERGY)
    formula = training_flops if kind == "train" else forward_flops
    assert done.reading.flops == pytest.approx(formula(TINY, work.head, np.full(36, 128), masked=36 * 19))


@pytest.mark.parametrize("seconds", [0.01, 0.2])
def test_seconds_choose_the_amount(seconds: float) -> None:
    work = built_in("8", TINY, 1, 0, 1)
    engine = FakeEngine(Job(TINY, work.head, {}), 0.005, 99, [])
    start = time.perf_counter()
    done = infer_case(engine, TINY, work, 1, 1, Amount(0, seconds), World(), QUIET, NO_ENERGY)
    assert time.perf_counter() - start < 3 * seconds + 2
    assert FEWEST - 1 <= done.reading.updates <= max(FEWEST, seconds / 0.005)


def test_a_case_that_does_not_fit_is_an_entry_and_the_rest_goes_on(fake: FakeBackend, tmp_path: Path) -> None:
    fake.most = 16
    made = bench("train", batch_sizes=[4, 32, 8]).run(tmp_path / "bench.json")
    assert [one["status"] for one in made["records"]] == ["measured", "does not fit", "measured"]
    assert made["records"][1]["reason"].startswith("out of memory: DefaultCPUAllocator")
    assert all(engine.closed for engine in fake.engines)
    kept = load_all(tmp_path / "bench.json")
    assert [one.mapping for one in kept] == made["records"]
    assert not any(one.edited for one in kept)
    assert kept[1].mapping["throughput"]["sequences_per_second"] is None  # what failed has no figures
    shown = io.StringIO()
    show(made, shown)
    assert "does not fit: tiny, fp32, mrpc, batch 32: out of memory" in shown.getvalue()
    assert "\x1b" not in shown.getvalue()


def test_a_fault_is_not_taken_for_lack_of_memory() -> None:
    assert not out_of_memory(RuntimeError("shapes differ"))
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))


def test_finished_cases_are_on_disk_when_a_later_one_breaks(
    fake: FakeBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = fake.engine

    def two(job: Job, world: World) -> Engine:
        if len(fake.engines) == 2:  # the trial of the precision, and the first case
            raise UserError("the chip is gone")
        return build(job, world)

    monkeypatch.setattr(fake, "engine", two)
    with pytest.raises(UserError, match="the chip is gone"):
        bench("train", batch_sizes=[4, 8]).run(tmp_path / "bench.json")
    assert [one.mapping["case"]["batch_size"] for one in load_all(tmp_path / "bench.json")] == [4]


def test_memory_that_an_earlier_case_may_have_taken_is_marked(fake: FakeBackend, tmp_path: Path) -> None:
    fake.memory = [100, 100, 300]
    made = bench("infer", batch_sizes=[8, 4, 16]).run(tmp_path / "bench.json")
    assert [(one["memory"]["peak_bytes_per_device"], one["memory"]["at_most"]) for one in made["records"]] == [
        (100, False), (100, True), (300, False),
    ]  # fmt: skip


def test_an_engine_is_built_with_what_was_asked(fake: FakeBackend, tmp_path: Path) -> None:
    work = bench(
        "train", "optimizer.clip_norm=0.5", "model.hidden_dropout=0.2", precisions=["bf16"], lengths=["wiki128"]
    )
    made = work.run(tmp_path / "bench.json")
    job = fake.engines[-1].job
    assert (job.precision, job.head.kind, job.optimizer.clip_norm) == ("bf16", "pretraining", 0.5)
    assert (job.model.hidden_dropout_prob, job.model.attention_probs_dropout_prob) == (0.2, 0.1)
    (one,) = made["records"]
    assert one["config"]["optimizer.clip_norm"] == one["fairness"]["clip_norm"] == 0.5
    assert (one["fairness"]["hidden_dropout"], one["fairness"]["most_masked"]) == (0.2, 20)
    assert one["throughput"]["mfu"] > 0


def test_the_records_file_is_new_unless_asked_otherwise(tmp_path: Path) -> None:
    taken = tmp_path / "bench.json"
    taken.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        record_file("train", taken, overwrite=False)
    assert record_file("train", taken, overwrite=True) == taken
    with pytest.raises(UserError, match="is a folder"):
        record_file("train", tmp_path, overwrite=True)
    names = {record_file("infer", None, False).name for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("infer-") for name in names)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0.1234, "0.123"), (99.96, "100.0"), (12.34, "12.3"), (123456.7, "123,457")],
)
def test_figures_have_three_digits(value: float | None, shown: str) -> None:
    assert figure(value) == shown
