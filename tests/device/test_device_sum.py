"""Gradients of an accelerator's ranks: two real processes over gloo, and what a user reads where they do not meet."""

from __future__ import annotations

import subprocess
import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertkit.distributed.world import World
from bertkit.engine.interface import Exchange
from bertkit.errors import UserError
from command import free_port
from conftest import ROOT, command_env

torch = pytest.importorskip("torch")
from bertkit_torch import ranks  # noqa: E402
from bertkit_torch.gradients import FlatGradients  # noqa: E402


@pytest.mark.slow
def test_two_ranks_sum_their_gradients_and_one_may_have_none(tmp_path: Path) -> None:
    """fp32 to the bit, bf16 rounded once on the way, the loss never; in one stretch and in several."""
    folders = [str(ROOT / folder) for folder in (".", "backends", "launchers", "tests")]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "gradients_at_work.py")],
            env=command_env(tmp_path) | common | {"RANK": rank, "LOCAL_RANK": rank, "PYTHONPATH": ":".join(folders)},
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    for rank, process in enumerate(started):
        try:
            out, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        assert process.returncode == 0, errors
        assert out == f"rank {rank}: 24 cases\n"


def test_ranks_that_do_not_meet_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no route\nto host")

    monkeypatch.setattr(ranks, "meet", lambda world, timeout: SimpleNamespace(store=None, joins=count()))
    monkeypatch.setattr(ranks.dist, "PrefixStore", lambda name, store: store)
    monkeypatch.setattr(ranks.dist, "init_process_group", fail)
    held = FlatGradients({"p": torch.nn.Parameter(torch.zeros(1))})
    with pytest.raises(UserError) as caught:
        ranks.DeviceSum(SimpleNamespace(world=World(0, 2, 0, 2)), "theirs", held, Exchange())  # type: ignore[arg-type]
    assert caught.value.cause == "the 2 processes did not find each other through theirs: no route to host"
    assert "MASTER_ADDR" in caught.value.cure
