"""The formats that TensorFlow writes. Nothing here imports it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from bertkit.plugin import ExportedModel, HeadKind, PaddedModel, Precision, UserError


class SavedModelFormat:
    """A SavedModel: TensorFlow's graph with its variables, for TensorFlow Serving and any program with TensorFlow."""

    name = "savedmodel"
    title = "TensorFlow's SavedModel"
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    heads: tuple[HeadKind, ...] = ("classification", "multilabel", "regression", "choice", "tokens", "span")

    def __init__(self, version: Callable[[], str], variables: Mapping[str, str]) -> None:
        """`version`: of the installed TensorFlow, "" where there is none; `variables`: set before it is imported."""
        self.version, self.variables = version, variables

    def check(self) -> None:
        if not self.version():
            raise UserError("--format savedmodel needs TensorFlow", "pip install 'bertkit[tensorflow]'")

    def write(self, model: ExportedModel, folder: Path) -> None:
        from bertkit_tensorflow.quiet import without_notes

        os.environ.update(self.variables)
        with without_notes():
            from bertkit_tensorflow.saved_model import write

            write(model, folder)

    def load(self, folder: Path) -> PaddedModel:
        from bertkit_tensorflow.quiet import without_notes
        from bertkit_tensorflow.saved_model import load

        with without_notes():
            return load(folder)
