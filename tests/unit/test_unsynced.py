"""Workers that do not synchronise: what each does, which one is the best, and what the run's folder then holds."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.console import Display
from bertkit.data.sampler import sharded
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.recipes.resolve import resolve
from bertkit.records.files import load, write
from bertkit.records.schema import blank
from bertkit.training.ensemble import _clear, best_of, publish, worker_recipe
from bertkit.training.recipe_parts import scaled_rate
from bertkit.training.run_folder import open_folder


def worker(rank: int, accuracy: float) -> dict[str, Any]:
    return {
        "rank": rank, "host": "a", "folder": f"worker-{rank}", "seed": 7 + rank, "shard": None, "exit_code": 0,
        "metrics": {"accuracy": accuracy, "f1": 0.5}, "seconds": 2.0 + rank,
        "counted": {"sequences": 100, "tokens": 900, "updates": 10, "slots": 950},
    }  # fmt: skip


def record(rank: int) -> dict[str, Any]:
    made = blank("train") | {"metrics": {"accuracy": 0.1}, "losses": [float(rank)]}
    made["hardware"] |= {"processes": 1}
    made["throughput"] |= {"sequences_per_second": 50.0, "mfu": 0.5}
    return made


def make_folders(folder: Path, ranks: int) -> None:
    for rank in range(ranks):
        own = folder / f"worker-{rank}"
        (own / "predictions").mkdir(parents=True)
        (own / "model.safetensors").write_text(f"model {rank}")
        write(own / "record.json", record(rank))


def test_a_worker_is_a_run_that_one_process_can_repeat() -> None:
    recipe = resolve(
        {"seed": 7, "ranks.shard_data": True, "ranks.learning_rate_scaling": "sqrt"},
        ["optimizer.learning_rate=2e-5"], env={},
    ).recipe  # fmt: skip
    mine = worker_recipe(recipe, World(2, 4, 0, 2), Path("runs/x"))
    assert (mine.seed, mine.output, mine.data.shard) == (9, "runs/x/worker-2", "2/4")
    assert mine.optimizer.learning_rate == pytest.approx(4e-5)
    assert scaled_rate(mine, 1) == scaled_rate(mine, 4)  # scaled once


@pytest.mark.parametrize(("rule", "factor"), [("none", 1), ("sqrt", 2), ("linear", 4)])
def test_the_learning_rate_is_scaled_by_the_rule_that_is_named(rule: str, factor: float) -> None:
    recipe = resolve({"ranks.learning_rate_scaling": rule, "optimizer.learning_rate": 1e-5}, env={}).recipe
    assert scaled_rate(recipe, 4) == pytest.approx(factor * 1e-5)


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 9), st.integers(0, 5))
def test_shares_hold_every_sequence_once(sequences: int, shares: int, batch: int, seed: int) -> None:
    shares = min(shares, sequences)
    seen = []
    for number in range(shares):
        sampler = sharded(sequences, f"{number}/{shares}", batch, seed)
        seen += [examples for _, examples in sampler.batches(1, sampler.steps_per_epoch)]
    assert sorted(np.concatenate(seen)) == list(range(sequences))


def test_a_share_that_does_not_exist_is_refused() -> None:
    for shard in ("3/3", "5/9"):
        with pytest.raises(UserError, match=shard):
            sharded(5 if shard == "5/9" else 50, shard, 8, 1)
    with pytest.raises(UserError, match="shard"):
        resolve({"data.shard": "1/0"}, env={})


def test_the_best_is_the_highest_the_first_of_equals_and_never_nan() -> None:
    assert best_of([worker(0, 0.5), worker(1, 0.7), worker(2, 0.7)], "accuracy") == 1
    assert best_of([worker(0, float("nan")), worker(1, 0.1)], "accuracy") == 1
    errors = [{"metrics": {"rmse": value}} for value in (float("nan"), 0.3, 0.2, 0.2)]
    assert best_of(errors, "rmse") == 2  # of an error the smallest


def test_the_best_workers_files_are_the_runs_and_every_score_is_in_the_record(tmp_path: Path) -> None:
    make_folders(tmp_path, 3)
    workers = [worker(0, 0.6), worker(1, 0.8), worker(2, 0.7)]
    made = publish(tmp_path, workers, "accuracy", record(0), Display(quiet=True))
    found = load(tmp_path)
    assert (found.mapping, found.edited) == (made, False)
    assert (tmp_path / "model.safetensors").read_text() == "model 1"
    assert (tmp_path / "predictions").resolve() == (tmp_path / "worker-1" / "predictions").resolve()
    assert made["losses"] == [1]  # the best worker's own
    assert made["metrics"] == workers[1]["metrics"]
    assert [(one["seed"], one["metrics"]["accuracy"]) for one in made["seeds"]] == [(7, 0.6), (8, 0.8), (9, 0.7)]
    told = made["selected"]
    assert (told["of"], told["seed"], told["metric"]) == (3, 8, "accuracy")
    assert told["mean"] == pytest.approx(0.7)
    assert told["standard_deviation"] == pytest.approx(statistics.stdev([0.6, 0.8, 0.7]))
    assert "selected on the dev set" in told["note"]
    assert made["throughput"]["sequences_per_second"] == pytest.approx(300 / 4.0)  # of all, over the slowest
    assert made["throughput"]["sequences_per_second_per_device"] == pytest.approx(25.0)
    assert made["hardware"]["processes"] == made["hardware"]["device"]["count"] == 3
    assert made["fairness"]["synchronised"] is False
    assert made["throughput"]["mfu"] is None


def test_a_run_can_be_ended_again_and_replaced(tmp_path: Path) -> None:
    make_folders(tmp_path, 2)
    publish(tmp_path, [worker(0, 0.6), worker(1, 0.8)], "accuracy", record(0), Display(quiet=True))
    _clear(tmp_path, overwrite=False)  # a resume
    assert not (tmp_path / "model.safetensors").is_symlink()
    assert (tmp_path / "worker-1" / "model.safetensors").exists()
    publish(tmp_path, [worker(0, 0.9), worker(1, 0.8)], "accuracy", record(0), Display(quiet=True))
    assert (tmp_path / "model.safetensors").read_text() == "model 0"
    open_folder(tmp_path, overwrite=True)  # by a run of another kind: links go, workers' files stay
    assert (tmp_path / "worker-0" / "model.safetensors").read_text() == "model 0"
    _clear(tmp_path, overwrite=True)
    assert list(tmp_path.iterdir()) == []


def test_a_synchronised_runs_files_are_not_mixed_with_workers(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("trained together")
    with pytest.raises(UserError, match="synchronised"):
        _clear(tmp_path, overwrite=False)
    assert (tmp_path / "model.safetensors").read_text() == "trained together"
