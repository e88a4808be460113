"""The CUDA backend (NVIDIA from Volta on; AMD through torch's ROCm build): the card. Nothing here imports torch.

A resume gives the same numbers with `device.deterministic=true` alone: flash attention's gradient of the queries, and
the memory-efficient kernel's split of the keys, are else summed in no fixed order.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import Capabilities, Engine, Job, Precision, Probe, Setting, UserError, World
from bertkit_cuda.cards import find_cards, visible
from bertkit_cuda.support import architecture_missing, driver_too_old
from bertkit_torch.build import torch_build
from bertkit_torch.capabilities import EXTRAS, HEADS

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # cuBLAS reads it once; with these values its sums come in a fixed order
FIXED = (":4096:8", ":16:8")


class CudaBackend:
    name = "cuda"
    aliases: tuple[str, ...] = ("nvidia",)
    preference = 30
    capabilities = Capabilities(
        precisions=("fp32", "tf32", "bf16", "fp16"),
        heads=HEADS,
        layouts=("padded", "unpadded", "packed"),
        extras=EXTRAS,
        environment=("CUDA_", "CUBLAS_", "NCCL_", "TORCH_NCCL_", "NVIDIA_", "HIP_", "ROCR_", "HSA_", "RCCL_"),
        gradients=("fp32", "bf16"),
        sharded_optimizer=True,
        bitwise_resume=False,  # unless device.deterministic
    )
    settings: Mapping[str, Setting] = {
        "attention": Setting(
            "auto",
            "the kernel; auto: the fastest for this job's sizes, measured once by the first rank; a resume keeps it",
            ("auto", "flash", "efficient", "sdpa", "plain"),
        ),
        "compile": Setting("auto", "the encoder layer through torch.compile where it has a compiler", ("auto", "off")),
        "graphs": Setting("auto", "forward and backward of each batch size as one CUDA graph", ("auto", "off")),
        "shapes": Setting(8, "sizes that each phase's batches are rounded up to; more: less waste, a longer warm-up"),
        "recompute": Setting(
            False, "keep only each layer's input and compute its inside again in backward; turns graphs off"
        ),
        "deterministic": Setting(False, "sums in a fixed order, so that a resume is exact; slower attention gradients"),
    }

    def probe(self) -> Probe:
        build = torch_build()
        if build is None:
            return Probe(False, "torch is not installed; pip install torch brings a CUDA build")
        found = find_cards()
        cards = visible(list(found.cards), os.environ)
        if not cards:
            shown = os.environ.get("CUDA_VISIBLE_DEVICES")
            hidden = f" (CUDA_VISIBLE_DEVICES={shown})" if shown is not None else ""
            return Probe(
                False,
                f"no GPU is visible{hidden}; install NVIDIA's driver, or start the container with --gpus all",
            )
        toolkits = [f"{name.upper()} {build.toolkits[name]}" for name in ("cuda", "hip") if name in build.toolkits]
        if not toolkits:
            return Probe(
                False,
                f"{cards[0].name} is here, but torch {build.version} is built without CUDA; "
                "install a CUDA build of torch as https://pytorch.org/get-started shows",
            )
        if toolkit := build.toolkits.get("cuda"):
            missing = architecture_missing(cards, toolkit, official=build.suffix.startswith("cu"))
            if why := driver_too_old(toolkit, found.driver, found.cuda) or missing:
                return Probe(False, why)
        precisions: tuple[Precision, ...] = ("fp32", "fp16")
        if all(card.has_bf16 for card in cards):
            precisions = ("fp32", "tf32", "bf16", "fp16")
        many = f"{len(cards)} x " if len(cards) > 1 else ""
        version = f", driver {found.driver}" if found.driver else ""
        detail = f"{many}{cards[0].name}{version}, torch {build.version} with {toolkits[0]}"
        return Probe(True, detail, precisions, tuple(card.node for card in cards))

    def container_options(self, engine: str) -> tuple[str, ...]:
        return shown(engine, Path("/"))

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        if not settings.get("deterministic"):
            return {}
        said = os.environ.get(WORKSPACE, FIXED[0])
        if said not in FIXED:
            raise UserError(
                f"device.deterministic=true needs {WORKSPACE} to be {' or '.join(FIXED)}, not {said}", "unset it"
            )
        return {WORKSPACE: said}

    def engine(self, job: Job, world: World) -> Engine:
        from bertkit_cuda.device import CudaDevice
        from bertkit_torch.engine import TorchEngine

        if job.precision == "int8":
            raise UserError("backend cuda has no int8", "use -d bf16 or fp16")
        return TorchEngine(CudaDevice(), job, world)


def shown(engine: str, root: Path) -> tuple[str, ...]:
    """Options by which a container has the GPUs: NVIDIA's container toolkit and its CDI names; ROCm's device files.

    The limits are those that NVIDIA's own images ask for.
    """
    amd = (root / "dev/kfd").exists() and not (root / "dev/nvidiactl").exists()
    if engine == "apptainer":
        return ("--rocm",) if amd else ("--nv",)
    if amd:
        return ("--device=/dev/kfd", "--device=/dev/dri", "--group-add=video")
    gpus = "--device=nvidia.com/gpu=all" if engine == "podman" else "--gpus=all"
    return (gpus, "--ulimit=memlock=-1", "--ulimit=stack=67108864")
