"""The report of a run: tables and plots of what its folder holds, texts only where asked for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from bertkit.comparison.report.page import to_html
from bertkit.comparison.report.reading import RunReport, _classes, _errors, _lengths, _metrics, number
from bertkit.data.tasks.details import class_details, label_details, target_details
from made_records import record

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")


def details(kind: str) -> dict[str, Any]:
    stream = np.random.default_rng(1)
    logits, sizes = stream.normal(size=(60, 3)), stream.integers(3, 50, 60)
    if kind == "classification":
        return class_details(logits, stream.integers(0, 3, 60), ("good", "<b>bad</b>", "fair"), sizes)
    if kind == "multilabel":
        return label_details(logits, stream.integers(0, 2, (60, 3)).astype(float), ("a", "b", "c"), sizes)
    return target_details(logits, stream.normal(size=(60, 3)), ("x", "y", "z"), sizes)


def made(kind: str, texts: dict[int, str] | None = None) -> RunReport:
    found, kept = details(kind), record()
    tables = (_metrics(kept, found), *_classes(found), *_lengths(found), _errors(found, texts or {}))
    return RunReport(name="run", record=kept, losses=(0.7, float("nan"), 0.5), details=found, tables=tables)


@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_the_page_loads_nothing_and_holds_each_plot_twice(kind: str) -> None:
    page = to_html(made(kind))
    assert not re.search(r"(src|href)=.(?!data:|#)", page)
    assert page.count("<svg") == 2 * page.count("<figure>")
    assert len(set(re.findall(r'id="([^"]+)"', page))) == len(re.findall(r'id="([^"]+)"', page))
    wanted = {"classification": ("Confusions", "Calibration"), "multilabel": ("Calibration", "best threshold")}
    for title in (*wanted.get(kind, ()), "Course", "Error by length", "Worst errors"):
        assert title in page


def test_names_and_texts_are_no_markup_and_texts_are_asked_for() -> None:
    plain, shown = made("classification"), made("classification", {n: f"<i>text {n}</i>" for n in range(60)})
    assert "<b>bad</b>" not in to_html(plain)
    assert "&lt;b&gt;bad&lt;/b&gt;" in to_html(plain)
    assert "--texts shows them" in to_html(plain)
    assert "&lt;i&gt;text" in to_html(shown)
    assert "<i>text" not in to_html(shown)


def test_figures_are_short() -> None:
    assert [number(value) for value in (None, 12345, 0.123456, 1.0)] == ["–", "12,345", "0.1235", "1"]
