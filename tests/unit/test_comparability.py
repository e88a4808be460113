"""docs/comparability.md: every trap has its row, and every test that it names exists."""

from __future__ import annotations

import ast
import re

from conftest import ROOT

PAGE = (ROOT / "docs" / "comparability.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (\d+b?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def named_in_the_suite() -> set[str]:
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.name}::{node.name}")
    return found


def test_every_trap_has_a_row_with_tests() -> None:
    rows = {number: named for number, _, _, named in ROW.findall(PAGE)}
    assert rows.keys() == {*map(str, range(37)), "6b"}
    assert [number for number, named in rows.items() if not re.findall(r"`test_\w+\.py::test_\w+`", named)] == []


def test_every_test_that_is_named_exists() -> None:
    named = set(re.findall(r"`(test_\w+\.py::\w+)`", PAGE))
    assert len(named) > 40
    assert sorted(named - named_in_the_suite()) == []
