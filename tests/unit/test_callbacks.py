"""Callbacks by themselves: early stopping, what they add to the record, and those for other programs' libraries."""

from __future__ import annotations

import dataclasses
import math
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

import bertkit
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.records.event_log import FILE, RunLog, read_log
from bertkit.training.callbacks.programs import Programs
from bertkit.training.run import Run, UpdateMetrics

UPDATES = [UpdateMetrics(step=1, learning_rate=1e-4, loss=0.7, grad_norm=2.0)]
CALLBACKS: dict[str, Callable[[], bertkit.Callback]] = {
    "wandb": lambda: bertkit.WeightsAndBiases(project="bert"),
    "mlflow": lambda: bertkit.Mlflow("bert", run_name="first"),
}


def evaluated(run: Run, callback: bertkit.Callback, scores: Sequence[float], name: str = "f1") -> int:
    """Score after score, until the callback stops the run: how many were told."""
    for number, score in enumerate(scores, 1):
        metrics = {"accuracy": 0.5, name: score}
        entry = {"step": number, "metrics": metrics}
        run.progress = dataclasses.replace(run.progress, step=number, evaluations=(*run.progress.evaluations, entry))
        callback.on_evaluation(run, metrics)
        if run.finished:
            return number
    return 0


@pytest.mark.parametrize(
    ("scores", "options", "told"),
    [
        ([0.5, 0.6, 0.6, 0.6], {"patience": 2}, 4),
        ([0.5, 0.6, 0.55, 0.7, 0.6, 0.6], {"patience": 2}, 6),
        ([0.1, 0.2, 0.3], {"patience": 1}, 0),
        ([0.5, 0.505, 0.509], {"patience": 2, "min_delta": 0.01}, 3),
        ([0.9, 0.8, 0.7, 0.8], {"patience": 1, "larger_is_better": False}, 4),
        ([0.9, 0.8, 0.7, 0.8], {"patience": 1, "larger_is_better": True}, 2),
        ([math.nan, 0.1, 0.2, math.nan], {"patience": 1}, 4),
    ],
)
def test_early_stopping_waits_for_something_better(scores: list[float], options: dict[str, Any], told: int) -> None:
    run = Run(metric="f1")
    assert evaluated(run, bertkit.EarlyStopping(**options), scores) == told
    assert run.finished == (f"f1 is no better after {options['patience']} evaluations" if told else "")


def test_early_stopping_knows_the_metrics_of_which_smaller_is_better() -> None:
    assert evaluated(Run(metric="rmse"), bertkit.EarlyStopping(patience=1), [0.9, 0.8, 0.7, 0.8], "rmse") == 4
    assert evaluated(Run(metric="loss"), bertkit.EarlyStopping(patience=2), [0.9, math.nan, 0.9], "loss") == 3


def test_early_stopping_counts_evaluations_before_a_resume() -> None:
    run = Run(metric="f1")
    assert evaluated(run, bertkit.EarlyStopping(patience=3), [0.5, 0.4]) == 0
    assert evaluated(run, bertkit.EarlyStopping(patience=3), [0.4, 0.4, 0.4]) == 2


def test_early_stopping_names_its_mistakes() -> None:
    with pytest.raises(UserError, match=r"no metric 'f2'.*f1"):
        evaluated(Run(), bertkit.EarlyStopping(metric="f2"), [0.5])
    with pytest.raises(UserError, match="patience=0"):
        bertkit.EarlyStopping(patience=0)


def test_the_record_takes_what_json_can_hold_as_it_is_now() -> None:
    run, counts = Run(), [1, 2]
    run.add_to_record("counts", counts)
    counts.append(3)
    assert run.added == {"counts": [1, 2]}
    for value in ({1, 2}, math.inf, Path("a")):
        with pytest.raises(UserError, match="mine cannot be stored in the record"):
            run.add_to_record("mine", value)


# ---- callbacks for other programs ----


class Recorder(types.ModuleType):
    """A library of which every function writes down how it was called, and returns an object that does too."""

    def __init__(self, name: str, calls: list[tuple[Any, ...]]) -> None:
        super().__init__(name)
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        child = Recorder(f"{self.__name__}.{name}", self.calls)
        return child

    def __call__(self, *arguments: Any, **options: Any) -> Recorder:
        self.calls.append((self.__name__, *arguments, options))
        return Recorder(f"{self.__name__}()", self.calls)


def followed(callback: bertkit.Callback, run: Run, record: dict[str, Any] | None) -> None:
    """A short run's calls."""
    callback.on_start(run)
    callback.on_updates(run, UPDATES)
    run.progress = dataclasses.replace(run.progress, step=1)
    callback.on_evaluation(run, {"accuracy": 0.5})
    run.metrics, run.record = {"accuracy": 0.5}, record
    if record is not None:
        callback.on_end(run)
    callback.on_close(run)


@pytest.fixture
def calls(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    made: list[tuple[Any, ...]] = []
    for name in CALLBACKS:
        monkeypatch.setitem(sys.modules, name, Recorder(name, made))
    return made


TRAINED = {"train/learning_rate": 1e-4, "train/loss": 0.7, "train/grad_norm": 2.0}


def test_weights_and_biases_is_told_of_a_run(calls: list[tuple[Any, ...]]) -> None:
    followed(CALLBACKS["wandb"](), Run(settings={"seed": 1}), {})
    assert calls == [
        ("wandb.init", {"config": {"seed": 1}, "project": "bert"}),
        ("wandb.init().log", TRAINED, {"step": 1}),
        ("wandb.init().log", {"evaluation/accuracy": 0.5}, {"step": 1}),
        ("wandb.init().summary.update", {"result/accuracy": 0.5}, {}),
        ("wandb.init().finish", {"exit_code": 0}),
    ]


def test_mlflow_is_told_of_a_run(calls: list[tuple[Any, ...]]) -> None:
    settings: dict[str, Any] = {f"key{number}": number for number in range(150)}
    followed(CALLBACKS["mlflow"](), Run(settings=settings), {})
    assert calls[:2] == [("mlflow.set_experiment", "bert", {}), ("mlflow.start_run", {"run_name": "first"})]
    assert [len(call[1]) for call in calls if call[0] == "mlflow.log_params"] == [100, 50]
    assert calls[4:] == [
        ("mlflow.log_metrics", TRAINED, {"step": 1}),
        ("mlflow.log_metrics", {"evaluation/accuracy": 0.5}, {"step": 1}),
        ("mlflow.log_metrics", {"result/accuracy": 0.5}, {"step": 1}),
        ("mlflow.end_run", {"status": "FINISHED"}),
    ]


@pytest.mark.parametrize(
    ("interrupted", "code", "last"),
    [
        ("SIGTERM", 143, {"wandb": {"exit_code": 143}, "mlflow": {"status": "KILLED"}}),
        ("", 0, {"wandb": {"exit_code": 1}, "mlflow": {"status": "FAILED"}}),
    ],
)
@pytest.mark.parametrize("name", CALLBACKS)
def test_an_ended_run_is_told_as_such(
    name: str, interrupted: str, code: int, last: dict[str, Any], calls: list[tuple[Any, ...]]
) -> None:
    followed(CALLBACKS[name](), Run(interrupted=interrupted, exit_code=code), None)
    assert calls[-1][-1] == last[name]


@pytest.mark.parametrize("name", CALLBACKS)
def test_only_the_first_process_tells(name: str, calls: list[tuple[Any, ...]]) -> None:
    followed(CALLBACKS[name](), Run(world=World(rank=1, size=2)), {})
    assert calls == []


@pytest.mark.parametrize(
    ("library", "make"), [*CALLBACKS.items(), ("tensorboard.compat.proto.event_pb2", bertkit.TensorBoardCallback)]
)
def test_a_missing_library_is_one_line_with_the_command(
    library: str, make: Callable[[], bertkit.Callback], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"needs {library.split('.')[0]}; pip install 'bertkit\[\w+\]'"):
        make()


def test_tensorboard_draws_a_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    followed(bertkit.TensorBoardCallback(), Run(folder=tmp_path), {})
    drawn = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {name: [one.value for one in drawn.Scalars(name)] for name in drawn.Tags()["scalars"]} == {
        "train/loss": [pytest.approx(0.7)],
        "train/learning_rate": [pytest.approx(1e-4)],
        "train/grad_norm": [2.0],
        "evaluation/accuracy": [0.5],
    }


class _Counting:
    """An engine that counts programs, as far as the log's callback looks at it."""

    def __init__(self, *counts: int | None) -> None:
        self.counts = list(counts)

    def programs(self) -> int | None:
        return self.counts.pop(0)

    def host_waits(self, run: Callable[[], None]) -> int | None: ...
    def facts(self) -> Any: ...
    def energy(self) -> float | None: ...
    def communication(self) -> float | None: ...


def test_programs_are_logged_where_more_were_compiled(tmp_path: Path) -> None:
    engine, run = cast(Any, _Counting(16, 16, 24, 26)), Run()
    callback = Programs(engine, RunLog(tmp_path))
    callback.on_updates(run, UPDATES)
    callback.on_updates(run, [dataclasses.replace(UPDATES[0], step=2)])
    callback.on_evaluation(run, {})
    callback.on_updates(run, [dataclasses.replace(UPDATES[0], step=3)])
    found = [{name: value for name, value in event.items() if name != "time"} for event in read_log(tmp_path / FILE)]
    assert found == [
        {"event": "programs", "step": 1, "during": "training", "compiled": 16, "total": 16},
        {"event": "programs", "step": 0, "during": "evaluation", "compiled": 8, "total": 24},
        {"event": "programs", "step": 3, "during": "training", "compiled": 2, "total": 26},
    ]


def test_engines_that_count_no_programs_log_none(tmp_path: Path) -> None:
    for engine in (cast(Any, object()), cast(Any, _Counting(None))):
        Programs(engine, RunLog(tmp_path)).on_updates(Run(), UPDATES)
    assert not (tmp_path / FILE).exists()
