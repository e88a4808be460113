"""`bertkit help`: topics, pages, what is said of a topic that there is not; and that a wheel carries the pages."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.cli import help as help_command
from bertkit.cli import pages as found_pages
from bertkit.cli.main import main
from bertkit.cli.pages import INDEX, pages, read, with_mentions
from conftest import ROOT

DOCS = ROOT / "docs"


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `bertkit help …`."""
    with pytest.raises(SystemExit) as ended:
        main(["help", *words])
    out, err = capsys.readouterr()
    return int(str(ended.value.code)), out, err


def test_every_page_is_a_topic_of_its_own() -> None:
    listed = pages(read(DOCS, INDEX))
    files = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {INDEX}
    assert {page.file for page in listed} == files
    assert len({page.topic for page in listed}) == len(listed) > 40
    assert {page.kind for page in listed} == {"Tutorials", "How-to guides", "Reference", "Concepts"}


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys)
    assert code == 0
    assert [line for line in out.splitlines() if line and not line.startswith(" ")][:4] == [
        "Tutorials", "How-to guides", "Reference", "Concepts",
    ]  # fmt: skip
    assert "  first-run  " in out
    code, out, _ = shown(capsys, "--json")
    listed = json.loads(out)
    assert {
        "topic": "serve",
        "kind": "How-to guides",
        "about": "serve trained models over HTTP",
        "file": "serve.md",
    } in listed


def test_into_a_pipe_a_page_is_its_text(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, "first-run")
    text = read(DOCS, "tutorials/first-run.md")
    assert (code, out) == (0, text)
    code, out, _ = shown(capsys, "first-run", "--json")
    assert json.loads(out)["text"] == text
    assert json.loads(out)["file"] == "tutorials/first-run.md"


def test_on_a_terminal_a_page_is_formatted_and_names_commands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "90")
    out = re.sub(r"\x1b\[[\d;]*m", "", shown(capsys, "compare-runs")[1])  # styles
    assert "# Comparing" not in out  # a heading is drawn
    assert "bertkit help fairness" in out
    assert "docs/concepts" not in out
    assert max(map(len, out.splitlines())) <= 90


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        (
            "serv",
            "there is no page 'serv'; did you mean serve or bench-serve or clusters? `bertkit help` lists the",
        ),
        ("train", "there is no page 'train'; `bertkit train -h` shows the command's options"),
        ("../README", "there is no page '../README'; "),
        ("", "there is no page ''; "),
    ],
)
def test_a_topic_that_there_is_not(topic: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = shown(capsys, topic)
    assert (code, out) == (2, "")
    assert err.startswith(f"bertkit: {words}")
    assert err.count("\n") == 1


def test_an_installation_without_pages_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(found_pages, "__file__", str(tmp_path / "bertkit" / "cli" / "pages.py"))
    code, _, err = shown(capsys)
    assert code == 2
    assert err == "bertkit: this installation has no pages; install bertkit anew from a whole checkout or its wheel\n"
    assert help_command.folder is found_pages.folder


@given(
    st.lists(
        st.sampled_from(["docs/a.md", "`docs/a.md`", "[x](a.md)", "\n```\ndocs/a.md\n```\n", " b ", "`", "(a.md)"])
    )
)
def test_mentions_are_replaced_in_prose_alone(parts: list[str]) -> None:
    """A lone backtick apart, which opens code where another follows in its line."""
    text = "\n\n".join(part for part in parts if part != "`")
    made = with_mentions(text, lambda file: f"<{file}>")
    assert made == "\n\n".join(
        {"docs/a.md": "<a.md>", "(a.md)": "(<a.md>)"}.get(part, part) for part in parts if part != "`"
    )
    assert with_mentions("".join(parts), lambda _: None) == "".join(parts)


def build(root: Path, monkeypatch: pytest.MonkeyPatch, editable: bool = False) -> Path:
    """What setup.py's own step adds to a build of the source in `root`."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed")
    asked: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **words: asked.update(words))
    monkeypatch.syspath_prepend(str(root))
    runpy.run_path(str(root / "setup.py"))
    command = asked["cmdclass"]["build_py"](setuptools.Distribution({"packages": []}))
    command.ensure_finalized()
    command.build_lib, command.editable_mode = str(root / "lib"), editable
    command.run()
    return root / "lib" / "bertkit" / "cli" / "documents"


def test_a_wheel_carries_the_pages_and_an_editable_installation_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "setup.py", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    assert not build(tmp_path, monkeypatch, editable=True).exists()
    carried = build(tmp_path, monkeypatch)
    assert {path.relative_to(carried) for path in carried.rglob("*") if path.is_file()} == {
        path.relative_to(DOCS) for path in DOCS.rglob("*.md")
    }
    assert (carried / "serve.md").read_bytes() == (DOCS / "serve.md").read_bytes()


def test_a_source_without_its_pages_is_not_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "setup.py", tmp_path)
    with pytest.raises(SystemExit, match="build from a whole checkout"):
        build(tmp_path, monkeypatch)


def test_the_folder_of_a_wheel_comes_before_the_checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "site-packages" / "bertkit" / "cli"
    for place in (here / "documents", tmp_path / "site-packages" / "docs"):
        place.mkdir(parents=True)
        (place / INDEX).write_text("# Documents\n", encoding="utf-8")
    monkeypatch.setattr(found_pages, "__file__", str(here / "pages.py"))
    assert found_pages.folder() == here / "documents"


def test_help_is_read_by_a_pager_that_ends_early(tmp_path: Path) -> None:
    command = f"'{sys.executable}' -m bertkit help comparability | head -1"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("# Comparability\n", "")
