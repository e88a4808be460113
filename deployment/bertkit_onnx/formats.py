"""The formats that are ONNX or made of it. Nothing here imports onnx or a runtime before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bertkit.plugin import EXPORTED_HEADS, ExportedModel, PaddedModel, Precision, Setting, UserError

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
MODEL = "model.onnx"
XML = "model.xml"
WEIGHT_BITS = Setting(8, "int8: bits of a weight, 8 or 7; CPUs without VNNI may cut off sums of 8")


class OnnxFormat:
    """One file of standard operators, or of ONNX Runtime's fused ones."""

    name = "onnx"
    title = "ONNX"
    precisions = PRECISIONS
    heads = EXPORTED_HEADS
    settings: Mapping[str, Setting] = {
        "fused": Setting(False, "ONNX Runtime's fused operators, which no other runtime loads"),
        "weight_bits": WEIGHT_BITS,
    }

    def check(self) -> None:
        require("onnx", ("onnx", "onnxruntime"), "onnx")

    def versions(self) -> Mapping[str, str]:
        return installed("onnx", "onnxruntime")

    def write(self, model: ExportedModel, folder: Path) -> None:
        from bertkit_onnx.sums import onnxruntime_is_exact, warn_of_sums
        from bertkit_onnx.writing import write

        warn_of_sums(model, "ONNX Runtime", onnxruntime_is_exact)
        write(model, folder / MODEL, fused=bool(model.settings.get("fused")))

    def load(self, folder: Path) -> PaddedModel:
        from bertkit_onnx.running import load

        return load(folder / MODEL)


class OpenVinoFormat:
    """What OpenVINO's own reader makes of the ONNX file."""

    name = "openvino"
    title = "OpenVINO"
    precisions = PRECISIONS
    heads = EXPORTED_HEADS
    settings: Mapping[str, Setting] = {"weight_bits": WEIGHT_BITS}

    def check(self) -> None:
        require("openvino", ("onnx", "openvino"), "openvino")

    def versions(self) -> Mapping[str, str]:
        return installed("onnx", "openvino")

    def write(self, model: ExportedModel, folder: Path) -> None:
        from bertkit_onnx.openvino import write

        write(model, folder / XML)

    def load(self, folder: Path) -> PaddedModel:
        from bertkit_onnx.openvino import load

        return load(folder / XML)


def require(form: str, packages: tuple[str, ...], extra: str) -> None:
    """Raises UserError where one of the distributions is not installed."""
    missing = [name for name in packages if name not in installed(*packages)]
    if missing:
        raise UserError(f"--format {form} needs {' and '.join(missing)}", f"pip install 'bertkit[{extra}]'")


def installed(*packages: str) -> dict[str, str]:
    """Distribution -> version, of those that are installed; the builds of ONNX Runtime for accelerators count as it."""
    found: dict[str, str] = {}
    for name in packages:
        for other in (name, "onnxruntime-gpu", "onnxruntime-openvino") if name == "onnxruntime" else (name,):
            try:
                found.setdefault(name, metadata.version(other))
            except metadata.PackageNotFoundError:
                continue
    return found
