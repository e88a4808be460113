"""Gradients of an accelerator's ranks: two real processes over gloo, and what a user reads where they do not meet."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertkit.distributed import collectives
from bertkit.distributed.collectives import Joined
from bertkit.distributed.watchdog import Watchdog
from bertkit.distributed.world import World
from bertkit.engine.interface import Exchange
from bertkit.errors import PeersLost, UserError
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


class Nobody:
    """A library without a word."""

    name, reason = "none", ""

    def close(self) -> None: ...

    abandon = close


def met(timeout: float, left: list[int]) -> ranks.Ranks:
    """Rank 1 of 2 on an accelerator, whose watchdog notes the code it would end with."""
    made = ranks.Ranks.__new__(ranks.Ranks)
    made.world, made._place = World(1, 2, 1, 2), torch.device("meta")
    made._joined = Joined(Nobody(), made.world, "", Watchdog(1, timeout, leave=left.append))  # type: ignore[arg-type]
    return made


def test_a_device_that_hangs_in_a_sum_ends_its_rank_with_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    """The sum itself returns at once: it is the wait for the device that does not."""
    left: list[int] = []
    with met(0.2, left).waiting("for the device"):
        time.sleep(0.8)
    assert left[:1] == [75]
    assert "rank 1 has waited 0.2 s for the other ranks for the device" in capsys.readouterr().err


def test_a_library_that_lost_its_peers_is_a_consequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collectives, "GOING", 0.0)
    with pytest.raises(PeersLost, match="lost the other ranks in a sum: NCCL communicator was aborted"):  # noqa: SIM117
        with met(60, []).waiting("in a sum"):
            raise torch.distributed.DistBackendError("NCCL communicator was aborted on rank 1.\nMore of it")


def test_an_engine_in_trouble_does_not_wait_for_the_others_to_leave_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    destroyed: list[str] = []
    monkeypatch.setattr(ranks.dist, "is_initialized", lambda: False)
    monkeypatch.setattr(ranks, "meet", lambda world, timeout: SimpleNamespace(store=None, joins=count()))
    monkeypatch.setattr(ranks.dist, "PrefixStore", lambda name, store: store)
    monkeypatch.setattr(ranks.dist, "init_process_group", lambda *args, **kwargs: None)
    monkeypatch.setattr(ranks.dist, "destroy_process_group", lambda: destroyed.append("group"))
    held = FlatGradients({"p": torch.nn.Parameter(torch.zeros(1))})
    made = ranks.DeviceSum(met(60, [])._joined, "theirs", held, Exchange())
    monkeypatch.setattr(ranks.dist, "is_initialized", lambda: True)
    try:
        raise ValueError("a fault")
    except ValueError:
        made.close()
    assert destroyed == []
    made.close()
    assert destroyed == ["group"]
