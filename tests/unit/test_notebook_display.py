"""The display in a notebook: one output that is drawn anew, lines on stdout; elsewhere nothing changes."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import IPython.display
import pytest

from bertkit import console
from bertkit.console import Display, bar_text, in_notebook


class Outputs:
    """Stands for IPython's display: each output's texts, in order."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []

    def __call__(self, data: dict[str, str], raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        self.texts.append([data["text/plain"]])
        return self.Handle(self.texts[-1])

    class Handle:
        def __init__(self, texts: list[str]) -> None:
            self.texts = texts

        def update(self, data: dict[str, str], raw: bool) -> None:
            assert raw
            self.texts.append(data["text/plain"])


@pytest.fixture
def outputs(monkeypatch: pytest.MonkeyPatch) -> Outputs:
    made = Outputs()
    seconds = itertools.count()  # every look at the clock is a second later
    monkeypatch.setattr(console, "in_notebook", lambda: True)
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(seconds)))
    monkeypatch.setattr(IPython.display, "display", made)
    return made


def test_a_bar_is_one_output(outputs: Outputs, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display()
    display.say("backend: cpu")
    with display.progress("training", 4) as bar:
        bar.to(2, {"loss": "0.6931"})
        with display.progress("evaluation", 3) as inner:
            inner.add(3)
        bar.to(4)
    (texts,) = outputs.texts
    assert "training  ━━━━━━━━━━──────────  2/4  loss 0.6931" in texts[1]
    assert any("\n" in text and "evaluation" in text for text in texts)
    assert "\n" not in texts[-1], "the inner bar is gone"
    assert "training  ━━━━━━━━━━━━━━━━━━━━  4/4  loss 0.6931" in texts[-1]
    with display.progress("training", 1):
        pass
    assert len(outputs.texts) == 2, "the next bar has an output of its own"
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("backend: cpu\n", "")


def test_a_bar_is_not_drawn_more_often_than_it_is_seen(outputs: Outputs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.time, "monotonic", lambda: 100.0)
    with Display().progress("training", 1000) as bar:
        for done in range(1, 1000):
            bar.to(done)
    (texts,) = outputs.texts
    assert len(texts) == 2, "the first, and the last as it stood at the end"
    assert "999/1000" in texts[-1]


def test_a_quiet_display_shows_nothing(outputs: Outputs, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(quiet=True)
    display.say("backend: cpu")
    with display.progress("training", 4) as bar:
        bar.to(4)
    assert outputs.texts == []
    assert capsys.readouterr() == ("", "")


def test_elsewhere_lines_go_to_stderr() -> None:
    assert not in_notebook()
    assert Display().stream is sys.stderr
    assert Display().notebook is None


@pytest.mark.parametrize(
    ("done", "total", "note", "seconds", "text"),
    [
        (0, 10, "", 0.0, "work  ────────────────────  0/10  0:00"),
        (5, 10, "loss 1", 75.9, "work  ━━━━━━━━━━──────────  5/10  loss 1  1:15"),
        (12, 10, "", 1.0, "work  ━━━━━━━━━━━━━━━━━━━━  12/10  0:01"),
        (0, 0, "", 1.0, "work  ────────────────────  0/0  0:01"),
    ],
)
def test_a_line(done: int, total: int, note: str, seconds: float, text: str) -> None:
    assert bar_text("work", done, total, note, seconds) == text
