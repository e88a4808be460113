"""What GPUs share whatever their vendor: pinning in the thread that works ahead, compiling, a vendor of 20 lines."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertkit.conformance.fixtures import job
from bertkit.distributed.world import World
from bertkit.engine.interface import Backend
from bertkit.errors import UserError
from bertkit_iluvatar import IluvatarBackend
from bertkit_torch import gpu_backend
from bertkit_torch.build import Build
from bertkit_torch.gpu_backend import GpuBackend, Software, can

torch = pytest.importorskip("torch")
from bertkit_iluvatar.device import IluvatarDevice  # noqa: E402
from bertkit_torch.accelerator import Accelerator  # noqa: E402
from bertkit_torch.gpu import Gpu  # noqa: E402


# What docs/adding-a-backend.md calls the whole of such a backend.
class AlikeBackend(GpuBackend):
    name = "alike"
    capabilities = can(("ALIKE_", "NCCL_"))
    software = Software(
        name="Alike's SDK",
        folder="opt/alike",
        tool="alike-smi",
        mark="alike",
        files=r"alike\d+",
        get="run Alike's container",
        torch="install the torch wheel of the SDK",
    )
    visible = "ALIKE_VISIBLE_DEVICES"
    device = "test_gpu_alikes:AlikeDevice"


class AlikeDevice(Gpu):
    type = "cuda"
    collectives = "nccl"


class Threads:
    """A made `torch.cuda`, whose device is set for each thread, as the real one's."""

    def __init__(self, count: int = 4) -> None:
        self.own = threading.local()
        self.pinned_on: list[int] = []
        self.module = SimpleNamespace(
            is_available=lambda: count > 0, device_count=lambda: count, set_device=self.set_device,
            get_device_name=lambda where: "Alike 100",
            get_device_properties=lambda where: SimpleNamespace(name="Alike 100", total_memory=32 * 2**30),
        )  # fmt: skip

    def set_device(self, where: Any) -> None:
        self.own.device = where.index

    def pin(self, host: Any) -> Any:
        self.pinned_on.append(getattr(self.own, "device", 0))
        return host


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Threads:
    made = Threads()
    monkeypatch.setattr(Accelerator, "module", made.module)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda host: made.pin(host))
    return made


def opened(device: Gpu, backend: Any, rank: int = 2, **changed: Any) -> Gpu:
    settings = {name: setting.default for name, setting in backend.settings.items()} | changed
    device.open(dataclasses.replace(job("classification", "auto"), settings=settings), World(rank, 4, rank, 4))
    return device


@pytest.mark.parametrize(("device", "backend"), [(IluvatarDevice, IluvatarBackend), (AlikeDevice, AlikeBackend)])
def test_memory_is_pinned_on_the_processs_own_device_in_every_thread(
    cuda: Threads, device: Callable[[], Gpu], backend: Any
) -> None:
    """A thread begins on device 0, where pinning would make a second context for this process."""
    made = opened(device(), backend)
    work = threading.Thread(target=lambda: made.pin(torch.zeros(1)))
    work.start()
    work.join()
    assert cuda.pinned_on == [2]


def test_layers_are_compiled_where_triton_is(cuda: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    from bertkit_torch import gpu

    for there in (True, False):
        found = SimpleNamespace(find_spec=lambda name, there=there: object() if there else None)
        monkeypatch.setattr(gpu, "util", found)
        made = opened(IluvatarDevice(), IluvatarBackend)
        assert made.describe()["layers"] == ("compiled by torch.compile" if there else "as they are")
        assert (made.compile(len) is len) != there  # type: ignore[comparison-overlap, arg-type]
        assert not opened(IluvatarDevice(), IluvatarBackend, compile="off").compiled
    assert made.describe()["graphs"] == "none"


def test_the_library_of_collectives_is_the_settings(cuda: Threads) -> None:
    assert opened(IluvatarDevice(), IluvatarBackend).collectives == "nccl"
    made = opened(IluvatarDevice(), IluvatarBackend, dist_backend="gloo")
    assert (made.collectives, made.facts().memory_bytes) == ("gloo", 32 * 2**30)


def test_no_device_and_too_few_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, said in ((0, "torch finds no device; check ixsmi"), (2, "local rank 2 has no device")):
        monkeypatch.setattr(Accelerator, "module", Threads(count).module)
        with pytest.raises(UserError, match=said):
            opened(IluvatarDevice(), IluvatarBackend)


def test_a_vendor_is_twenty_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = inspect.getsource(AlikeBackend) + inspect.getsource(AlikeDevice)
    assert len(lines.splitlines()) <= 20
    backend: Backend = AlikeBackend()
    assert not backend.probe().ready
    monkeypatch.setattr(gpu_backend, "torch_build", lambda: Build("2.9.0+alike.3.2", {"cuda": "11.6"}))
    for name in ("opt/alike/x", "dev/alike0", "dev/alike1", "dev/alikectl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    probe = AlikeBackend().look(tmp_path, {})
    assert (probe.ready, probe.cards, probe.detail) == (True, (-1, -1), "2 devices, torch 2.9.0+alike.3.2")
    assert not AlikeBackend().look(tmp_path, {"ALIKE_VISIBLE_DEVICES": "7"}).ready
