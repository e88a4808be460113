"""The site's sources: links made of mentions, the home page, pages of reference made from the code."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import bertkit
from bertkit.cli.main import app
from bertkit.cli.pages import INDEX, pages, read
from bertkit.engine.registry import installed
from bertkit.recipes.recipe import KEYS
from conftest import ROOT

TITLES = {"serve.md": "Serving a model", "tutorials/first-run.md": "First run", "concepts/splits.md": "Splits"}


@pytest.fixture(scope="module")
def tools() -> Iterator[Any]:
    """`tools("staging")` imports a module of docs/site."""
    sys.path.insert(0, str(ROOT / "docs" / "site"))
    yield importlib.import_module
    sys.path.remove(str(ROOT / "docs" / "site"))


@pytest.fixture(scope="module")
def made(tools: Any) -> dict[str, str]:
    return dict(tools("reference").generated())


@pytest.mark.parametrize(
    ("text", "file", "linked"),
    [
        ("See docs/serve.md.", "client.md", "See [Serving a model](serve.md)."),
        ("See docs/serve.md.", "concepts/splits.md", "See [Serving a model](../serve.md)."),
        ("(serve.md)", "client.md", "([Serving a model](serve.md))"),
        ("docs/tutorials/first-run.md", "concepts/splits.md", "[First run](../tutorials/first-run.md)"),
        ("docs/serve.md", "serve.md", "docs/serve.md"),  # itself
        ("docs/other.md and notes.md", "client.md", "docs/other.md and notes.md"),
        ("`docs/serve.md` and [it](serve.md)", "client.md", "`docs/serve.md` and [it](serve.md)"),
        ("```sh\ncat docs/serve.md\n```", "client.md", "```sh\ncat docs/serve.md\n```"),
        ("my-serve.md, x/docs/serve.md", "client.md", "my-serve.md, x/docs/serve.md"),
    ],
)
def test_mentions_become_links(text: str, file: str, linked: str, tools: Any) -> None:
    assert tools("staging").linked(text, file, TITLES) == linked


def test_the_home_page_has_every_page_of_the_index_once(tools: Any) -> None:
    index = read(ROOT / "docs", INDEX)
    listed = pages(index)
    titles = {page.file: page.topic for page in listed}
    home = tools("staging").home(index, listed, titles)
    assert [page.file for page in listed if home.count(f"]({page.file})") != 1] == []
    assert [page.file for page in listed if f"\n{page.file.removesuffix('.md')}\n" not in home] == []
    assert home.count(":caption:") == 4


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")


def test_every_command_and_option_has_its_place(made: dict[str, str]) -> None:
    found = list(commands(typer.main.get_command(app), "bertkit"))
    assert len(found) > 40
    for path, command in found:
        page = made[f"reference/commands/{path.split()[1]}.md"]
        part = page.partition(f"# {path}\n")[2]
        assert part, path
        hidden = {part.name for part in command.params if getattr(part, "hidden", False)}
        options = [part.opts[-1] for part in command.params if part.name not in hidden and part.opts[0].startswith("-")]
        assert [option for option in options if option not in part] == [], path


def test_every_setting_and_public_name_has_its_place(made: dict[str, str]) -> None:
    assert [key for key in KEYS if f"| `{key}` |" not in made["reference/settings.md"]] == []
    for backend in installed().values():
        rows = made["reference/device-settings.md"].partition(f"## {backend.name}\n")[2].partition("\n## ")[0]
        assert [name for name in backend.settings if f"| `device.{name}` |" not in rows] == []
    assert [name for name in bertkit.__all__ if f":: bertkit.{name}\n" not in made["reference/python-api.md"]] == []


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("optimizer.name", "`adamw`, `lamb`"),
        ("train.batch_size", "whole number ≥ 1"),
        ("optimizer.layer_decay", "number \\> 0 and ≤ 1"),
        ("model.hidden_dropout", "number ≥ 0 and \\< 1, or null"),
        ("table.header", "true or false, or null"),
        ("data.dir", "text"),
    ],
)
def test_the_values_of_a_setting(key: str, values: str, made: dict[str, str]) -> None:
    row = next(line for line in made["reference/settings.md"].splitlines() if line.startswith(f"| `{key}` |"))
    assert row.split(" | ")[1] == values


def test_docstrings_become_restructuredtext(tools: Any) -> None:
    lines = ["Take `a` and ``b``.", "", "    on_start", "      `c`", "", "`d`.", "", "    again"]
    assert tools("reference").as_rst(lines) == [
        "Take ``a`` and ``b``.", "", "::", "", "    on_start", "      `c`", "", "``d``.", "", "::", "", "    again",
    ]  # fmt: skip


def test_a_page_of_another_folder_is_named_from_there(tools: Any, tmp_path: Path) -> None:
    tools("staging").stage(tmp_path / "sources")
    written = {path.relative_to(tmp_path / "sources").as_posix() for path in (tmp_path / "sources").rglob("*.md")}
    listed = {page.file for page in pages(read(ROOT / "docs", INDEX))}
    assert listed | {"index.md", "reference/settings.md", "reference/commands/train.md"} <= written
    first = (tmp_path / "sources" / "tutorials" / "first-run.md").read_text(encoding="utf-8")
    assert "[Installing](../install.md)" in first
    assert (tmp_path / "sources" / "pictures" / "compare.png").is_file()
