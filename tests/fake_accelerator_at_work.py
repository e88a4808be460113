"""The whole update of the CUDA device on FakeTensors: every operator's shapes, dtypes and devices, no number.

In a process of its own: it gives torch's spare device key a name, which stays for the process's life. FakeTensors of
device "cuda" themselves die in C++ guards of a build without CUDA.

    python fake_accelerator_at_work.py all | covering | HEAD …

`covering`: all kernels, precisions and optimizers, dealt to the heads; `all`: each with each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from bertkit.conformance.fixtures import HEADS, RATE, example_batch, job, part
from bertkit.distributed.world import World
from bertkit.engine.interface import (
    BatchLimits,
    Job,
    Limits,
    LossScaling,
    OptimizerSpec,
    Precision,
    Update,
    label_counts,
)
from bertkit.errors import UserError
from bertkit.model.config import HeadKind
from bertkit_cuda import CudaBackend
from bertkit_cuda import device as cuda_device
from bertkit_cuda.kernels import Wanted, candidates
from bertkit_torch import gpu
from bertkit_torch.dropout import DeviceDropout
from bertkit_torch.engine import TorchEngine
from bertkit_torch.staged import views
from bertkit_torch.static import StaticPasses
from recording_cuda import Recorder

NAME = "fakecuda"
KERNELS = ("flash", "efficient", "sdpa", "plain")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
OPTIMIZERS = {
    "adamw": OptimizerSpec(),
    "adamw uncorrected": OptimizerSpec(bias_correction=False),
    "lamb": OptimizerSpec(algorithm="lamb"),
}
LIMITS = Limits((BatchLimits(12, 40, 96),), (BatchLimits(12, 40, 96),))


class FakeCuda(cuda_device.CudaDevice):
    """The real one, whose tensors are of the named key."""

    type = NAME

    def compile(self, layer: Any) -> Any:
        return layer  # how it is lowered is test_compiled_layer.py's

    def pin(self, host: torch.Tensor) -> torch.Tensor:
        return host


def register() -> None:
    """The key's name, its module, and a `torch.cuda` that asks nothing of a card."""
    recorder = Recorder(count=1)
    module = ModuleType(f"torch.{NAME}")
    for name, value in vars(recorder.module()).items():
        setattr(module, name, value)
        setattr(torch.cuda, name, value)
    module._is_in_bad_fork = lambda: False  # type: ignore[attr-defined]
    module.manual_seed_all = lambda seed: None  # type: ignore[attr-defined]
    _setup_privateuseone_for_python_backend(NAME, module)
    torch.nn.Module.to = to_device  # type: ignore[method-assign]  # its own cannot swap a tensor for a fake one
    torch.tensor = functools.partial(scalar, torch.tensor)  # type: ignore[assignment]  # it asks for real memory
    gpu.WARM = 1  # nothing settles here
    cuda_device.CudaDevice.has_compiler = lambda self, where: False  # type: ignore[method-assign]


def scalar(real: Any, value: Any, device: Any = None, **options: Any) -> torch.Tensor:
    if device is None or torch.device(device).type != NAME:
        return real(value, device=device, **options)
    assert isinstance(value, int | float)
    return torch.full((), value, device=device, **options)


def to_device(self: torch.nn.Module, where: torch.device) -> torch.nn.Module:
    for module in self.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(torch.zeros(parameter.shape, device=where))
    return self


def update(kind: HeadKind, kernel: str, precision: Precision, spec: OptimizerSpec) -> None:
    """An update of three micro-batches, one of them empty, after the warm-up of all sizes; and one answer."""
    settings = {name: setting.default for name, setting in CudaBackend.settings.items()}
    settings |= {"attention": kernel, "shapes": 2}
    wanted: Job = dataclasses.replace(
        job(kind, precision=precision, dropout=True), settings=settings, optimizer=spec, limits=LIMITS,
        loss_scaling=LossScaling(grow_after=2),
    )  # fmt: skip
    batch = example_batch(kind)
    members = np.arange(len(batch["example_ids"]))
    with FakeTensorMode(allow_non_fake_inputs=True):
        engine = TorchEngine(FakeCuda(), wanted, World())
        assert isinstance(engine.passes, StaticPasses)
        if HEADS[kind].trained:
            micro = tuple(part(batch, some) for some in (members[:1], members[:0], members))
            made = engine.stage(Update(1, micro, label_counts(kind, [batch])))
            scalars = engine.train_step(made, RATE)
            for name in ("loss", "grad_norm"):
                check(scalars[name], torch.float32, ())
            assert engine.passes.plan.late == 0
            for name, parameter in engine.trained.items():
                check(parameter.grad, torch.float32, tuple(parameter.shape))
                check(parameter.data, torch.float32, tuple(wanted.weights[name].shape))
        staged = engine.passes._stage(batch, None)
        hosts = staged.host.whole, staged.host.real
        whole, real = (torch.zeros(host.shape, dtype=host.dtype, device=engine.place) for host in hosts)
        with torch.no_grad():
            weights = engine.device.compute_weights(engine.parameters, engine.dtype, training=False)
            given = views(staged.made, whole, real)
            found = engine.passes._outputs(weights, staged.made.sizes, given, DeviceDropout(active=False))
        for tensor in found.values():
            assert isinstance(tensor, FakeTensor)
            assert tensor.device.type == NAME


def check(found: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    assert isinstance(found, FakeTensor)
    assert (found.dtype, tuple(found.shape), found.device.type) == (dtype, shape, NAME)


def cases(kind: HeadKind) -> list[tuple[str, Precision, str]]:
    """(kernel, precision, optimizer) of a head: all that a GPU of capability 9.0 takes; LAMB where text is learnt."""
    found: list[tuple[str, Precision, str]] = []
    for kernel, precision, spec in itertools.product(KERNELS, PRECISIONS, OPTIMIZERS):
        if spec == "lamb" and kind != "pretraining":
            continue
        with contextlib.suppress(UserError):
            candidates(Wanted(kernel, "auto", precision != "fp32", (9, 0), 16))
            found.append((kernel, precision, spec))
    return found


def chosen(words: list[str]) -> Iterator[tuple[HeadKind, list[tuple[str, Precision, str]]]]:
    heads = list(HEADS)
    if words == ["covering"]:
        rest = [kind for kind in heads if kind != "pretraining"]
        yield "pretraining", cases("pretraining")[2::3]  # LAMB; the others' are shared among the other heads
        for number, kind in enumerate(rest):
            yield kind, cases(kind)[number :: len(rest)]
        return
    for kind in heads if words == ["all"] else [kind for kind in heads if kind in words]:
        yield kind, cases(kind)


if __name__ == "__main__":
    register()
    for kind, own in chosen(sys.argv[1:]):
        for kernel, precision, spec in own:
            try:
                update(kind, kernel, precision, OPTIMIZERS[spec])
            except Exception:
                sys.stdout.write(f"{kind}, {kernel}, {precision}, {spec} failed\n")
                raise
        sys.stdout.write(f"{kind}: {len(own)} cases\n")
