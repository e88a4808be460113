"""A trained model as a model repository of NVIDIA's Triton Inference Server.

Nothing here imports a framework, onnx or Triton's client before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import EXPORTED_HEADS, ExportedModel, HeadKind, PaddedModel, Precision, Setting, UserError
from bertkit_onnx.formats import MODEL, PRECISIONS, WEIGHT_BITS, installed, require

PACKAGES = ("grpcio", "onnx", "onnxruntime", "tritonclient")
TEXT_HEADS: tuple[HeadKind, ...] = ("classification", "multilabel", "regression", "span")
# Ids, mask and segments, and the outputs in their order, by who calls them so. NVIDIA: its BERT examples for PyTorch.
INPUTS = {
    "bertkit": ("input_ids", "attention_mask", "token_type_ids"),
    "nvidia": ("input__0", "input__2", "input__1"),
}
KINDS = {"bertkit": "int64", "nvidia": "int32"}  # of the inputs


class TritonFormat:
    """`NAME/config.pbtxt` with `NAME/1/model.onnx`, and NAME_text, which takes texts."""

    name = "triton"
    title = "Triton Inference Server"
    precisions: tuple[Precision, ...] = PRECISIONS
    heads = EXPORTED_HEADS
    settings: Mapping[str, Setting] = {
        "name": Setting("", "the model's name in the repository; empty: its task's"),
        "text": Setting(False, "add a model NAME_text that takes texts and gives answers"),
        "names": Setting("bertkit", "names and types of the tensors; nvidia: input__0 …, INT32", ("bertkit", "nvidia")),
        "max_batch": Setting(64, "sequences of a batch, at most"),
        "max_delay": Setting(1000, "how long a request waits for others to form a batch, in microseconds"),
        "instances": Setting(1, "copies of the model, on each device"),
        "device": Setting("auto", "where Triton computes", ("auto", "cpu", "gpu")),
        "threads": Setting(0, "threads of a copy on CPUs; 0: ONNX Runtime's own choice"),
        "fused": Setting(False, "ONNX Runtime's fused operators"),
        "weight_bits": WEIGHT_BITS,
    }

    def check(self) -> None:
        require("triton", PACKAGES, "triton-export")

    def versions(self) -> Mapping[str, str]:
        return installed(*PACKAGES)

    def write(self, model: ExportedModel, folder: Path) -> None:
        name = model_name(str(model.settings.get("name", "")), model.task)
        for key, least in (("max_batch", 1), ("max_delay", 0), ("instances", 1), ("threads", 0)):
            if int(model.settings.get(key, least)) < least:
                raise UserError(f"--option {key}={model.settings[key]} is below {least}", "choose a larger number")
        if model.settings.get("text"):
            check_texts(model)
        from bertkit_triton.repository import write

        write(model, folder, name)

    def load(self, folder: Path) -> PaddedModel:
        from bertkit_triton.repository import load

        return load(next(folder.glob(f"*/1/{MODEL}")))


def model_name(asked: str, task: str) -> str:
    """Raises UserError for one that is asked for and cannot be a folder's name in a repository."""
    if asked and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", asked):
        raise UserError(f"--option name={asked} is no name of a model", "use letters, digits, _, . and -")
    return asked or re.sub(r"[^A-Za-z0-9_-]+", "_", task).strip("_") or "bert"


def check_texts(model: ExportedModel) -> None:
    """Raises UserError where no model of texts can be made of it."""
    if model.texts is None:
        raise UserError("--option text=true: the model has no vocabulary of words", "drop it; clients send ids")
    if model.head.kind not in TEXT_HEADS:
        raise UserError(
            f"--option text=true has no {model.head.kind} head", f"it has {', '.join(TEXT_HEADS)}; clients send ids"
        )


def output_names(model: ExportedModel, names: str) -> dict[str, str]:
    """Ours -> as `names` has them."""
    ours = ("start_logits", "end_logits") if model.head.kind == "span" else ("logits",)
    return {name: name if names == "bertkit" else f"output__{number}" for number, name in enumerate(ours)}
