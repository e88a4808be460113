"""What the documents say is true: their commands run, the files they name exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from conftest import ROOT, Run

PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[list[str]]:
    """The `$ bertkit …` lines of a page's blocks that are marked to be run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [
        shlex.split(line[2:]) for block in BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_run_as_typed(page: str, bertkit: Run, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = commands(page)
    if any("models/" in word or "glue" in word.split("/")[-1:] for words in found for word in words):
        real = request.getfixturevalue("real_data")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "glue").symlink_to(real / "glue")
        (tmp_path / "models").symlink_to(real)
    for words in found:
        assert words[0] == "bertkit"
        done = bertkit(*words[1:])
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
        assert done.stdout or done.stderr


def test_every_command_is_in_some_document_or_help() -> None:
    """A new command needs a line: each one stands in the changelog or the documents."""
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in (*PAGES, "CHANGELOG.md"))
    folder = ROOT / "bertkit" / "cli"
    names = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "main",
        "hf_flags",
        "comparing",
        "options",
        "training",
        "launching",
        "inner",
        "bench_suite",
    }
    assert not [name for name in names if f"bertkit {name.replace('_', ' ')}" not in text]


def test_the_tree_in_the_readme_has_every_room() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1]
    rooms = {path.name for path in (ROOT / "bertkit").iterdir() if (path / "__init__.py").exists()}
    assert rooms <= set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE))
    for name in re.findall(r"\b\w+\.(?:py|toml)\b", tree):
        assert list(ROOT.glob(f"bertkit/**/{name}")), name
    assert len(tree.strip().splitlines()) <= 20


@pytest.mark.parametrize("page", PAGES)
def test_links_and_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"\b(?:docs|tests|bertkit|backends|benchmarks)/[\w/.-]+\.(?:md|py|toml|txt)\b", text):
        assert (ROOT / name).exists(), f"{page}: {name}"
