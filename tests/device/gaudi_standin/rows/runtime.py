"""Rows of memory, random numbers, events, metrics, and what makes the host wait, in either mode."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from both import STATE, hpu
from habana_frameworks.torch.hpu.metrics import metric_global, metric_localcontext
from table import raises, row


@row("1.7 memory: the keys, the peak, the limit; no empty_cache; an allocation too large says so")
def _memory() -> None:
    keys = "Limit InUse MaxInUse NumAllocs NumFrees ActiveAllocs MaxAllocSize TotalSystemAllocs TotalSystemFrees"
    assert set(torch.hpu.memory_stats()) == {*keys.split(), "TotalActiveAllocs"}
    assert not hasattr(torch.hpu, "empty_cache")
    before = torch.hpu.memory_allocated()
    torch.hpu.reset_peak_memory_stats()
    block = torch.empty(1 << 20, dtype=torch.uint8, device="hpu")
    assert torch.hpu.memory_allocated() - before == 1 << 20
    del block
    assert torch.hpu.memory_allocated() == before
    assert torch.hpu.max_memory_allocated() - before == 1 << 20
    assert torch.hpu.memory_reserved() == torch.hpu.mem_get_info()[1] == 96 << 30
    with raises(RuntimeError, "FATAL ERROR :: MODULE:PT_DEVMEM Allocation failed"):
        torch.empty(97 << 30, dtype=torch.uint8, device="hpu")


@row("1.7 random: a stream of its own, seeded by torch.manual_seed too, of device 0 only")
def _random() -> None:
    torch.manual_seed(3)
    first, host = F.dropout(torch.ones(64, device="hpu")), torch.get_rng_state()
    state = torch.hpu.get_rng_state_all()
    second = torch.rand(4, device="hpu")
    assert torch.equal(torch.get_rng_state(), host)
    torch.hpu.set_rng_state_all(state)
    assert torch.equal(torch.rand(4, device="hpu").cpu(), second.cpu())
    torch.hpu.manual_seed(3)
    assert torch.equal(F.dropout(torch.ones(64, device="hpu")).cpu(), first.cpu())
    assert not torch.equal(F.dropout(torch.ones(64, device="hpu")).cpu(), first.cpu())
    own = torch.Generator(device="hpu").manual_seed(3)
    assert torch.equal(
        torch.rand(4, device="hpu", generator=own).cpu(),
        torch.rand(4, device="hpu", generator=own.manual_seed(3)).cpu(),
    )
    with raises(RuntimeError, "states len of 1"):
        torch.hpu.set_rng_state_all(state * 2)
    with raises(RuntimeError, "supports only device 0"):
        torch.hpu.get_rng_state(1)


@row("1.7 native dropout, which takes no generator, draws from the device's stream")
def _native_dropout() -> None:
    host = torch.get_rng_state()
    torch.hpu.manual_seed(1)
    first = torch.native_dropout(torch.ones(64, device="hpu"), 0.5, True)[1].cpu()
    torch.hpu.manual_seed(1)
    assert torch.equal(torch.native_dropout(torch.ones(64, device="hpu"), 0.5, True)[1].cpu(), first)
    assert torch.equal(torch.get_rng_state(), host)


@row("1.7 fork_rng forks the device's stream")
def _fork() -> None:
    state = torch.hpu.get_rng_state()
    with torch.random.fork_rng(devices=[0]):
        torch.rand(2, device="hpu")
    assert torch.equal(torch.hpu.get_rng_state(), state)


@row("1.7 events keep time, in ms, only if they were made to")
def _events() -> None:
    start, end = torch.hpu.Event(enable_timing=True), torch.hpu.Event(enable_timing=True)
    start.record()
    end.record()
    assert 0 <= start.elapsed_time(end) < 1000
    with raises(RuntimeError):
        torch.hpu.Event().elapsed_time(end)


@row("1.7 metrics: global and local, and an op without a kernel is a CPU fallback")
def _metrics() -> None:
    with metric_localcontext("cpu_fallback") as local:
        _ = hpu(3, 3) @ hpu(3, 3)
        assert dict(local.stats())["TotalNumber"] == 0
        torch.linalg.svdvals(hpu(3, 3))
        assert dict(local.stats())["TotalNumber"] > 0
        assert "_linalg_svd" in dict(local.stats())["FallbackOps"]
    known = metric_global("graph_compilation")
    assert known is not None
    assert set(dict(known.stats())) == {"TotalNumber", "TotalTime", "AvgTime"}
    assert metric_global("no_such_metric") is None


@row("1.7 .numpy() of a device tensor is an error; item, cpu, nonzero and a boolean index make the host wait")
def _syncs() -> None:
    x = hpu(4)
    with raises(TypeError, "hpu:0"):
        x.numpy()
    assert STATE.syncs == []
    x.sum().item()
    x.cpu()
    x.nonzero()
    x[x > 0]
    _ = bool(x.sum() > 0)
    kinds = [sync["op"].removeprefix("aten::") for sync in STATE.syncs]
    assert kinds == ["item", "copy_to_cpu", "nonzero", "index", "item"]


@row("1.7 a 0-dim host tensor is a scalar: it may mix, and counts as no upload")
def _scalar() -> None:
    assert torch.equal((torch.ones(2, device="hpu") * torch.tensor(3.0)).cpu(), torch.tensor([3.0, 3.0]))
    x = torch.ones(2, device="hpu").masked_fill(torch.ones(2, dtype=torch.bool, device="hpu"), torch.tensor(2.0))
    assert torch.equal(x.cpu(), torch.tensor([2.0, 2.0]))
    assert STATE.implicit == []
