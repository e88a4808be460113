"""Pre-training on the torch engine: it learns, a kill anywhere costs nothing, splits and layouts change nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertkit.engine import registry
from bertkit.engine.interface import Scalars, Update
from bertkit.files.disk import read_arrays
from bertkit.recipes.recipe import Value
from bertkit.recipes.resolve import read_recipe
from bertkit_torch.engine import TorchEngine
from bertkit_torch.static import StaticPasses
from command import record, tensors
from pretraining_runs import TWO, run, write_phases
from static_backend import StaticBackend

CPU: dict[str, Value] = {"backend": "cpu", "device.threads": 1}
KILLED_AT = (3, 5, 9, 10, 12)  # in phase 1 before and after a checkpoint, at its end, at phase 2's start, in phase 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("pretraining"))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both phases by LAMB with dropout, without a break."""
    return run(data, tmp_path_factory.mktemp("whole") / "run", **CPU | TWO).folder


class Killed(BaseException):
    """As abrupt as a signal can be within a process: nothing catches it."""


@pytest.mark.slow
def test_a_kill_in_either_phase_or_at_the_switch_costs_nothing(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, due = TorchEngine.train_step, list(KILLED_AT)

    def train_step(engine: TorchEngine, update: Update, learning_rate: float) -> Scalars:
        if due and update.step == due[0]:
            due.pop(0)
            raise Killed
        return plain(engine, update, learning_rate)

    monkeypatch.setattr(TorchEngine, "train_step", train_step)
    for _ in KILLED_AT:
        with pytest.raises(Killed):
            run(data, tmp_path / "run", True, **CPU | TWO)
    made = run(data, tmp_path / "run", True, **CPU | TWO).record
    assert made is not None
    for key in ("losses", "metrics", "majority_class"):
        assert made[key] == record(whole)[key], key
    states = [read_arrays(tensors(folder, 14))[0] for folder in (whole, tmp_path / "run")]
    assert any(name.startswith("adam.second.") for name in states[0])
    for name, array in states[0].items():
        assert array.tobytes() == states[1][name].tobytes(), name


@pytest.mark.slow
def test_phase_two_goes_on_with_the_moments_of_phase_one(data: Path, whole: Path, tmp_path: Path) -> None:
    """Two commands, the second with train.moments_from, do what --phases 1,2 does."""
    alone = CPU | TWO | {"model.hidden_dropout": 0.0, "model.attention_dropout": 0.0}
    together = run(data, tmp_path / "together", **alone).record
    run(data, tmp_path / "one", **alone | {"train.phases": "1"})
    second = alone | {"train.phases": "2", "train.moments_from": str(tmp_path / "one")}
    made = run(data, tmp_path / "two", **second).record
    fresh = run(data, tmp_path / "fresh", **second | {"train.moments_from": ""}).record
    assert together is not None
    assert made is not None
    assert fresh is not None
    assert made["losses"] == together["losses"][9:]
    assert made["losses"] != fresh["losses"]


@pytest.mark.slow
def test_micro_batches_and_layouts_change_nothing(data: Path, tmp_path: Path) -> None:
    still = CPU | TWO | {"model.hidden_dropout": 0.0, "model.attention_dropout": 0.0, "train.phases": "1"}
    still |= {"train.steps": 3, "evaluation.every": 3}
    seen = []
    for name, more in {
        "unpadded": {"model.layout": "unpadded"},
        "padded": {"model.layout": "padded"},
        "packed": {"model.layout": "packed"},
        "split": {"train.micro_batch_size": 5},
    }.items():
        made = run(data, tmp_path / name, **still | more).record
        assert made is not None
        seen.append([*made["losses"], made["metrics"]["mlm_loss"]])
    assert np.abs(np.array(seen) - np.array(seen[0])).max() < 1e-5


@pytest.mark.slow
def test_the_overfit_recipe_learns_its_few_sequences_by_heart(data: Path, tmp_path: Path) -> None:
    small = read_recipe("pretrain-overfit") | {"data.train_rows": 12, "train.batch_size": 12, "train.steps": 200}
    vocabulary: dict[str, Value] = {"model.vocab": str(data / "vocab.txt")}
    made = run(data / "phase1", tmp_path / "run", **CPU | small | vocabulary).record
    assert made is not None
    assert made["losses"][0] > 4
    assert np.mean(made["losses"][-10:]) < 0.1


def test_fixed_sizes_are_known_before_the_first_update_of_either_phase(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = StaticBackend()
    monkeypatch.setattr(registry, "find", lambda name: backend)
    static = TWO | {"backend": "static", "model.hidden_dropout": 0.0, "model.attention_dropout": 0.0}
    made = run(data, tmp_path / "static", **static, **{"model.layout": "packed"}).record
    assert isinstance(backend.made[0].passes, StaticPasses)
    assert backend.made[0].passes.plan.late == 0
    monkeypatch.undo()
    ragged = run(data, tmp_path / "ragged", **static | CPU).record
    assert made is not None
    assert ragged is not None
    assert np.abs(np.array(made["losses"]) - np.array(ragged["losses"])).max() < 1e-4


def test_a_profile_is_a_chrome_trace_of_the_updates_asked_for(data: Path, tmp_path: Path) -> None:
    run(data, tmp_path / "run", **CPU | TWO | {"train.phases": "1", "train.steps": 5, "log.profile": "2-3"})
    trace = json.loads((tmp_path / "run" / "trace.json").read_text())
    named = [event["name"] for event in trace["traceEvents"] if "name" in event]
    assert any(name.startswith("aten::") for name in named)
    layers, micro_batches = 2, 1  # of tiny, and of each of the two updates
    assert named.count("aten::native_layer_norm") == 2 * micro_batches * (2 * layers + 2)
