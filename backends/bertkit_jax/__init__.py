"""JAX, on CPUs, NVIDIA GPUs and TPUs: the card. Nothing here imports JAX."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path

from bertkit.plugin import Capabilities, Engine, Job, Probe, Setting, UserError, World, cpu_model

DEVICES = Path("/dev")
GPU = "nvidiactl"  # the driver's device
TPUS = ("accel0", "vfio/0")  # the first TPU chip, by an older and a newer driver


class JaxBackend:
    name = "jax"
    aliases: tuple[str, ...] = ()
    preference = -1  # never by itself
    capabilities = Capabilities(
        precisions=("fp32", "bf16", "fp16"),
        heads=("classification", "multilabel", "regression", "choice", "tokens", "span", "pretraining", "encoder"),
        layouts=("padded", "packed"),
        extras=("class_weights", "label_smoothing", "focal_gamma", "layer_decay", "freeze", "teacher_logits"),
        environment=("JAX_", "XLA_", "TPU_"),
    )
    settings: Mapping[str, Setting] = {
        "devices": Setting(
            0, "local devices that each micro-batch is shared out to; 0: all of a process that is alone on its host"
        ),
        "threads": Setting(0, "compute threads of each process on a CPU; 0: its share of the cores"),
        "shapes": Setting(8, "sizes that batches are rounded up to, for each phase"),
        "attention": Setting(
            "auto", "auto: cuDNN's kernel on a GPU in 16 bits where nothing is dropped", ("auto", "plain", "cudnn")
        ),
    }

    def probe(self) -> Probe:
        if not version():
            return Probe(False, "JAX is not installed; pip install 'bertkit[jax]'")
        if any((DEVICES / name).exists() for name in TPUS) and util.find_spec("libtpu"):
            return Probe(True, f"a TPU, JAX {version()}", ("fp32", "bf16"))
        if (DEVICES / GPU).exists():
            return Probe(True, f"an NVIDIA GPU, if JAX {version()} has its plug-in", ("fp32", "bf16", "fp16"))
        return Probe(True, f"{cpu_model()}, JAX {version()}", ("fp32",))  # XLA gains nothing by bf16 there

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        # it would take three quarters of a GPU's memory at its start
        return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

    def engine(self, job: Job, world: World) -> Engine:
        if not version():
            raise UserError("JAX is not installed", "pip install 'bertkit[jax]'")
        from bertkit_jax.engine import JaxEngine

        return JaxEngine(job, world)


def version() -> str:
    """Of the installed JAX, without importing it; "" where there is none."""
    return metadata.version("jax") if util.find_spec("jax") and util.find_spec("jaxlib") else ""
