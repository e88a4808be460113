"""Rows that hold in either mode."""

from __future__ import annotations

import os
import pickle
import subprocess

import habana_frameworks.torch.core as htcore
import torch
import torch.nn.functional as F
from habana_frameworks import _sim
from habana_frameworks.torch.hpex.kernels import FusedSDPA
from habana_frameworks.torch.hpex.normalization import FusedClipNorm
from habana_frameworks.torch.hpex.optimizers import FusedAdamW, FusedLamb
from habana_frameworks.torch.hpu.metrics import metric_global, metric_localcontext
from habana_frameworks.torch.utils import experimental
from habana_frameworks.torch.utils.internal import is_lazy
from table import raises, row

STATE = _sim.STATE


def fresh() -> None:
    htcore.mark_step()
    STATE.reset()
    torch.manual_seed(0)


def hpu(*shape: int) -> torch.Tensor:
    return torch.randn(*shape).to("hpu")


@row("1.1 torch.hpu is the registered module, the device is hpu:0 and its name the generation")
def _device() -> None:
    assert torch.hpu.is_available()
    assert torch.empty(2, device="hpu").device == torch.device("hpu:0")
    assert (torch.hpu.current_device(), torch.hpu.device_count(), torch.hpu.get_device_name()) == (0, 8, "GAUDI2")
    assert torch.accelerator.current_accelerator() == torch.device("hpu")


@row("1.1 one device a process: any other index is an error")
def _one_device() -> None:
    for make in (lambda: torch.ones(2, device="hpu:1"), lambda: torch.ones(2).to("hpu:3")):
        with raises(RuntimeError, "habana active device:"):
            make()


@row("1.1 set_device moves nothing: it names the card by HLS_MODULE_ID")
def _set_device() -> None:
    torch.hpu.set_device(3)
    assert os.environ.pop("HLS_MODULE_ID") == "3"
    assert torch.empty(1, device="hpu").device.index == 0


@row("1.1 synchronize takes no argument, and is a wait of the host")
def _synchronize() -> None:
    with raises(TypeError):
        torch.hpu.synchronize("hpu")  # type: ignore[call-arg]
    torch.hpu.synchronize()
    assert [sync["op"] for sync in STATE.syncs] == ["synchronize"]
    assert "both.py" in STATE.syncs[0]["where"]


@row("1.1 the generation can be asked of the experimental utilities and of hl-smi")
def _generation() -> None:
    assert experimental._get_device_type() == experimental.synDeviceType.synDeviceGaudi2
    assert experimental._is_fp16_supported()
    query = ["hl-smi", "-Q", "index,module_id,name", "-f", "csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[:2] == ["0, 2, HL-225", "1, 6, HL-225"]
    assert len(lines) == 8
    listed = subprocess.run(["hl-smi", "-L"], capture_output=True, text=True, check=True).stdout
    assert listed.count("Module ID") == 8


@row("1.2 hpu_backend, mark_step and is_lazy agree on the mode, which was fixed at import")
def _mode() -> None:
    assert is_lazy() == (os.environ["PT_HPU_LAZY_MODE"] != "0") == _sim.LAZY
    assert htcore.mark_step() is None


@row("1.2 dynamic shapes have a switch")
def _dynamic() -> None:
    torch.hpu.enable_dynamic_shape()
    assert torch.hpu.get_dynamic_shape_status()
    torch.hpu.disable_dynamic_shape()
    assert not torch.hpu.get_dynamic_shape_status()


@row("1.3 autocast: these ops run in bf16, softmax, mean and mul among them")
def _lower() -> None:
    x, w = hpu(4, 4), hpu(4, 4)
    with torch.autocast("hpu", dtype=torch.bfloat16):
        results = [F.linear(x, w), x @ w, F.softmax(x, -1), F.log_softmax(x, -1), x.mean(), x * w, F.dropout(x, 0.5)]
        results.append(F.scaled_dot_product_attention(x[None], x[None], x[None]))
    assert {result.dtype for result in results} == {torch.bfloat16}


@row("1.3 autocast: these ops run in fp32, embedding and division among them")
def _fp32() -> None:
    x, ids = hpu(4, 4).bfloat16(), torch.tensor([1, 2]).to("hpu")
    with torch.autocast("hpu", dtype=torch.bfloat16):
        results = [F.embedding(ids, x), x / x, x.exp(), x.rsqrt(), x.pow(2), F.cross_entropy(x[:2], ids)]
    assert {result.dtype for result in results} == {torch.float32}


@row("1.3 autocast: layer_norm casts its first argument only, sums take the wider dtype")
def _first_only() -> None:
    x, w = hpu(4, 4), torch.ones(4, device="hpu")
    with torch.autocast("hpu", dtype=torch.bfloat16):
        assert F.layer_norm(x, (4,), w, w).dtype == torch.bfloat16
        assert (x + x.bfloat16()).dtype == torch.float32
        assert (x.bfloat16() + x.bfloat16()).dtype == torch.bfloat16
        assert torch.cat([x, x.bfloat16()]).dtype == torch.float32


@row("1.3 autocast of another device does nothing here; the setters of torch.hpu are torch's")
def _other() -> None:
    x = hpu(4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (x @ x).dtype == torch.float32
    with torch.autocast("hpu", dtype=torch.bfloat16):
        assert torch.hpu.is_autocast_hpu_enabled()
        assert torch.hpu.get_autocast_hpu_dtype() == torch.bfloat16
    assert not torch.hpu.is_autocast_hpu_enabled()


def _adamw_by_hand(p: torch.Tensor, grads: list[torch.Tensor], lr: float, decay: float) -> torch.Tensor:
    first, second = torch.zeros_like(p), torch.zeros_like(p)
    for step, g in enumerate(grads, 1):
        p = p * (1 - decay * lr)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        size = lr * (1 - 0.999**step) ** 0.5 / (1 - 0.9**step)
        p = p - size * first / (second.sqrt() + 1e-6)  # epsilon is added to what is not corrected yet
    return p


@row("1.5 FusedAdamW: its defaults, decay before the update, its step in the group")
def _adamw() -> None:
    start, grads = torch.randn(5), [torch.randn(5) for _ in range(3)]
    p = torch.nn.Parameter(start.to("hpu"))
    defaults = FusedAdamW([p]).defaults
    assert (defaults["eps"], defaults["weight_decay"], defaults["bias_correction"]) == (1e-6, 0.0, True)
    optimizer = FusedAdamW([p], lr=0.1, weight_decay=0.01)
    for grad in grads:
        p.grad = grad.to("hpu")
        optimizer.step()
    assert torch.allclose(p.detach().cpu(), _adamw_by_hand(start, grads, 0.1, 0.01), atol=1e-5)
    assert (optimizer.param_groups[0]["step"], STATE.fused["optimizer_adamw"]) == (3, 3)


@row("1.5 FusedAdamW keeps moments in the dtype it is told")
def _moments() -> None:
    p = torch.nn.Parameter(hpu(5))
    p.grad = hpu(5)
    optimizer = FusedAdamW([p], moments_dtype=(torch.bfloat16, torch.float32))
    optimizer.step()
    assert [optimizer.state[p][name].dtype for name in ("exp_avg", "exp_avg_sq")] == [torch.bfloat16, torch.float32]


@row("1.5 fused optimizers crash on an empty parameter group")
def _empty_group() -> None:
    p = torch.nn.Parameter(hpu(5))
    p.grad = hpu(5)
    for kind in (FusedAdamW, FusedLamb):
        with raises(RuntimeError, "empty parameter group"):
            kind([{"params": [p]}, {"params": []}]).step()


def _lamb_by_hand(p: torch.Tensor, grads: list[torch.Tensor], decay: float) -> torch.Tensor:
    first, second = torch.zeros_like(p), torch.zeros_like(p)
    for step, grad in enumerate(grads, 1):
        g = grad / max(grad.norm().item(), 1.0)
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        update = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-6) + decay * p
        p = p - 0.1 * (p.norm() / update.norm() if decay else 1.0) * update
    return p


@row("1.5 FusedLamb: clips by itself, its trust ratio only where there is decay, step returns None")
def _lamb() -> None:
    for decay in (0.01, 0.0):
        start, grads = torch.randn(6), [torch.randn(6) * 10, torch.randn(6) / 10]  # the first is clipped
        p = torch.nn.Parameter(start.to("hpu"))
        optimizer = FusedLamb([p], lr=0.1, weight_decay=decay)
        for grad in grads:
            p.grad = grad.to("hpu")
            assert optimizer.step() is None
        assert torch.allclose(p.detach().cpu(), _lamb_by_hand(start, grads, decay), atol=1e-5)
    assert STATE.fused["optimizer_lamb_fused_norm"] == 4
    FusedLamb([p], max_grad_norm=None).step()
    assert STATE.fused["optimizer_lamb_fused_norm"] == 4


@row("1.5 FusedLamb.zero_grad takes no argument")
def _zero_grad() -> None:
    p = torch.nn.Parameter(hpu(2))
    p.grad = hpu(2)
    optimizer = FusedLamb([p])
    with raises(TypeError):
        optimizer.zero_grad(set_to_none=True)  # type: ignore[call-arg]
    optimizer.zero_grad()
    assert p.grad is None


@row("1.5 FusedClipNorm: in place, the norm on the device, and a CPU zero where there are no gradients")
def _clip() -> None:
    p = torch.nn.Parameter(torch.zeros(2, device="hpu"))
    clip = FusedClipNorm([p], 1.0)
    assert clip.clip_norm([p]).device.type == "cpu"
    p.grad = torch.tensor([3.0, 4.0]).to("hpu")
    norm = clip.clip_norm([p])
    assert (norm.device.type, round(norm.item(), 4)) == ("hpu", 5.0)
    assert torch.allclose(p.grad.cpu(), torch.tensor([0.6, 0.8]), atol=1e-5)
    assert STATE.fused["FusedClipNorm"] == 1


@row("1.5 FusedSDPA is positional, agrees with the reference forward and backward, and refuses fast training softmax")
def _sdpa() -> None:
    q, k, v = (hpu(2, 2, 5, 4).requires_grad_() for _ in range(3))
    mask = torch.tensor([1, 1, 1, 0, 0]).bool().to("hpu")[None, None, None]
    out = FusedSDPA.apply(q, k, v, mask, 0.0, False)
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    wanted = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    for ours, theirs in zip(grads, torch.autograd.grad(wanted.square().sum(), (q, k, v)), strict=True):
        assert torch.allclose(ours.cpu(), theirs.cpu(), atol=1e-5)
    assert torch.allclose(out.detach().cpu(), wanted.detach().cpu(), atol=1e-6)
    with raises(AssertionError, "is_causal"):
        FusedSDPA.apply(q, k, v, mask, 0.0, False, None, "fast", True)


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


@row("4.1 views share memory, in-place ops write through, and out-of-place results are new")
def _views() -> None:
    x = torch.zeros(2, 3, device="hpu")
    x.t()[1:].add_(1)
    assert torch.equal(x.cpu(), torch.tensor([[0.0, 1, 1], [0, 1, 1]]))
    assert x.view(6)[1:3].data_ptr() == x.data_ptr() + 4
    assert (x + 0).data_ptr() != x.data_ptr()
    torch.add(x, 1, out=x)
    assert x.sum().item() == 10.0
    assert torch.empty(0, device="hpu").resize_(4).shape == (4,)


@row("4.1 tied weights stay tied through .to; deepcopy and pickle keep the device")
def _ties() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.Embedding(4, 2), "b": torch.nn.Linear(2, 4)})
    model["b"].weight = model["a"].weight
    model.to("hpu")
    assert model["b"].weight is model["a"].weight
    assert model["a"].weight.device.type == "hpu"
    assert pickle.loads(pickle.dumps(hpu(2))).device.type == "hpu"  # noqa: S301


@row("4.1 pinned host memory is accepted")
def _pinned() -> None:
    x = torch.randn(3).pin_memory()
    assert x.is_pinned()
    assert torch.equal(x.to("hpu", non_blocking=True).cpu(), x)
