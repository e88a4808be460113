"""LAMB over ranks: any split of a batch learns the same, and an optimizer shared by the ranks is the same optimizer."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.conformance.fixtures import gap
from bertkit.distributed.world import World
from bertkit.engine.interface import OptimizerSpec
from bertkit.errors import UserError
from command import free_port
from conftest import ROOT

torch = pytest.importorskip("torch")
from bertkit_cpu.device import CpuDevice  # noqa: E402
from bertkit_torch import sharded  # noqa: E402
from bertkit_torch.sharded import Sharded, bundles, deal, stretches  # noqa: E402
from ranks_learn import LAMB, learn, made  # noqa: E402

UPDATES = 4
Found = list[dict[str, dict[str, np.ndarray]]]  # of each rank: whole, shard -> arrays


def ranks(folder: Path, size: int, *words: str) -> Found:
    """As torchrun starts them. Every rank's arrays."""
    path = os.pathsep.join(str(ROOT / part) for part in (".", "backends", "launchers", "tests"))
    env = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMIX_", "PMI_", "SLURM_"))}
    env |= {"PYTHONPATH": path, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    env |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    command = [sys.executable, str(ROOT / "tests" / "ranks_learn.py"), str(folder), *words]
    started = [
        subprocess.Popen(command, env=env | {"RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE, text=True)
        for r in range(size)
    ]
    said = []
    for process in started:
        try:
            said.append(process.communicate(timeout=120)[1])
        finally:
            process.kill()
    assert [process.returncode for process in started] == [0] * size, said
    return [{n: dict(np.load(folder / f"{r}-{n}.npz")) for n in ("whole", "shard")} for r in range(size)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Found:
    return ranks(tmp_path_factory.mktemp("two"), 2, "1", str(UPDATES))


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    """One rank that accumulates over four micro-batches, four updates and two more."""
    threads = torch.get_num_threads()
    engine = made(World(), shard=True)  # with nobody to share with
    losses = learn(engine, World(), 1, UPDATES, 4)
    arrays = engine.state_dict() | {"losses": np.array(losses)}
    more = learn(engine, World(), UPDATES + 1, UPDATES + 2, 4)
    torch.set_num_threads(threads)
    return arrays | {f"later.{n}": a for n, a in engine.state_dict().items()} | {"later.losses": np.array(more)}


def part_of(arrays: Mapping[str, np.ndarray], *beginnings: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in arrays.items() if name.startswith(beginnings)}


@pytest.mark.slow
def test_two_ranks_times_two_learn_what_one_times_four_does(two: Found, alone: dict[str, np.ndarray]) -> None:
    for rank in two:
        for found in rank.values():
            assert found["losses"] == pytest.approx(alone["losses"], abs=2e-6)
            kinds = ("model.", "adam.first.")
            assert gap(part_of(found, *kinds), part_of(alone, *kinds)) < 2e-6
            assert float(found["adam.step"]) == UPDATES
    assert alone["losses"][-1] < alone["losses"][0]


def test_sharing_changes_no_bit(two: Found) -> None:
    whole = part_of(two[0]["whole"], "model.", "adam.", "losses")
    for rank in two:
        assert gap(whole, part_of(rank["shard"], "model.", "adam.", "losses")) == 0


def test_each_rank_keeps_its_share_alone(two: Found) -> None:
    every = int(two[0]["whole"]["kept"])
    kept = [int(rank["shard"]["kept"]) for rank in two]
    assert sum(kept) == every
    assert max(kept) < 0.6 * every


def test_a_checkpoint_of_two_goes_on_with_three_and_with_one(
    two: Found, alone: dict[str, np.ndarray], tmp_path: Path
) -> None:
    state = {n: a for n, a in two[0]["shard"].items() if n not in ("losses", "kept")}
    np.savez(tmp_path / "state.npz", **state)  # type: ignore[arg-type]
    three = ranks(tmp_path, 3, str(UPDATES + 1), str(UPDATES + 2), str(tmp_path / "state.npz"))
    one = made(World(), shard=False)
    one.load_state_dict(state)
    losses = [learn(one, World(), UPDATES + 1, UPDATES + 2, 4), *(rank["shard"]["losses"] for rank in three)]
    states = [one.state_dict(), *(rank["shard"] for rank in three)]
    wanted = {n.removeprefix("later."): a for n, a in part_of(alone, "later.model.").items()}
    for losses_found, found in zip(losses, states, strict=True):
        assert losses_found == pytest.approx(alone["later.losses"], abs=5e-6)
        assert gap(part_of(found, "model."), wanted) < 5e-6


class Others:
    """Plays the other ranks of one process's Sharded: what each of them gives in turn is said before."""

    def __init__(self, given: list[np.ndarray]) -> None:
        self.given = given
        self.took: list[np.ndarray] = []

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.took.append(rows)
        return np.concatenate([rows, self.given.pop(0)])


def parameters() -> dict[str, Any]:
    shapes = {"a.weight": (3, 4), "b.weight": (10,), "c.bias": (5,), "d.bias": (2,)}
    return {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}


def test_weights_travel_in_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of two ranks has a and d (14 numbers), the other b and c (15), sent in two turns."""
    monkeypatch.setattr(sharded, "BUNDLE", 11)
    own = parameters()
    others = Others([np.arange(15, dtype=np.float32), np.empty(0, np.float32)])
    shared = Sharded(own, LAMB, CpuDevice().optimizer, World(0, 2, 0, 2), others)
    assert shared.shares == [("a.weight", "d.bias"), ("b.weight", "c.bias")]
    for parameter in own.values():
        parameter.grad = torch.ones_like(parameter)
    shared.step(0.1)
    shared.spread()
    assert [len(rows) for rows in others.took] == [12, 2]
    assert own["b.weight"].tolist() == list(range(10))
    assert own["c.bias"].tolist() == list(range(10, 15))
    assert float(own["a.weight"].detach().max()) < 0


def test_on_an_accelerator_weights_go_from_device_to_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is gathered through the host, which would take longer than the update itself."""
    monkeypatch.setattr(sharded, "BUNDLE", 11)
    own, turns, others = parameters(), [], Others([])
    shared = Sharded(own, LAMB, CpuDevice().optimizer, World(0, 2, 0, 2), others, turns.append)
    shared.spread()
    assert others.took == []
    assert [[[len(part) for part in parts] for parts in turn] for turn in turns] == [[[11], [10, 1]], [[1, 2], [4]]]
    turns[1][1][0].fill_(1.0)  # they are the weights themselves
    assert own["c.bias"].tolist() == [0, 1, 1, 1, 1]


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 12))
def test_stretches_cover_every_tensor_once_in_order(sizes: list[int], most: int) -> None:
    ends = np.cumsum([0, *sizes])
    tensors = [torch.arange(float(a), float(b)) for a, b in itertools.pairwise(ends)]
    groups = stretches(tensors, most)
    assert torch.equal(torch.cat([torch.empty(0), *(p for g in groups for p in g)]), torch.arange(float(ends[-1])))
    assert [sum(map(len, group)) for group in groups[:-1]] == [most] * (len(groups) - 1)
    assert all(0 < sum(map(len, group)) <= most for group in groups[-1:])


def test_what_a_checkpoint_lacks_stops_every_rank() -> None:
    shared = [Sharded(parameters(), LAMB, CpuDevice().optimizer, World(r, 2, r, 2), Others([])) for r in (0, 1)]
    arrays = {f"{m}.{n}": np.zeros(p.shape) for m in ("adam.first", "adam.second") for n, p in parameters().items()}
    arrays["adam.step"] = np.array(3.0)
    for one in shared:
        one.load_state_dict(arrays)
        with pytest.raises(UserError, match=r"lacks adam\.second\.c\.bias"):
            one.load_state_dict({name: array for name, array in arrays.items() if name != "adam.second.c.bias"})


def test_more_ranks_than_tensors_are_refused() -> None:
    with pytest.raises(UserError, match=r"5 processes cannot share 4 tensors.*optimizer\.shard"):
        Sharded(parameters(), LAMB, CpuDevice().optimizer, World(0, 5, 0, 5), Others([]))


def test_an_inner_optimizer_never_clips_by_its_share() -> None:
    seen: list[OptimizerSpec] = []

    def make(own: Any, spec: OptimizerSpec) -> Any:
        seen.append(spec)
        return CpuDevice().optimizer(own, spec)

    assert not Sharded(parameters(), LAMB, make, World(0, 2, 0, 2), Others([])).clips
    assert [spec.clip_norm for spec in seen] == [0.0]


@given(st.lists(st.integers(1, 5_000_000), min_size=1, max_size=40), st.integers(1, 9))
def test_every_tensor_is_dealt_once_and_evenly(numbers: list[int], count: int) -> None:
    sizes = {f"tensor{number}": size for number, size in enumerate(numbers)}
    shares = deal(sizes, count)
    assert sorted(name for share in shares for name in share) == sorted(sizes)
    loads = [sum(sizes[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(numbers)
    assert len(sizes) < count or min(len(share) for share in shares) > 0
    for share in filter(None, shares):
        groups = bundles(share, sizes)
        assert [name for group in groups for name in group] == list(share)
        assert all(sum(sizes[name] for name in group[:-1]) < sharded.BUNDLE for group in groups)
