"""Fixtures of the unit tests."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import Vocabulary
from conftest import ROOT
from in_thread import in_thread
from publisher import Publisher


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A server on loopback for one test."""
    with in_thread(Publisher()) as server:
        yield server


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """That of tests/pretraining_files.py; a file may have its own."""
    from pretraining_files import write_vocabulary

    return read_vocabulary(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Imports a script of benchmarks/ by name."""
    folder = str(ROOT / "benchmarks")
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if folder in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
