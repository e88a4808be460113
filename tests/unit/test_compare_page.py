"""The forms of a comparison: a page that loads nothing and escapes everything, Markdown, text, and plots."""

from __future__ import annotations

import re
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bertkit.comparison.comparison import Comparison, compare
from bertkit.comparison.entries import entry
from bertkit.comparison.markdown import to_markdown
from bertkit.comparison.page import to_html
from bertkit.comparison.plots import MOST_CURVES, all_plots
from bertkit.errors import UserError
from bertkit.records.files import Record, sealed
from made_records import evaluations, record

ODD = ["<script>alert(1)</script>", "a|b_c*d`e", "$x^2$ & $", "_hidden", 'q"uote', "name with a very long tail " * 5]
VOID = {"meta", "link", "br"}


def compared(*records: tuple[str, dict[str, Any]], **how: Any) -> Comparison:
    return compare([entry(Record(sealed(made), Path(name, "record.json")), name) for name, made in records], **how)


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what a browser might load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "action", "data") and not (value or "").startswith(("#", "data:")):
                self.loaded.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), name
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def whole() -> Comparison:
    """Everything that a page can show: seeds, scaling, scores on the way, energy, differences, published figures."""
    course = evaluations((10, 1.0, 0.6), (20, 2.0, 0.8))
    power = {"joules": 50.0, "seconds": 10.0, "source": "a meter"}
    runs = [
        (name, record(seed=seed, devices=number, rate=90.0 * number + seed, evaluations=course, energy=power))
        for number, name in enumerate(ODD, 1)
        for seed in (1, 2)
    ]
    return compared(*runs, ("alone", record(facts={"clip_norm": 2.0, "lower_case": None})), published=["t4"])


@pytest.fixture(scope="module")
def text(whole: Comparison) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return to_html(whole)


def test_the_page_is_whole_and_loads_nothing(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert page.loaded == []
    assert page.tags & {"script", "iframe", "img", "object", "embed"} == set()
    assert "default-src 'none'" in text
    assert re.search(r"@import|url\((?!#)", text) is None
    assert len(page.ids) == len(set(page.ids)), "ids of one plot do not stand in another"
    assert text.count("<svg") == 2 * 4  # each for wide pages and for narrow ones
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_what_differs_stands_before_every_figure(whole: Comparison, text: str) -> None:
    assert text.index("Not comparable: these must match") < text.index("Unknown for some runs") < text.index("<table")
    lines = to_markdown(whole)
    assert lines.index("Not comparable: these must match") < lines.index("| system")


def test_every_plot_is_xml_whose_text_is_text(whole: Comparison) -> None:
    plots = all_plots(whole)
    assert list(plots) == ["losses", "throughput", "scaling", "scores"]
    for name, plot in plots.items():
        root = ElementTree.fromstring(plot.svg)  # noqa: S314 - our own
        shown = "".join(root.itertext())
        assert root.tag.endswith("svg")
        assert "$x^2$ & $" in shown or name == "scaling"
        assert "_hidden" in shown or name == "scaling"


def test_curves_that_agree_are_told_by_their_distance() -> None:
    near = [0.7, 0.6 + 1e-6, 0.5 + 2e-5]
    plot = all_plots(compared(("a", record()), ("b", record(devices=2, losses=near))))["losses"]
    assert "distance from the baseline's loss" in plot.svg
    assert "1e-05" in plot.svg
    assert "mathdefault" not in plot.svg
    equal = all_plots(compared(("a", record()), ("b", record(devices=2))))["losses"]
    assert "distance" not in equal.svg


def test_the_same_comparison_makes_the_same_page(whole: Comparison, text: str) -> None:
    assert to_html(whole) == text


@pytest.mark.parametrize(
    "made",
    [
        record(),
        record(losses=(), rate=None, metrics={}),
        record(losses=[None, 0.5, None]),
        record(losses=[0.5] * 1000),
        record(status="failed", reason="did not fit into memory", losses=(), rate=None, metrics={}),
    ],
)
def test_a_record_with_gaps_makes_a_page(made: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = to_html(compared(("a", made)))
    assert Page(text).open == []
    assert "nan" not in re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL).lower().replace("finance", "")


def test_of_many_systems_the_plots_show_the_first_and_say_so() -> None:
    made = compared(*((f"s{n:02}", record(facts={"updates": n})) for n in range(1, 40)))
    text = to_html(made)
    assert f"The first {MOST_CURVES} of 39 systems." in text
    assert "The first 30 of 39 systems." in text
    assert text.count("<tr") > 39


def test_markdown_has_no_markup_of_a_name(whole: Comparison) -> None:
    text = to_markdown(whole)
    assert "\\<script\\>" in text
    assert "a\\|b\\_c\\*d\\`e" in text
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1, table


def test_a_page_without_its_library_is_a_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.startswith("bertkit.comparison.plots"):
            raise ImportError("no", name="matplotlib")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match=r"--html needs matplotlib; pip install 'bertkit\[report\]'"):
        to_html(compared(("a", record())))
