"""What each of two ranks of tests/device/test_device_sum.py runs: gloo in place of an accelerator's library."""

from __future__ import annotations

import itertools
import sys

import torch
from torch import Tensor, nn

from bertkit.distributed.world import World, from_env
from bertkit.engine.interface import Exchange
from bertkit_torch import ranks
from bertkit_torch.gradients import FlatGradients, Gradients
from bertkit_torch.sharded import stretches

SHAPES = {"a": (7, 3), "b": (5,), "c": (1,)}
TOTAL = 27
BUCKETS = {25_000_000: 1, 20: 3}  # bytes -> stretches of 27 bf16 numbers
CASES = list(itertools.product((Gradients, FlatGradients), ("fp32", "bf16"), BUCKETS, (None, 0, 1)))


def gradient(rank: int, update: int) -> Tensor:
    return torch.randn(TOTAL, generator=torch.Generator().manual_seed(10 * update + rank))


def loss(rank: int) -> Tensor:
    return torch.tensor(1.0 / 3 + rank)  # bf16 would round it


def works(world: World) -> None:
    sent: list[torch.dtype] = []
    all_reduce = ranks.dist.all_reduce

    def noted(tensor: Tensor) -> None:
        sent.append(tensor.dtype)
        all_reduce(tensor)

    ranks.dist.all_reduce = noted
    for kind, dtype, bucket, idle in CASES:
        parameters = {name: nn.Parameter(torch.zeros(shape)) for name, shape in SHAPES.items()}
        held = kind(parameters)
        exchange = Exchange("gloo", dtype, bucket_bytes=bucket, timeout=60)  # type: ignore[arg-type]
        met = ranks.Ranks(world, "gloo", torch.device("meta"), held, exchange)
        assert met.describe()["collectives"].startswith(f"gloo for {dtype} gradients, gloo for the rest"), (
            met.describe()
        )
        for update in (1, 2):
            met.begin(update)
            alone = [torch.zeros(TOTAL) if rank == idle else gradient(rank, update) for rank in range(2)]
            if world.rank != idle:  # a rank without a sequence has no backward pass
                parts = torch.split(alone[world.rank], [one.numel() for one in parameters.values()])
                for parameter, part in zip(parameters.values(), parts, strict=True):
                    (parameter.flatten() * part).sum().backward()
            met.arm()
            sent.clear()
            total = met.sum_(loss(world.rank) if world.rank != idle else torch.tensor(0.0))
            wanted = alone[0] + alone[1]
            if dtype == "bf16":
                wanted = (alone[0].bfloat16() + alone[1].bfloat16()).float()
            found = torch.cat([one.reshape(-1) for one in held.complete()])
            assert torch.equal(found, wanted), (kind, dtype, bucket, idle)
            assert total == sum(loss(rank) for rank in range(2) if rank != idle)
            stretches = BUCKETS[bucket] if dtype == "bf16" else 1
            assert sent == [getattr(torch, {"bf16": "bfloat16", "fp32": "float32"}[dtype])] * stretches + [
                torch.float32
            ]
            held.clear()
        takes_weights(met, world)
        met.close()
        assert not ranks.dist.is_initialized()  # the group is left, and met anew by the next
    sys.stdout.write(f"rank {world.rank}: {len(CASES)} cases\n")  # in one piece, as the other writes too


def takes_weights(met: ranks.Ranks, world: World) -> None:
    """Each rank has its own share, in three turns; the second has less, and none in the last."""
    whole = [torch.arange(10.0).reshape(2, 5), torch.arange(10.0, 13.0), -torch.arange(7.0)]
    held = [torch.zeros_like(one) for one in whole]
    for part, one in zip(held, whole, strict=True):
        if (part.shape == (7,)) == (world.rank == 1):
            part.copy_(one)
    of_ranks = stretches(held[:2], 5), stretches(held[2:], 5)
    assert [len(groups) for groups in of_ranks] == [3, 2]
    for turn in itertools.zip_longest(*of_ranks, fillvalue=()):
        met.share(turn)
    assert all(map(torch.equal, held, whole))


if __name__ == "__main__":
    works(from_env())
