"""Rows of two ranks that only Open MPI's variables describe, on a first-generation card with op lists of their own."""

from __future__ import annotations

import os
import sys

import habana_frameworks.torch.distributed.hccl as hccl
import torch
import torch.distributed as dist
from habana_frameworks import _sim
from table import raises, row, run
from torch import nn

STATE = _sim.STATE
RANK = int(os.environ["OMPI_COMM_WORLD_RANK"])
FOUND = hccl.initialize_distributed_hpu()
dist.init_process_group("hccl")


def hpu(*values: float) -> torch.Tensor:
    return torch.tensor(values).to("hpu")


@row("1.6 ranks come from OMPI_*, and the module from HABANA_VISIBLE_MODULES; the device is hpu:0 all the same")
def _environment() -> None:
    assert FOUND == (2, RANK, RANK)
    assert os.environ["RANK"] == os.environ["ID"] == str(RANK)
    assert os.environ["HLS_MODULE_ID"] == ["4", "6"][RANK]
    assert hpu(1.0).device == torch.device("hpu:0")
    assert dist.get_backend() == "hccl"


@row("1.6 SUM, MAX, MIN and PRODUCT; integers and bf16 too")
def _sums() -> None:
    for op, wanted in ((dist.ReduceOp.SUM, 5.0), (dist.ReduceOp.MAX, 3.0), (dist.ReduceOp.PRODUCT, 6.0)):
        x = hpu(2.0 + RANK)
        dist.all_reduce(x, op=op)
        assert x.item() == wanted
    for dtype in (torch.bfloat16, torch.int64, torch.int32):
        x = hpu(2.0 + RANK).to(dtype)
        dist.all_reduce(x)
        assert (x.item(), x.dtype) == (5, dtype)
    assert [one["first"] for one in STATE.collectives[-3:]] == ["BFloat16[1]", "Long[1]", "Int[1]"]


@row("1.6 AVG, float64 and host tensors are refused")
def _refused() -> None:
    with raises(RuntimeError, "Unsupported ReduceOp for HCCL process group"):
        dist.all_reduce(hpu(1.0), op=dist.ReduceOp.AVG)
    with raises(RuntimeError, "Double"):
        dist.all_reduce(torch.ones(2, dtype=torch.float64, device="hpu"))
    with raises(RuntimeError, "cpu"):
        dist.all_reduce(torch.ones(2))


@row("1.6 broadcast, gathers, scatter of a sum, send and receive, barrier, objects, an asynchronous sum")
def _others() -> None:
    x = hpu(float(RANK))
    dist.broadcast(x, 1)
    assert x.item() == 1.0
    parts = [torch.empty(1, device="hpu") for _ in range(2)]
    dist.all_gather(parts, hpu(float(RANK)))
    whole, part = torch.empty(2, device="hpu"), torch.empty(1, device="hpu")
    dist.all_gather_into_tensor(whole, hpu(float(RANK)))
    dist.reduce_scatter_tensor(part, hpu(1.0, 2.0))
    assert (torch.cat(parts).tolist(), whole.tolist(), part.item()) == ([0.0, 1.0], [0.0, 1.0], 2.0 + 2.0 * RANK)
    if RANK == 0:
        dist.send(hpu(7.0), 1)
    else:
        dist.recv(x, 0)
        assert x.item() == 7.0
    dist.barrier()
    objects: list[object] = [None, None]
    dist.all_gather_object(objects, {"rank": RANK})
    assert objects == [{"rank": 0}, {"rank": 1}]
    work = dist.all_reduce(x := hpu(1.0), async_op=True)
    work.wait()
    assert x.item() == 2.0


@row("1.6 a group of the same ranks is made once")
def _groups() -> None:
    assert dist.new_group([0, 1]) is dist.new_group([1, 0])


@row("1.6 DDP: gradients are the mean over ranks; no_sync sends nothing")
def _ddp() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).to("hpu")
    twin = nn.Linear(3, 2)
    twin.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    data = torch.randn(4, 3)
    ddp = nn.parallel.DistributedDataParallel(model, bucket_cap_mb=230, gradient_as_bucket_view=True)
    ddp(data[RANK::2].to("hpu")).square().mean().backward()
    twin(data).square().mean().backward()
    assert torch.allclose(model.weight.grad.cpu(), twin.weight.grad, atol=1e-6)
    assert STATE.collectives[-1]["bytes"] == 4 * 8
    ddp(data.to("hpu")).sum().backward()  # the second pass rebuilds the buckets
    before = len(STATE.collectives)
    with ddp.no_sync():
        ddp(data.to("hpu")).sum().backward()
    assert len(STATE.collectives) == before


@row("1.6 ranks that seed by rank draw different masks")
def _masks() -> None:
    torch.manual_seed(RANK)
    masks = [torch.empty(64, device="hpu") for _ in range(2)]
    dist.all_gather(masks, nn.functional.dropout(torch.ones(64, device="hpu")))
    assert not torch.equal(masks[0].cpu(), masks[1].cpu())


@row("1.3 files of ops replace the lists, and are read when the library is loaded")
def _lists() -> None:
    x = torch.ones(2, 2, device="hpu")
    with torch.autocast("hpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.bfloat16
        assert torch.softmax(x.bfloat16(), -1).dtype == torch.float32
        assert (x * x).dtype == torch.float32
        assert (x.bfloat16() / x.bfloat16()).dtype == torch.bfloat16


@row("1.1 the first generation: its name, no fp16, int64 cut in eager mode too")
def _first_generation() -> None:
    from habana_frameworks.torch.utils import experimental

    assert torch.hpu.get_device_name() == "GAUDI"
    assert not experimental._is_fp16_supported()
    assert torch.tensor([2**40 + 5]).to("hpu").item() == 5
    assert torch.hpu.memory_reserved() == 32 << 30


if __name__ == "__main__":
    sys.argv[1] += f".{RANK}"
    run()
    dist.destroy_process_group()
