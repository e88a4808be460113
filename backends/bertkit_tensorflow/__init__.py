"""TensorFlow, on CPUs and NVIDIA GPUs: the card. Nothing here imports TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path

from bertkit.plugin import Capabilities, Engine, Job, Probe, Setting, UserError, World, cpu_model, cpuinfo

GPU = Path("/dev/nvidiactl")  # the driver's device
BF16 = ("amx_bf16", "avx512_bf16", "bf16")  # of /proc/cpuinfo: the CPU multiplies bf16 in hardware; the last is Arm's
PACKAGES = ("tensorflow", "tensorflow-cpu", "tf-nightly")  # distributions that bring the module


# 2: errors alone; else it tells at each start which CPU instructions it was built for
VARIABLES = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


class TensorFlowBackend:
    name = "tensorflow"
    aliases: tuple[str, ...] = ("tf",)
    preference = -1  # never by itself
    capabilities = Capabilities(
        precisions=("fp32", "bf16", "fp16"),
        heads=("classification", "multilabel", "regression", "choice", "tokens", "span", "pretraining", "encoder"),
        layouts=("padded", "packed"),
        extras=("class_weights", "label_smoothing", "focal_gamma", "layer_decay", "freeze", "teacher_logits"),
        environment=("TF_", "XLA_"),
    )
    settings: Mapping[str, Setting] = {
        "xla": Setting(
            False, "compile by XLA; without, TensorFlow's graphs, which start sooner and are faster in bf16 on CPUs"
        ),
        "threads": Setting(0, "compute threads of each process; 0: its share of the cores"),
        "shapes": Setting(8, "sizes that batches are rounded up to, for each phase"),
    }

    def probe(self) -> Probe:
        if not version():
            return Probe(False, "TensorFlow is not installed; pip install 'bertkit[tensorflow]'")
        if GPU.exists():
            return Probe(True, f"an NVIDIA GPU, if TensorFlow {version()} was built for it", ("fp32", "bf16", "fp16"))
        flags = cpuinfo().get("flags") or cpuinfo().get("Features") or [""]
        native = any(flag in BF16 for flag in flags[0].split())
        said = f"{cpu_model()}, {'bf16' if native else 'no native bf16'}, TensorFlow {version()}"
        return Probe(True, said, ("fp32", "bf16") if native else ("fp32",))

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return VARIABLES

    def engine(self, job: Job, world: World) -> Engine:
        if not version():
            raise UserError("TensorFlow is not installed", "pip install 'bertkit[tensorflow]'")
        from bertkit_tensorflow.quiet import without_notes

        with without_notes():
            from bertkit_tensorflow.engine import TensorFlowEngine

            return TensorFlowEngine(job, world)


def version() -> str:
    """Of the installed TensorFlow, without importing it; "" where there is none."""
    if util.find_spec("tensorflow") is None:
        return ""
    for name in PACKAGES:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"
