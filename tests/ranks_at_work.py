"""What the ranks of tests/device/test_collectives.py run: `python ranks_at_work.py CASE COLLECTIVES`."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import numpy as np

from bertkit.distributed.collectives import Joined, join
from bertkit.distributed.host_sums import add, from_bf16, to_bf16
from bertkit.distributed.world import World, from_env
from bertkit.errors import UserError

COUNT = 1003  # no multiple of 2 or 3


def values(rank: int, count: int = COUNT, seed: int = 1) -> np.ndarray:
    return np.random.default_rng((seed, rank)).normal(size=count).astype(np.float32)


def in_order(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total


def sums_fp32(ranks: Joined, world: World) -> None:
    """Two buffers at once, the second in stretches, each used twice."""
    first, second = ranks.flat(COUNT, "fp32", add), ranks.flat(7, "fp32", add)
    assert first.array.dtype == np.float32
    assert first.array.shape == (COUNT,)
    for again in (1, 2):
        first.array[:] = values(world.rank, seed=again)
        second.array[:] = values(world.rank, 7, seed=again)
        first.sum_(0, COUNT)
        wanted = in_order([values(rank, seed=again) for rank in range(world.size)])
        if ranks.name == "window":
            assert np.array_equal(first.array, wanted)
        np.testing.assert_allclose(first.array, wanted, rtol=1e-6, atol=1e-6)
        own = second.array.copy()
        for start, stop in ((4, 7), (1, 4), (2, 2)):
            second.sum_(start, stop)
        wanted = in_order([values(rank, 7, seed=again) for rank in range(world.size)])
        np.testing.assert_allclose(second.array[1:], wanted[1:], rtol=1e-6, atol=1e-6)
        assert second.array[0] == own[0]  # outside every stretch


def sums_bf16(ranks: Joined, world: World) -> None:
    flat = ranks.flat(COUNT, "bf16", add)
    assert flat.array.dtype == np.uint16
    flat.array[:] = to_bf16(values(world.rank))
    flat.sum_(0, 500)
    flat.sum_(500, COUNT)
    parts = [from_bf16(to_bf16(values(rank))) for rank in range(world.size)]
    found, wanted = from_bf16(flat.array), in_order(parts)
    if ranks.name == "gloo":
        np.testing.assert_allclose(found, wanted, rtol=2**-7, atol=2**-6)
    else:
        assert np.array_equal(flat.array, to_bf16(wanted))  # rounded once


def gathers(ranks: Joined, world: World) -> None:
    for shape, kind in (((), np.int64), ((3,), np.float32), ((2, 2), np.float64), ((0,), np.float32)):
        for counts in ([2, 0, 5], [0, 0, 0], [1, 3, 2]):
            parts = [np.full((count, *shape), 10 * rank + 1, kind) for rank, count in enumerate(counts)][: world.size]
            found = ranks.gather(parts[world.rank])
            assert found.dtype == kind
            assert np.array_equal(found, np.concatenate(parts)), (shape, counts)
    turned = ranks.gather(np.arange(6).reshape(2, 3).T + world.rank)  # not contiguous
    assert np.array_equal(turned[:3], np.arange(6).reshape(2, 3).T)


def group_threads_end() -> bool:
    """gloo's, of this process: where Python ends before they do, it may abort."""
    until = time.monotonic() + 5
    while group_threads() and time.monotonic() < until:  # a joined thread stays listed for a moment
        time.sleep(0.02)
    return not group_threads()


def group_threads() -> list[str]:
    if not sys.platform.startswith("linux"):
        return []
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            names.append((task / "comm").read_text().strip())
    return [name for name in names if name == "pt_gloo_runloop"]


def works(world: World, asked: str) -> None:
    """Everything, in three groups: one after another, and two at a time."""
    for case in (sums_fp32, sums_bf16):
        ranks = join(world, asked, 60)
        case(ranks, world)
        gathers(ranks, world)
        ranks.close()
    one, other = join(world, asked, 60), join(world, asked, 30)
    gathers(other, world)
    sums_fp32(one, world)
    other.close()
    sums_bf16(one, world)
    held = one.flat(COUNT, "fp32", add)
    one.close()
    assert group_threads_end(), f"{held} keeps the connections of a group that was left"
    sys.stdout.write(f"rank {world.rank}: {one.name}: {one.reason}\n")  # in one piece, as others write too


def fails(world: World, asked: str) -> None:
    """The last rank meets the others, then leaves with an error."""
    ranks = join(world, asked, 60)
    try:
        ranks.at("at update 7")
        flat = ranks.flat(COUNT, "fp32", add)
        flat.sum_(0, COUNT)
        if world.rank == world.size - 1:
            raise UserError("this rank has had enough", "nothing helps")
        flat.sum_(0, COUNT)
    finally:
        ranks.close()


def hangs(world: World, asked: str) -> None:
    """The last rank does not come to the second sum."""
    ranks = join(world, asked, 2)
    ranks.at("at update 7")
    flat = ranks.flat(COUNT, "fp32", add)
    flat.sum_(0, COUNT)
    if world.rank == world.size - 1:
        time.sleep(6)
    flat.sum_(0, COUNT)


if __name__ == "__main__":
    try:
        {"works": works, "fails": fails, "hangs": hangs}[sys.argv[1]](from_env(), sys.argv[2])
    except UserError as error:
        print(f"bertkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
