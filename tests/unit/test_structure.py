"""The structure of `bertkit/` keeps within its goals; `python tests/structure.py` prints the figures."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

import structure
from structure import Structure, longest_chain


@pytest.fixture(scope="module")
def found() -> Structure:
    return structure.structure()


def test_the_core_has_few_modules_and_rooms(found: Structure) -> None:
    assert len(found.modules) <= 6, found.modules
    assert len(found.packages) <= 14, found.packages


def test_no_chain_of_imports_is_long(found: Structure) -> None:
    assert len(found.chain) <= 14, " > ".join(found.chain)


def test_no_two_public_classes_share_a_name(found: Structure) -> None:
    assert found.homonyms == ()


def test_files_and_functions_can_be_read_at_once(found: Structure) -> None:
    assert found.file_lines(0.9) <= 350
    assert found.function_lines(0.9) <= 25
    lines, place = found.functions[-1]
    assert lines <= 60, place


def test_the_figures_are_those_of_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "ROOT", tmp_path)
    core = tmp_path / "bertkit"
    for path, text in {
        "__init__.py": "",
        "errors.py": "class Fault: ...\nclass _Own: ...\n",
        "model/__init__.py": "from bertkit import errors\n",
        "model/names.py": "from bertkit.model import Net\nclass Fault: ...\nclass _Own: ...\n",
        "cli/__init__.py": "",
        "cli/run.py": """
            from bertkit.model.names import Fault
            def command(a, b, c, d, e, f, g, h, i):
                return 1
            def short():
                from bertkit.data import later
                return later
            """,
    }.items():
        (core / path).parent.mkdir(parents=True, exist_ok=True)
        (core / path).write_text(textwrap.dedent(text))
    made = structure.structure(core)
    assert made.modules == ("__init__.py", "errors.py")
    assert made.packages == ("cli", "model")
    assert made.homonyms == ("Fault",)
    assert made.chain == ("bertkit.cli.run", "bertkit.model.names", "bertkit.model", "bertkit.errors")
    assert made.functions == ((3, "bertkit.cli.run.short"),)
    assert (made.files[0], made.files[-1]) == (0, 7)


def test_the_longest_chain_is_found_among_several() -> None:
    assert longest_chain({"a": {"b", "c"}, "b": {"d"}, "c": set(), "d": set()}) == ("a", "b", "d")
