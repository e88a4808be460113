"""The run's log is JSON, a line an event; the display writes plain lines where there is no terminal."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit import console
from bertkit.console import SECONDS_BETWEEN_LINES, Display
from bertkit.errors import UserError
from bertkit.records.event_log import FILE, RunLog, Warnings, read_log


def refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def events(folder: Path) -> list[dict[str, Any]]:
    """Every line, read as strictly as any other program would."""
    lines = (folder / FILE).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    return [json.loads(line, parse_constant=refuse) for line in lines]


def test_each_event_is_a_line_of_json(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("start", step=0, command="bertkit 'ü' \n \u2028", nested={"a": [1, None]})
    log.write("update", step=1, loss=0.5)
    first, second = events(tmp_path)
    assert (first["event"], first["command"], first["nested"]) == ("start", "bertkit 'ü' \n \u2028", {"a": [1, None]})
    assert (second["event"], second["step"], second["loss"]) == ("update", 1, 0.5)
    assert first["time"] <= second["time"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_no_number_is_json_all_the_same(value: float, tmp_path: Path) -> None:
    RunLog(tmp_path).write("update", step=1, loss=value, scores={"f1": [value]})
    assert events(tmp_path)[0]["loss"] is None


def test_a_file_name_that_is_not_utf8_is_logged(tmp_path: Path) -> None:
    RunLog(tmp_path).write("start", command="bertkit train -o caf\udce9")
    assert events(tmp_path)[0]["command"].startswith("bertkit train -o caf")


def test_no_folder_no_log() -> None:
    log = RunLog(None)
    log.write("start")
    log.cut_after(3)
    assert log.path is None


def test_a_log_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        RunLog(tmp_path / "absent").write("start")


def test_cutting_forgets_later_steps_and_a_torn_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.write("start", hardware="ü")
    for step in range(1, 6):
        log.write("update", step=step)
    log.write("checkpoint", step=3)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"event": "update", "st')
    log.cut_after(3)
    assert [(entry["event"], entry.get("step")) for entry in events(tmp_path)] == [
        ("start", None), ("update", 1), ("update", 2), ("update", 3), ("checkpoint", 3),
    ]  # fmt: skip
    assert "ü" in (tmp_path / FILE).read_text(encoding="utf-8")
    log.write("update", step=4)
    assert events(tmp_path)[-1]["step"] == 4


@pytest.mark.parametrize(
    "line",
    [b'{"event": "update", "step": "3"}', b'{"event": "update", "step": null}', b'{"event": "update", "step": [1]}',
     b'{"event": "update", "step": true}', b'{"event": "update", "step": 2.5}',
     b'{"event": 5, "step": 1}', b'{"step": 1}',
     b"[" * 100_000, b'{"event": "update", "step": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"null", b"\x00" * 50,
     b'{"event": "up'],
    ids=range(13),
)  # fmt: skip
def test_a_damaged_line_is_left_out_and_said(line: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = RunLog(tmp_path)
    for step in range(1, 5):
        log.write("update", step=step)
    whole = (tmp_path / FILE).read_bytes().split(b"\n")
    (tmp_path / FILE).write_bytes(b"\n".join([whole[0], line, *whole[1:]]))
    with caplog.at_level(logging.WARNING):
        log.cut_after(3)
    assert (tmp_path / FILE).read_bytes() == b"".join(kept + b"\n" for kept in whole[:3])
    assert "damaged lines are skipped: 1 (line 2)" in caplog.text


def test_cutting_changes_no_line_that_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = b'{"event":  "a", "half": "\\ud800", "x": 1E5, "deep": ' + b"[" * 700 + b"]" * 700 + b"}\n"
    (tmp_path / FILE).write_bytes(lines)
    RunLog(tmp_path).cut_after(0)
    assert (tmp_path / FILE).read_bytes() == lines
    assert not caplog.records


def test_cutting_before_anything_is_written(tmp_path: Path) -> None:
    RunLog(tmp_path).cut_after(5)
    assert list(tmp_path.iterdir()) == []
    RunLog(tmp_path).write("update", step=1)
    RunLog(tmp_path).cut_after(0)
    assert (tmp_path / FILE).read_text() == ""


def test_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b'{"event": "a"}\n\n[1]\nnull\n\xff\xfe\n{"event": "b"}\n{"event"')
    assert [entry["event"] for entry in read_log(path)] == ["a", "b"]


@given(
    st.dictionaries(st.text().filter(lambda name: name not in ("self", "event")), st.text() | st.integers() | st.none())
)
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    line = json.dumps({"event": "x", **values}, ensure_ascii=False)
    assert "\n" not in line
    assert json.loads(line) == {"event": "x", **values}


def test_warnings_are_kept() -> None:
    handler = Warnings()
    logger = logging.getLogger("bertkit.test_log_display")
    logger.addHandler(handler)
    logger.warning("odd: %s", 3)
    logger.info("quiet")
    logger.removeHandler(handler)
    assert handler.said == ["odd: 3"]


class Clock:
    """Stands in for the module `time`; each look at it takes `step` seconds."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture(autouse=True)
def _no_terminal_by_force(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


def shown(monkeypatch: pytest.MonkeyPatch, seconds_each: float, total: int = 100, quiet: bool = False) -> list[str]:
    monkeypatch.setattr(console, "time", Clock(seconds_each))
    stream = io.StringIO()
    with Display(quiet=quiet, stream=stream).progress("training", total) as counter:
        for _ in range(total):
            counter.add(1)
    text = stream.getvalue()
    assert not {"\r", "\x1b", "\b"} & set(text)
    assert text == "" or text.endswith("\n")
    return text.splitlines()


def test_elsewhere_than_on_a_terminal_lines_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 1.0)
    assert lines[0] == "training 5/100    about 95 s left"
    assert lines[-1] == "training 100/100"
    assert len(lines) == 100 / SECONDS_BETWEEN_LINES


def test_quick_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 0.001) == []
    assert shown(monkeypatch, 0.03) == ["training 100/100"]


def test_a_quiet_display_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(monkeypatch, 1.0, quiet=True) == []
    stream = io.StringIO()
    quiet = Display(quiet=True, stream=stream)
    quiet.say("a")
    quiet.warn("b")
    assert stream.getvalue() == ""


def test_values_stand_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "time", Clock(6.0))
    stream = io.StringIO()
    with Display(stream=stream).progress("evaluating [x]", 4, done=2) as counter:
        counter.to(3, {"loss": "0.5", "f1": "[bold]"})
    assert stream.getvalue() == "evaluating [x] 3/4  loss 0.5  f1 [bold]  about 6 s left\n"


@pytest.mark.parametrize(
    "text",
    ["[bold]x[/bold]", "[/]", "[link=a]", "runs/[1]", "a\\[b]", ":warning: :x:", "C:\\runs\\", "[red", "é → 漢字",
     "x" * 500, "{'a': 1} 3.5 /path 'q' http://x True None"],
)  # fmt: skip
def test_what_is_said_is_printed_as_it_is(text: str) -> None:
    stream = io.StringIO()
    Display(stream=stream).say(text)
    Display(stream=stream).warn(text)
    assert stream.getvalue() == f"{text}\nwarning: {text}\n"
