"""The formats that TensorFlow writes. Nothing here imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import bertkit_tensorflow
from bertkit.plugin import EXPORTED_HEADS, ExportedModel, PaddedModel, Precision, Setting, UserError


class SavedModelFormat:
    """A SavedModel: TensorFlow's graph with its variables, for TensorFlow Serving and any program with TensorFlow."""

    name = "savedmodel"
    title = "TensorFlow's SavedModel"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    heads = EXPORTED_HEADS
    settings: Mapping[str, Setting] = {}

    def check(self) -> None:
        if not bertkit_tensorflow.version():
            raise UserError("--format savedmodel needs TensorFlow", "pip install 'bertkit[tensorflow]'")

    def versions(self) -> Mapping[str, str]:
        return {"tensorflow": bertkit_tensorflow.version()}

    def write(self, model: ExportedModel, folder: Path) -> None:
        from bertkit_tensorflow.quiet import without_notes

        os.environ.update(bertkit_tensorflow.VARIABLES)
        with without_notes():
            from bertkit_tensorflow.saved_model import write

            write(model, folder)

    def load(self, folder: Path) -> PaddedModel:
        from bertkit_tensorflow.quiet import without_notes
        from bertkit_tensorflow.saved_model import load

        with without_notes():
            return load(folder)
