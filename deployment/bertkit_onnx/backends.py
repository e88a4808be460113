"""The runtimes as backends that only answer: `evaluate`, `predict` and `serve` by ONNX Runtime or OpenVINO on a CPU.

The model is the ONNX graph of the exports, made in memory. Nothing here imports onnx or a runtime before it is used.
"""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.plugin import EXPORTED_HEADS, Capabilities, Engine, Job, Precision, Probe, Setting, UserError, World
from bertkit_onnx.formats import installed

SETTINGS: Mapping[str, Setting] = {
    "threads": Setting(0, "compute threads of each process; 0: its share of the physical cores"),
    "length_groups": Setting(True, "compute sequences of like length together; off: pad a batch to its longest"),
}


def answering(precisions: tuple[Precision, ...]) -> Capabilities:
    return Capabilities(
        precisions=precisions, heads=EXPORTED_HEADS, layouts=("padded",), answers_in=("int8",), trains=False
    )


class _Runtime:
    """What both have."""

    name: str
    preference = -1  # never by itself
    settings = SETTINGS
    packages: tuple[str, ...]
    extra: str  # of bertkit, that installs them

    def probe(self) -> Probe:
        return probed(self.packages, self.extra, ("fp32",))

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        check_scales(job, self.name)
        return self.opened(job, world)

    def opened(self, job: Job, world: World) -> Engine:
        raise NotImplementedError


class OnnxRuntimeBackend(_Runtime):
    """ONNX Runtime on the CPU."""

    name = "onnxruntime"
    aliases: tuple[str, ...] = ("ort",)
    capabilities = answering(("fp32",))
    packages, extra = ("onnx", "onnxruntime"), "onnx"

    def opened(self, job: Job, world: World) -> Engine:
        from bertkit_onnx.engines import onnxruntime_engine

        return onnxruntime_engine(job, world)


class OpenVinoBackend(_Runtime):
    """OpenVINO on the CPU."""

    name = "openvino"
    aliases: tuple[str, ...] = ()
    capabilities = answering(("fp32", "bf16"))
    packages, extra = ("onnx", "openvino"), "openvino"

    def opened(self, job: Job, world: World) -> Engine:
        from bertkit_onnx.engines import openvino_engine

        return openvino_engine(job, world)


def probed(packages: tuple[str, ...], extra: str, precisions: tuple[Precision, ...]) -> Probe:
    found = installed(*packages)
    if missing := [name for name in packages if name not in found]:
        return Probe(False, f"{' and '.join(missing)} not installed; pip install 'bertkit[{extra}]'")
    return Probe(True, f"answers only, on the CPU; {packages[-1]} {found[packages[-1]]}", precisions)


def check_scales(job: Job, name: str) -> None:
    """Raises UserError where the job is in int8 and no scales were found beforehand."""
    if job.precision == "int8" and not job.scales:
        raise UserError(
            f"backend {name} takes the scales of int8 from the run's folder, and they are not there",
            "find them first, for this sequence length: bertkit evaluate RUN -d int8 --backend cpu",
        )
