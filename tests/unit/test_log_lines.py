"""The logs for other programs, read back by those programs' own readers."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bertkit.errors import UserError
from bertkit.recipes.recipe import Value
from bertkit.records.loggers import CURVES, DLLOGGER, MLLOG, DlLogger, MlLog
from bertkit.training.callbacks.profiling import wanted
from bertkit.training.run_folder import open_folder
from command import events
from pretraining_runs import TWO, run, write_phases

LOGS: dict[str, Value] = {"log.mllog": True, "log.dllogger": True, "log.tensorboard": True, "data.held_out": 0.5}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_phases(tmp_path_factory.mktemp("pretraining"))


@pytest.fixture(scope="module")
def logged(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in two legs with all three logs."""
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("logged") / "run"
    run(data, folder, True, **TWO | LOGS | {"train.steps_this_run": 11})
    run(data, folder, True, **TWO | LOGS)
    return folder


def lines(path: Path, token: str) -> list[dict[str, object]]:
    text = path.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith(f"{token} ") for line in text)
    return [json.loads(line.removeprefix(f"{token} ")) for line in text]


@pytest.mark.parametrize("division", ["open", "closed"])
def test_mlperfs_own_checker_takes_the_log(
    division: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compliance = pytest.importorskip("mlperf_logging.compliance_checker.mlp_compliance")
    aim = TWO | LOGS | {"log.tensorboard": False, "log.dllogger": False, "evaluation.target_mlm_accuracy": 0.72}
    # not 1.0, which the checker takes for a mistake
    monkeypatch.setattr(
        "bertkit.training.pretraining_evaluation.metrics", lambda sums: {"mlm_accuracy": 0.75, "mlm_loss": 1.0}
    )
    made = run(data, tmp_path / "run", **aim).record
    assert made is not None
    path = tmp_path / "run" / MLLOG
    path.write_text(path.read_text().replace('"value": "open"', f'"value": "{division}"'))
    checker = compliance.make_checker("training", "4.1.0", quiet=False, werror=False)
    assert checker.check_file(str(path), "training_4.1.0/common.yaml"), checker.messages
    said = lines(path, ":::MLLOG")
    keys = [line["key"] for line in said]
    assert keys.index("init_start") < keys.index("init_stop") < keys.index("run_start") < keys.index("eval_accuracy")
    assert keys[-1] == "run_stop"
    assert said[-1]["metadata"]["status"] == "success"  # type: ignore[index]
    assert next(line["value"] for line in said if line["key"] == "global_batch_size") == 8
    times = [line["time_ms"] for line in said]
    assert times == sorted(times)  # type: ignore[type-var]


def test_a_target_that_was_missed_is_no_success(data: Path, tmp_path: Path) -> None:
    aim = TWO | {"log.mllog": True, "evaluation.target_mlm_accuracy": 0.72, "train.phases": "1"}
    run(data, tmp_path / "run", **aim)
    assert lines(tmp_path / "run" / MLLOG, ":::MLLOG")[-1]["metadata"]["status"] == "aborted"  # type: ignore[index]


def test_two_legs_begin_once(logged: Path) -> None:
    keys = [line["key"] for line in lines(logged / MLLOG, ":::MLLOG")]
    assert keys.count("run_start") == keys.count("init_stop") == keys.count("run_stop") == 1
    evaluated = [event for event in events(logged) if event["event"] == "evaluation"]
    assert keys.count("eval_accuracy") == len(evaluated)


def test_dlloggers_lines_have_its_fields(logged: Path) -> None:
    said = lines(logged / DLLOGGER, "DLLL")
    assert all(set(line) == {"timestamp", "datetime", "elapsedtime", "type", "step", "data"} for line in said)
    assert said[0]["step"] == "PARAMETER"
    losses = {line["step"][0]: line["data"]["step_loss"] for line in said if "step_loss" in line["data"]}  # type: ignore[index, operator]
    own = {event["step"]: event["loss"] for event in events(logged) if event["event"] == "update"}
    assert losses == own
    assert said[-1]["step"] == []
    assert {"e2e_train_time", "final_loss", "mlm_accuracy"} <= set(said[-1]["data"])  # type: ignore[call-overload]


def test_tensorboard_reads_the_curves(logged: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(logged / CURVES))
    found.Reload()
    losses = {event.step: event.value for event in found.Scalars("train/loss")}
    own = {event["step"]: event["loss"] for event in events(logged) if event["event"] == "update"}
    assert losses == pytest.approx(own)
    assert [event.step for event in found.Scalars("evaluation/mlm_accuracy")] == [4, 8, 9, 13, 14]


def test_an_overwritten_run_takes_its_logs_along(data: Path, tmp_path: Path) -> None:
    short = TWO | {"train.phases": "1", "train.steps": 2, "log.mllog": True}
    run(data, tmp_path / "run", **short)
    open_folder(tmp_path / "run", overwrite=True)
    run(data, tmp_path / "run", **short)
    assert [line["key"] for line in lines(tmp_path / "run" / MLLOG, ":::MLLOG")].count("run_start") == 1


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = DlLogger(tmp_path / "log", {})
    log.write("update", 1.0, {"step": 3, "loss": float("nan"), "learning_rate": 1e-3, "grad_norm": float("inf")})
    assert lines(tmp_path / "log", "DLLL")[0]["data"] == {"step_loss": None, "learning_rate": 1e-3, "grad_norm": None}


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        MlLog(tmp_path / "nowhere" / "log", {}).write("start", 1.0, {})


@pytest.mark.parametrize("steps", ["0", "5-4", "0-3", "some", "1-", "²"])
def test_updates_to_profile_are_some(steps: str) -> None:
    with pytest.raises(UserError, match="names no updates"):
        wanted(steps)
    assert (wanted("7"), wanted("2-9")) == ((7, 7), (2, 9))


def test_a_backend_without_a_profiler_says_so(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no profiler"):
        run(data, tmp_path / "run", **TWO | {"log.profile": "2"})
    assert not (tmp_path / "run").exists()


def test_tensorboard_is_asked_for_before_anything_is_written(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match="needs tensorboard"):
        run(data, tmp_path / "run", **TWO | {"log.tensorboard": True})
    assert not (tmp_path / "run").exists()
