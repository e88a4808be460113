"""The format that torch writes. Nothing here imports it before it is used."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bertkit.plugin import EXPORTED_HEADS, ExportedModel, PaddedModel, Precision, Setting, UserError

MODEL = "model.pt"


class TorchScriptFormat:
    """A traced module, for programs that load TorchScript; torch itself calls it deprecated."""

    name = "torchscript"
    title = "TorchScript (legacy)"
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16")
    heads = EXPORTED_HEADS
    settings: Mapping[str, Setting] = {}

    def check(self) -> None:
        if not self.versions():
            raise UserError("--format torchscript needs torch", "pip install torch")

    def versions(self) -> Mapping[str, str]:
        try:
            return {"torch": metadata.version("torch")}
        except metadata.PackageNotFoundError:
            return {}

    def write(self, model: ExportedModel, folder: Path) -> None:
        from bertkit_torch.traced import write

        write(model, folder / MODEL)

    def load(self, folder: Path) -> PaddedModel:
        from bertkit_torch.traced import load

        return load(folder / MODEL)
