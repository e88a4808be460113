"""What the documents say is true: their commands run, the files they name exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT, Run, command_env
from own_files import write_reviews

PAGES = ("README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))))
BLOCK = re.compile(r"<!-- run -->\n```console\n(.*?)```", re.DOTALL)
PYTHON = re.compile(r"<!-- run -->\n```python\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[tuple[str, list[str]]]:
    """(standard input, words) of the `$ bertkit …` lines of a page's blocks that are marked to be run."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line[2:] for block in BLOCK.findall(text) for line in block.splitlines() if line.startswith("$ ")]
    return [_piped(line) for line in lines]


def _piped(line: str) -> tuple[str, list[str]]:
    said, pipe, command = line.rpartition(" | ")
    return (shlex.split(said)[1] + "\n" if pipe else "", shlex.split(command))


@pytest.mark.slow_but("README.md", "docs/data.md")
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_run_as_typed(page: str, bertkit: Run, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = commands(page)
    if any("models/" in word or "glue" in word.split("/")[-1:] for _, words in found for word in words):
        real = request.getfixturevalue("real_data")
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "glue").symlink_to(real / "glue")
        (tmp_path / "models").symlink_to(real)
    if any("reviews.csv" in words for _, words in found):
        write_reviews(tmp_path / "reviews.csv", request.getfixturevalue("sample_dir"))
    for said, words in found:
        assert words[0] == "bertkit"
        done = bertkit(*words[1:], said=said)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stderr}"
        assert done.stdout or done.stderr


def python_of(page: str) -> str:
    """A page's Python blocks that are marked to be run, at their own lines, so that an error names the page's."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in PYTHON.finditer(text):
        first = text.count("\n", 0, block.start(1))
        lines[first : first + block[1].count("\n")] = block[1].splitlines()
    return "\n".join(lines) + "\n"


@pytest.mark.slow_but("docs/python.md")
@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page).strip()])
def test_python_blocks_run_as_they_stand(page: str, tmp_path: Path) -> None:
    """One after the other in one fresh interpreter and an empty folder."""
    script = tmp_path / Path(page).with_suffix(".py").name
    script.write_text(python_of(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-P", script],
        cwd=tmp_path,
        env=command_env(tmp_path),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{page}\n{done.stderr}"
    assert done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_that_are_not_run_are_python(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, page, "exec")


def test_every_command_is_in_some_document_or_help() -> None:
    """A new command needs a line: each one stands in the changelog or the documents."""
    text = "".join((ROOT / page).read_text(encoding="utf-8") for page in (*PAGES, "CHANGELOG.md"))
    folder = ROOT / "bertkit" / "cli"
    names = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "main",
        "hf_flags",
        "hf_values",
        "completion",
        "options",
        "pages",
        "inner",
        "bench_suite",
        "launch_container",
        "launch_options",
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
