"""Logs that other programs read, beside our own: MLPerf's lines, DLLogger's, and TensorBoard's curves.

Formats: mlperf-logging's `mllog` (a line is `:::MLLOG ` and a JSON object) and DLLogger's JSONStreamBackend (`DLLL `
and a JSON object). Each follows the events of `log.jsonl`.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from bertkit.errors import UserError

MLLOG, DLLOGGER, CURVES = "mllog.txt", "dllogger.json", "tensorboard"
Values = Mapping[str, Any]


class Follower(Protocol):
    """Told of a run's events as they come."""

    def write(self, event: str, time: float, values: Values) -> None:
        """`time`: seconds since 1970. Events: init, start, update, evaluating, evaluation, programs, stopped, end."""


class Lines:
    """A text file that lines are added to."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, line: str) -> None:
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}", "free some space") from None


class MlLog:
    """MLPerf's log of a training run. `facts`: its settings under MLPerf's keys, told between init and run.

    A run that is taken up goes on in the same file; MLPerf's rules know no such runs.
    """

    def __init__(self, path: Path, facts: Values) -> None:
        self.lines, self.facts = Lines(path), facts
        self.samples = 0
        self.began: float | None = None  # when this process was made ready

    def write(self, event: str, time: float, values: Values) -> None:
        if event == "init":
            self.began = time
        elif event == "start":
            self.samples = int(values.get("samples", 0))
            if not self.lines.path.exists():
                self._introduce(time)
            self._say(time, "block_start", "INTERVAL_START", None, self._where() | {"first_epoch_num": 0})
        elif event == "evaluating":
            self.samples = int(values["samples"])
            self._say(time, "block_stop", "INTERVAL_END", None, self._where() | {"first_epoch_num": 0})
            self._say(time, "eval_start", "INTERVAL_START", None, self._where())
        elif event == "evaluation":
            accuracy = values.get("mlm_accuracy", values.get("accuracy"))
            self._say(time, "eval_accuracy", "POINT_IN_TIME", accuracy, self._where())
            self._say(time, "eval_stop", "INTERVAL_END", None, self._where())
            self._say(time, "block_start", "INTERVAL_START", None, self._where() | {"first_epoch_num": 0})
        elif event == "end":
            self._say(time, "block_stop", "INTERVAL_END", None, self._where() | {"first_epoch_num": 0})
            status = "success" if values.get("reached", True) else "aborted"
            self._say(time, "run_stop", "INTERVAL_END", None, self._where() | {"status": status})

    def _introduce(self, time: float) -> None:
        began = time if self.began is None else self.began
        self._say(began, "cache_clear", "POINT_IN_TIME", False, {})  # bertkit empties no caches of the system
        self._say(began, "init_start", "INTERVAL_START", None, {})
        for key, value in self.facts.items():
            self._say(time, key, "POINT_IN_TIME", value, {})
        self._say(time, "init_stop", "INTERVAL_END", None, {})
        self._say(time, "run_start", "INTERVAL_START", None, {})

    def _where(self) -> dict[str, Any]:
        """BERT's epochs are counted in samples there."""
        return {"epoch_num": self.samples, "samples_count": self.samples}

    def _say(self, time: float, key: str, kind: str, value: Any, metadata: Values) -> None:
        line = {
            "namespace": "", "time_ms": round(1000 * time), "event_type": kind, "key": key, "value": value,
            "metadata": {"file": "bertkit", "lineno": 0, **metadata},
        }  # fmt: skip
        self.lines.add(f":::MLLOG {json.dumps(line)}")


class DlLogger:
    """DLLogger's JSON stream: the settings, each update, each evaluation and the final figures."""

    def __init__(self, path: Path, facts: Values) -> None:
        self.lines, self.facts = Lines(path), facts
        self.began: float | None = None

    def write(self, event: str, time: float, values: Values) -> None:
        if self.began is None:
            self.began = time
        if event == "start":
            self._say(time, "PARAMETER", dict(self.facts))
        elif event == "update":
            names = {"loss": "step_loss", "learning_rate": "learning_rate", "grad_norm": "grad_norm"}
            self._say(time, [values["step"]], {other: values[name] for name, other in names.items() if name in values})
        elif event == "evaluation":
            self._say(time, [values["step"]], {name: value for name, value in values.items() if name != "step"})
        elif event == "end":
            figures = {
                "e2e_train_time": time - self.began,
                "training_sequences_per_second": values.get("sequences_per_second"),
                "final_loss": values.get("final_loss"),
                "raw_train_time": values.get("training_seconds"),
                **values.get("metrics", {}),
            }
            self._say(time, [], {name: value for name, value in figures.items() if value is not None})

    def _say(self, time: float, step: list[int] | str, data: Values) -> None:
        line = {
            "timestamp": str(time), "datetime": str(datetime.fromtimestamp(time, UTC).replace(tzinfo=None)),
            "elapsedtime": str(time - (self.began or time)), "type": "LOG", "step": step, "data": _finite(data),
        }  # fmt: skip
        self.lines.add(f"DLLL {json.dumps(line)}")


class Curves:
    """Scalars by update for TensorBoard, through its own writer."""

    def __init__(self, folder: Path) -> None:
        self.open = functools.partial(_event_file(), folder)
        self.add: Callable[[float, int, Values | None], None]
        self.flush: Callable[[], None]

    def write(self, event: str, time: float, values: Values) -> None:
        if event == "start":
            self.add, self.flush = self.open()
            if values.get("step"):
                self.add(time, int(values["step"]) + 1, None)  # what was drawn after it is forgotten
        elif event == "update":
            numbers = {f"train/{name}": values[name] for name in values if name not in ("step", "updates")}
            self.add(time, values["step"], numbers)
        elif event == "evaluation":
            names = [name for name in values if name not in ("step", "samples")]
            self.add(time, values["step"], {f"evaluation/{name}": values[name] for name in names})
            self.flush()
        elif event in ("end", "stopped"):
            self.flush()


Writer = tuple[Callable[[float, int, Values | None], None], Callable[[], None]]


def _event_file() -> Callable[[Path], Writer]:
    """What opens a file in a folder: (what adds numbers of an update, None: forget from it on; what flushes).

    Raises UserError where the library is missing, before anything is written.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise UserError("log.tensorboard needs tensorboard", "pip install 'bertkit[tensorboard]'") from None

    def start(folder: Path) -> Writer:
        writer = EventFileWriter(str(folder))

        def add(time: float, step: int, numbers: Values | None) -> None:
            if numbers is None:
                log = SessionLog(status=SessionLog.START)
                writer.add_event(Event(wall_time=time, step=step, session_log=log))
                return
            values = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in numbers.items()]
            writer.add_event(Event(wall_time=time, step=step, summary=Summary(value=values)))

        return add, writer.flush

    return start


def _finite(data: Values) -> dict[str, Any]:
    """JSON has no infinity: what is not finite is null."""
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in data.items()}
