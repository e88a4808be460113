"""Rows of the device, autocast and tensors, in either mode."""

from __future__ import annotations

import os
import pickle
import subprocess

import habana_frameworks.torch.core as htcore
import torch
import torch.nn.functional as F
from habana_frameworks import _sim
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
