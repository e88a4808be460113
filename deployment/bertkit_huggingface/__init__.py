"""The folder that Hugging Face's transformers loads: `model.safetensors` and `config.json`; bertkit adds the tokenizer.

Nothing here imports torch or transformers before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np

from bertkit.plugin import (
    EXPORTED_HEADS,
    ExportedModel,
    PaddedModel,
    Precision,
    Setting,
    UserError,
    config_mapping,
    write_text,
)

WEIGHTS = "model.safetensors"
DTYPES: Mapping[Precision, tuple[type, str]] = {"fp32": (np.float32, "float32"), "fp16": (np.float16, "float16")}


class HuggingFaceFormat:
    name = "huggingface"
    title = "Hugging Face's transformers"
    precisions: tuple[Precision, ...] = tuple(DTYPES)
    heads = EXPORTED_HEADS
    settings: Mapping[str, Setting] = {}

    def check(self) -> None:
        """Nothing is needed: what is written is read back where there is no transformers."""

    def versions(self) -> Mapping[str, str]:
        found = {"safetensors": metadata.version("safetensors")}
        return found | ({"transformers": _transformers()} if _transformers() else {})

    def write(self, model: ExportedModel, folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        dtype, name = DTYPES[model.precision]
        weights: dict[str, np.ndarray] = {
            key: np.ascontiguousarray(values, dtype) for key, values in model.weights.items()
        }
        save_file(weights, folder / WEIGHTS, {"format": "pt"})
        config = config_mapping(model.config, model.head, model.labels, model.pad) | {"torch_dtype": name}
        write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
        found = load_file(folder / WEIGHTS)
        wrong = [key for key in weights.keys() | found.keys() if not _same(weights.get(key), found.get(key))]
        if wrong:
            raise UserError(
                f"{folder / WEIGHTS}: {wrong[0]} is not what was written", "check the disk, and export again"
            )

    def load(self, folder: Path) -> PaddedModel | None:
        if not _transformers():
            return None
        from bertkit_huggingface.running import load

        return load(folder)


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return one is not None and other is not None and one.dtype == other.dtype and np.array_equal(one, other, True)


def _transformers() -> str:
    """The installed version; "" where there is none."""
    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        return ""
