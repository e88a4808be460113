"""Parity of real runs: rounding keeps to the tolerance, and each planted difference is found at its update."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bertkit.cli.main import main
from bertkit.comparison.load import read_one
from bertkit.comparison.parity import Parity, hold
from bertkit.distributed.world import World
from bertkit.engine.interface import Engine, Job
from bertkit_cpu import CpuBackend
from command import settings
from planted import clip_each_micro_batch

STEPS = 30
COMMON = ("train", "--backend", "cpu", "-t", "sample", "-m", "tiny", "-s", "32", "-d", "fp32", "-q", "--lr", "1e-3")
WITHOUT_DROPOUT = settings(model__hidden_dropout=0, model__attention_dropout=0)

Train = Callable[..., int]


@pytest.fixture(scope="module")
def runs(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Train]:
    """A folder for runs and what trains one there, in this process: (name, words) -> exit code."""
    folder = tmp_path_factory.mktemp("parity")
    amount = settings(data__cache=folder / "cache", train__steps=STEPS, data__eval_rows=32, schedule__warmup=0.1)

    def train(name: str, *words: str, dropout: bool = False) -> int:
        given = ("--data-dir", str(sample_dir), *amount, *(() if dropout else WITHOUT_DROPOUT))
        with pytest.raises(SystemExit) as end:
            main([*COMMON, *given, *words, "-o", str(folder / name)])
        return int(str(end.value.code or 0))

    assert train("base", *settings(model__layout="unpadded")) == 0
    return folder, train


def against_base(runs: tuple[Path, Train], name: str) -> Parity:
    return hold(read_one(runs[0] / "base"), read_one(runs[0] / name))


@pytest.mark.slow
def test_another_layout_and_split_are_at_parity(runs: tuple[Path, Train]) -> None:
    folder, train = runs
    words = settings(model__layout="padded", train__micro_batch_size=8)
    assert train("padded", *words, "--parity-with", str(folder / "base")) == 0
    found = against_base(runs, "padded")
    assert found.verdict.holds
    assert found.verdict.steps == STEPS
    assert found.reasons == []


@pytest.mark.parametrize(
    ("name", "words", "first_trace", "reason"),
    [
        # another seed: another head and order from the first batch on
        ("seed", ["--seed", "2"], 1, "the seeds differ: 1 and 2"),
        # warm-up starts at a rate of 0, so the second update is the first that moves, and the third loss shows it
        ("clip", settings(optimizer__clip_norm=0.1), 3, "gradient norm"),
    ],
)
def test_a_planted_difference_is_found_at_its_update(
    runs: tuple[Path, Train],
    name: str,
    words: list[str],
    first_trace: int,
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, train = runs
    assert train(name, *settings(model__layout="unpadded"), *words, "--parity-with", str(folder / "base")) == 1
    assert "parity fails at update" in capsys.readouterr().err, "said although -q"
    found = against_base(runs, name)
    verdict = found.verdict
    assert verdict.parting is not None
    assert verdict.seen is not None
    assert verdict.seen.step == first_trace
    assert first_trace <= verdict.parting.step <= first_trace + 3
    assert any(reason in line for line in found.reasons), found.reasons


@pytest.mark.slow
def test_another_clip_order_is_found_although_no_setting_tells_it(
    runs: tuple[Path, Train], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, train = runs
    words = settings(model__layout="unpadded", train__micro_batch_size=8, optimizer__clip_norm=0.1)
    assert train("global-clip", *words) == 0
    make = CpuBackend.engine

    def faulty(card: CpuBackend, job: Job, world: World) -> Engine:
        engine = make(card, job, world)
        clip_each_micro_batch(engine)
        return engine

    monkeypatch.setattr(CpuBackend, "engine", faulty)
    assert train("clip-order", *words) == 0
    found = hold(read_one(folder / "global-clip"), read_one(folder / "clip-order"))
    assert found.reasons == [], "both records say the same"
    assert found.verdict.parting is not None
    assert found.verdict.seen is not None
    assert found.verdict.seen.step == 3, "the first update has a rate of 0"
    assert found.verdict.parting.step <= 6


def test_dropout_is_found_at_the_first_update(runs: tuple[Path, Train]) -> None:
    _, train = runs
    assert train("dropout", *settings(model__layout="unpadded"), dropout=True) == 0
    found = against_base(runs, "dropout")
    assert found.verdict.parting is not None
    assert found.verdict.parting.step == 1
    assert any("dropout of the dense layers: 0 (A); 0.1 (B)" in line for line in found.reasons)


def test_a_record_that_cannot_be_followed_stops_before_training(runs: tuple[Path, Train]) -> None:
    folder, train = runs
    (folder / "torn.json").write_text('{"schema": 2, "kind"')
    assert train("never", "--parity-with", str(folder / "torn.json")) == 2
    assert not (folder / "never").exists()


def test_the_record_says_what_the_losses_were(runs: tuple[Path, Train]) -> None:
    made = json.loads((runs[0] / "base" / "record.json").read_text())
    assert read_one(runs[0] / "base").losses.tolist() == made["losses"]
    assert len(made["losses"]) == STEPS
