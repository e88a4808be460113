"""Fixtures of the unit tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import Vocabulary
from publisher import Publisher


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    """A server on loopback for one test."""
    with Publisher() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """That of tests/pretraining_files.py; a file may have its own."""
    from pretraining_files import write_vocabulary

    return read_vocabulary(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))
