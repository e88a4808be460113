"""The CPU backend (Intel and other x86, Arm): the card. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, util

from bertkit.plugin import Capabilities, Engine, Job, Precision, Probe, Setting, UserError, World
from bertkit_cpu.topology import native_bf16, read_cpu, threads
from bertkit_torch.capabilities import EXTRAS, HEADS


class CpuBackend:
    name = "cpu"
    aliases: tuple[str, ...] = ("intel",)
    preference = 10
    capabilities = Capabilities(
        precisions=("fp32", "bf16"),
        heads=HEADS,
        layouts=("padded", "unpadded", "packed"),
        extras=EXTRAS,
        answers_in=("int8",),
        gradients=("fp32", "bf16"),
        overlap=True,
        sharded_optimizer=True,
    )
    settings: Mapping[str, Setting] = {
        "threads": Setting(0, "compute threads of each process; 0: its share of the physical cores"),
        "bf16": Setting("native", "bf16 where the CPU computes it natively, or on any CPU", ("native", "force")),
        "scales": Setting(
            "static",
            "int8: one scale for each layer's inputs, found on training data; or one for each token as it comes",
            ("static", "dynamic"),
        ),
        "extension": Setting(
            "auto",
            "Intel Extension for PyTorch: use it where it is installed and fits torch",
            ("auto", "off"),
        ),
    }

    def probe(self) -> Probe:
        cpu = read_cpu()
        if util.find_spec("torch") is None:
            return Probe(False, "torch is not installed; pip install torch")
        bf16, reason = native_bf16(cpu)
        count, _ = threads(cpu)
        precisions: tuple[Precision, ...] = ("fp32", "bf16") if bf16 else ("fp32",)
        bf16_note = f"bf16 by {reason}" if bf16 else "no native bf16"
        return Probe(
            True,
            f"{cpu.model}, {count} core{'s' if count > 1 else ''}, {bf16_note}, torch {metadata.version('torch')}",
            precisions,
        )

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        cpu = read_cpu()
        bf16, reason = native_bf16(cpu)
        if job.precision == "bf16" and not bf16 and job.settings.get("bf16") != "force":
            raise UserError(reason, "use -d fp32, or --set device.bf16=force to have it all the same")
        from bertkit_cpu.device import CpuDevice
        from bertkit_torch.engine import TorchEngine

        return TorchEngine(CpuDevice(), job, world)
