"""The losses of seeded runs are those that were recorded before the last refactor, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gaudi_standin_env import require_standin
from seeded_losses import CASES, Case, losses, machine, prepare, read, real_data


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeded")
    prepare(folder, sys.executable)
    return folder


@pytest.mark.slow_but("sample bf16 cpu")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_bit_of_the_losses_has_changed(case: Case, place: Path) -> None:
    known = read().get(machine())
    if known is None:
        pytest.skip(f"no losses are recorded for {machine()}: python tests/seeded_losses.py --record, before a change")
    if case.task == "mrpc" and real_data() is None:
        pytest.skip("real data is not here")
    if case.way.startswith("gaudi"):
        require_standin()
    assert losses(case, place, sys.executable) == known[case.name]
