"""Pre-training's phases, sets and plan: what is learnt from, what is scored, when, and what cannot be."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.console import Display
from bertkit.data.pretraining.evaluation_set import first_rows, hold_out
from bertkit.data.pretraining.formats.manifest import Manifest, ShardEntry, write_manifest
from bertkit.data.pretraining.sampler import BinnedSampler, ShardRange
from bertkit.distributed.world import World
from bertkit.engine.interface import Engine
from bertkit.errors import UserError
from bertkit.files.disk import read_arrays
from bertkit.training.pretraining_evaluation import score_set
from command import tensors
from pretraining_files import MASK, PIECES, Known, known_sequences, write_hdf5, write_vocabulary
from pretraining_runs import TWO, course, run, write_phases

quick = settings(deadline=None, max_examples=60)
shards = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 60)), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("pretraining"))


def parts_of(sizes: list[tuple[int, int]]) -> tuple[ShardRange, ...]:
    firsts = np.cumsum([0, *(size for _, size in sizes)])
    return tuple(ShardRange(bin, int(first), size) for (bin, size), first in zip(sizes, firsts, strict=False))


def numbers(parts: tuple[ShardRange, ...]) -> list[int]:
    return [number for part in parts for number in range(part.first, part.first + part.sequences)]


@quick
@given(shards, st.floats(0.0, 1.0), st.integers(0, 1000), st.integers(1, 50))
def test_what_is_set_apart_is_not_learnt_from_and_nothing_is_lost(
    sizes: list[tuple[int, int]], share: float, seed: int, most: int
) -> None:
    parts = parts_of(sizes)
    left, apart = hold_out(parts, share, seed, most)
    assert sorted([*numbers(left), *apart.tolist()]) == numbers(parts)
    total = sum(size for _, size in sizes)
    assert len(apart) <= min(most, share * total) + 4  # a rounding in each bin
    again = hold_out(parts, share, seed, most)
    assert np.array_equal(again[1], apart)


def test_a_tenth_is_a_tenth_of_each_bin() -> None:
    parts = parts_of([(0, 100), (1, 50), (0, 100)])
    left, apart = hold_out(parts, 0.1, seed=1)
    assert len(apart) == 25
    assert sum(part.sequences for part in left if part.bin == 1) == 45
    draws = {tuple(hold_out(parts_of([(0, 10)] * 40), 0.1, seed)[1].tolist()) for seed in range(5)}
    assert len(draws) == 5  # the seed draws which shards give some


@quick
@given(shards, st.integers(0, 2000))
def test_the_first_rows_are_the_first(sizes: list[tuple[int, int]], rows: int) -> None:
    parts = parts_of(sizes)
    assert numbers(first_rows(parts, rows)) == numbers(parts)[: rows or None]


@quick
@given(
    shards.filter(lambda sizes: any(size for _, size in sizes)),
    st.integers(1, 12),
    st.integers(0, 99),
    st.integers(0, 40),
)
def test_samples_are_counted_without_making_them(
    sizes: list[tuple[int, int]], batch: int, seed: int, start: int
) -> None:
    sampler = BinnedSampler(parts_of(sizes), batch, seed, 20)
    first = start % sampler.steps_per_epoch + 1
    for last in range(first - 1, sampler.steps_per_epoch + 1):
        made = sum(len(examples) for _, examples in sampler.batches(first, last))
        assert sampler.amount(first, last) == made


def test_two_phases_have_their_own_data_batch_and_rate(data: Path) -> None:
    found = course(data, **TWO)
    one, two = found.phases
    assert [phase.place.name for phase in found.phases] == ["phase1", "phase2"]
    assert (one.scored_on.kind, two.scored_on.kind) == ("own", "set apart")
    assert len(one.scored_on.examples) == 30
    assert (one.before, one.end, two.before, two.end) == (0, 9, 9, 14)
    assert (one.sampler.batch_size, two.sampler.batch_size) == (16, 8)
    assert two.sampler.examples + len(two.scored_on.examples) == 60
    assert found.plan.steps == 14
    rates = [found.plan.learning_rate(step) for step in range(1, 15)]
    assert rates[0] == rates[9] == 0  # the schedule begins anew
    assert max(rates[:9]) == 5e-5
    assert max(rates[9:]) == 1e-3
    assert [step for step in range(1, 15) if found.plan.evaluates(step)] == [4, 8, 9, 13, 14]
    assert [step for step in range(1, 15) if found.plan.saves(step)] == [2, 4, 6, 8, 9, 10, 12, 14]


def test_the_second_phase_alone_and_the_first_alone(data: Path) -> None:
    alone = course(data, **TWO | {"train.phases": "2"})
    assert [(phase.number, phase.before, phase.end) for phase in alone.phases] == [(2, 0, 5)]
    assert course(data, **TWO | {"train.phases": "1"}).plan.steps == 9


def test_every_sequence_once_an_epoch_whatever_the_ranks(data: Path) -> None:
    seen: dict[int, list[list[int]]] = {}
    for ranks in (1, 2, 3):
        made: list[list[int]] = [[] for _ in range(14)]
        for rank in range(ranks):
            world = World(rank=rank, size=ranks, local_rank=rank, local_size=ranks)
            mine = course(data, world, **TWO | {"train.global_batch": 18, "phase2.global_batch": 6})
            for update in mine.updates(1, 14):
                for batch in update.micro_batches:
                    made[update.step - 1] += batch["example_ids"].tolist()
        seen[ranks] = [sorted(step) for step in made]
    assert seen[1] == seen[2] == seen[3]
    epoch = course(data, **TWO | {"train.global_batch": 18}).phases[0].sampler.steps_per_epoch
    assert sorted(number for step in seen[1][:epoch] for number in step) == list(range(110))


def test_samples_of_a_run_are_those_of_its_updates(data: Path) -> None:
    found = course(data, **TWO)
    total = 0
    for update in found.updates(1, 14):
        total += update.label_counts["sequences"]
        assert found.samples(update.step) == total


def test_evaluations_come_by_samples(data: Path) -> None:
    by = {"evaluation.every_samples": 40, "evaluation.start_samples": 60, "train.steps": 12}
    found = course(data, **by)
    assert [step for step in range(1, 13) if found.plan.evaluates(step)] == [5, 8, 10, 12]  # 80, 120, 160 and the end


class Fixed:
    """An engine that always says the same, for known scores."""

    def __init__(self, piece: int) -> None:
        self.piece = piece

    def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        logits = np.zeros((len(batch["masked_labels"]), len(PIECES)), np.float32)
        logits[:, self.piece] = 2.0
        return {"masked_logits": logits, "logits": np.eye(2, dtype=np.float32)[np.ones_like(batch["labels"])]}

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows


def _original(one: Known, place: int) -> int:
    """What stood there before it was masked."""
    return dict(one.masks).get(place, one.ids[place])


def test_scores_are_sums_over_all_masked_positions(data: Path) -> None:
    phase = course(data, **TWO).phases[1]
    known = known_sequences(60, seed=70)
    mine = [known[int(number)] for number in phase.scored_on.examples]
    labels = np.array([label for one in mine for _, label in one.masks])
    piece = int(np.bincount(labels).argmax())
    text = np.bincount([_original(one, at) for one in known for at in range(len(one.ids))], minlength=len(PIECES))
    text[: MASK + 1] = 0
    engine: Engine = Fixed(piece)  # type: ignore[assignment]
    for size in (1, 7, 64):
        found, baseline = score_set(engine, phase.scored_on, size, phase.unigram, World(), Display(quiet=True))
        right = float((labels == piece).mean())
        assert found["mlm_accuracy"] == pytest.approx(right)
        assert found["nsp_accuracy"] == pytest.approx(np.mean([one.random for one in mine]))
        wide = np.log(np.exp(2.0) + len(PIECES) - 1)
        assert found["mlm_loss"] == pytest.approx(wide - 2.0 * right)
        assert baseline["mlm_accuracy"] == pytest.approx(float((labels == text.argmax()).mean()))
        assert baseline["mlm_loss"] == pytest.approx(-np.log((text[labels] + 1) / (text.sum() + len(PIECES))).mean())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("output", ["masked_logits", "logits"])
def test_logits_that_are_not_finite_are_no_score(output: str, value: float, data: Path) -> None:
    """NaN for one masked position or one sequence of every batch: argmax would call it piece 0 or "it follows"."""

    class Broken(Fixed):
        def predict(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            said = super().predict(batch)
            said[output][0, 0] = value
            return said

    phase = course(data, **TWO).phases[1]
    sequences = len(phase.scored_on.examples)
    batches = sum(1 for _ in phase.scored_on.batches(7, 0, 1))
    engine: Engine = Broken(3)  # type: ignore[assignment]
    wrong = (batches, 0) if output == "masked_logits" else (0, batches)
    words = rf"^{wrong[0]} of \d+ masked positions and {wrong[1]} of {sequences} sequences .* not finite"
    with pytest.raises(UserError, match=words):
        score_set(engine, phase.scored_on, 7, phase.unigram, World(), Display(quiet=True))


def test_the_evaluation_set_is_dealt_without_doubling(data: Path) -> None:
    scored_on = course(data, **TWO).phases[0].scored_on
    batches = [batch for rank in range(3) for batch in scored_on.batches(4, rank, 3)]
    seen = [number for batch in batches for number in batch["example_ids"].tolist()]
    assert sorted(seen) == list(range(30))
    again = next(iter(dataclasses.replace(scored_on).batches(30, 0, 1)))
    assert np.array_equal(again["input_ids"], next(iter(scored_on.batches(30, 0, 1)))["input_ids"])  # masks stay


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"data.eval_dir": "nowhere"}, "evaluation set nowhere does not exist"),
        ({"data.dir": "nowhere", "model.vocab": "vocab.txt"}, "nowhere: there is no such file or folder"),
        ({"data.dir": "nowhere"}, "nowhere: there is no such file or folder"),  # whose vocabulary lies in it
        ({"data.seq_length": 16}, "its sequences have up to"),
        ({"data.seq_length": 600}, "over tiny's 512 positions"),
        ({"train.global_batch": 15, "ranks": 2}, "does not divide among 2 processes"),
        ({"data.shard": "0/2"}, "has no data.shard"),
        ({"checkpoint.result": "best", "train.phases": "1,2"}, "neither is best"),
        ({"phase2.data_dir": "gone", "train.phases": "1,2"}, "gone: there is no such file or folder"),
        ({"data.masking": "static"}, "was made without masks"),
    ],
)
def test_what_cannot_be_is_one_line(
    settings: dict[str, str | int | float], words: str, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    ranks = int(settings.get("ranks", 1))
    given = {name: value for name, value in settings.items() if name != "ranks"}
    with pytest.raises(UserError, match=words) as caught:
        course(data, World(size=ranks, local_size=ranks), **given)
    assert "\n" not in str(caught.value)
    assert caught.value.cure


def test_one_shard_has_the_vocabulary_that_lies_beside_it(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", known_sequences(200, seed=1))
    write_vocabulary(tmp_path)
    assert course(tmp_path / "a.hdf5").setup.source.vocabulary.pieces == PIECES


def test_a_vocabulary_that_does_not_fit_is_refused_before_training(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", known_sequences(50, seed=1))
    write_vocabulary(tmp_path)
    short = tmp_path / "short.txt"
    short.write_text("\n".join(PIECES[:30]) + "\n")
    with pytest.raises(UserError, match="has the id"):
        course(tmp_path, **{"model.vocab": str(short)})
    shard = tmp_path / "a.hdf5"
    entry = ShardEntry("a.hdf5", 50, 1, 1, shard.stat().st_size, "0" * 64)
    write_manifest(tmp_path, Manifest({"vocabulary": "another"}, 1, 1, 1, 50, 6, {}, (), (entry,)))
    with pytest.raises(UserError, match="was made with another vocabulary"):
        course(tmp_path)


def test_a_share_of_less_than_one_sequence_cannot_be_set_apart(tmp_path: Path) -> None:
    write_hdf5(tmp_path / "a.hdf5", known_sequences(20, seed=1))
    write_vocabulary(tmp_path)
    with pytest.raises(UserError, match="not one to set apart"):
        course(tmp_path, **{"data.held_out": 0.01})
    found = course(tmp_path, **{"data.held_out": 0.0}).phases[0]
    assert found.scored_on.kind == "training"
    assert found.sampler.examples == len(found.scored_on.examples) == 20


def test_fewer_shards_than_processes_leave_nobody_without(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = World(size=2, local_size=2)
    course(data, world, **TWO).introduce(Display())
    assert "phase 2: 1 shards for 2 processes: each reads all, none goes without" in capsys.readouterr().err


def test_a_job_ends_after_its_steps_and_the_chain_is_the_whole(data: Path, tmp_path: Path) -> None:
    whole = run(data, tmp_path / "whole", **TWO)
    assert whole.record is not None
    legs = [run(data, tmp_path / "chain", True, **TWO | {"train.steps_this_run": 4}) for _ in range(4)]
    assert [(leg.record is None, leg.exit_code) for leg in legs] == [(True, 0), (True, 0), (True, 0), (False, 0)]
    last = legs[-1].record
    assert last is not None
    for key in ("losses", "metrics", "updates"):
        assert last[key] == whole.record[key], key
    states = [read_arrays(tensors(folder, 14))[0] for folder in (whole.folder, legs[-1].folder)]
    assert states[0]["null.seen"] == states[1]["null.seen"]  # a digest of all tokens in their order
    kept = sorted(path.name for path in (whole.folder / "checkpoints").glob("*.json"))
    assert kept == [f"step-{step:08d}.json" for step in (10, 12, 14)]


def test_other_data_or_phases_are_not_gone_on_with(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", **TWO | {"train.steps_this_run": 3})
    for changed in ({"phase2.steps": 6}, {"phase2.learning_rate": 2e-3}, {"data.held_out": 0.5}, {"seed": 2}):
        with pytest.raises(UserError, match="the run was started with"):
            run(data, tmp_path / "run", True, **TWO | changed)


def test_a_target_ends_the_run_and_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aim = TWO | {"evaluation.target_mlm_accuracy": 0.01, "data.held_out": 0.5}
    missed = run(data, tmp_path / "missed", **aim).record
    assert missed is not None
    assert missed["method"]["rules"]["mlm_accuracy 0.01"] == "not reached"
    labels = [label for one in known_sequences(60, seed=70) for _, label in one.masks]
    frequent = Fixed(int(np.bincount(labels).argmax()))
    monkeypatch.setattr("bertkit_null.engine.NullEngine.predict", lambda engine, batch: frequent.predict(batch))
    reached = run(data, tmp_path / "reached", **aim)
    assert reached.record is not None
    assert reached.record["updates"] == 13  # the first evaluation of the last phase: the first has another set
    assert reached.record["method"]["rules"]["mlm_accuracy 0.01"].startswith("reached after 1")
    assert len(reached.record["losses"]) == 13
    again = run(data, tmp_path / "reached", True, **aim).record
    assert again is not None
    assert again["updates"] == 13  # it does not go on


def test_the_record_tells_of_both_phases(data: Path, tmp_path: Path) -> None:
    made = run(data, tmp_path / "run", **TWO).record
    assert made is not None
    assert made["data"]["train"]["sequences"] == 110 + 59
    assert [part["sequences"] for part in made["data"]["evaluation"]] == [30, 1]
    assert made["fairness"]["optimizer"].startswith("LAMB")
    assert "phase 2: 5 updates of 8 sequences" in made["fairness"]["schedule"]
    assert made["units"] == {"mlm_accuracy": "fraction", "mlm_loss": "nats", "nsp_accuracy": "fraction"}
    assert set(made["majority_class"]) == set(made["metrics"])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"type_vocab_size": 1}, "has pairs of texts, but the type_vocab_size of .* is 1"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is false"),
        ({"is_decoder": True}, "is_decoder is True"),
    ],
    ids=str,
)
def test_a_model_that_cannot_learn_from_pairs_or_masks_is_refused(
    changed: dict[str, object], said: str, data: Path, tmp_path: Path
) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    write_vocabulary(tmp_path)
    keys = sizes | {"vocab_size": len(PIECES), "model_type": "bert"} | changed
    (tmp_path / "config.json").write_text(json.dumps(keys))
    with pytest.raises(UserError, match=said):
        course(data, model__name=str(tmp_path))
