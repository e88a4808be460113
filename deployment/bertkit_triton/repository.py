"""The repository's files: config.pbtxt by Triton's own protobuf messages, so that no field is misspelt.

Source: https://github.com/triton-inference-server/common, protobuf/model_config.proto.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as proto

from bertkit.plugin import ExportedModel, PaddedModel, TextRules, write_text
from bertkit_onnx.formats import MODEL
from bertkit_onnx.running import load as load_onnx
from bertkit_onnx.sums import onnxruntime_is_exact, warn_of_sums
from bertkit_onnx.writing import write as write_onnx
from bertkit_triton import INPUTS, KINDS, output_names

HERE = Path(__file__).parent
TEXT_FILES = {"text_model.py": "model.py", "answering.py": "answering.py"}  # in NAME_text/1, under these names
DEVICES = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}
WARM_LENGTHS = (16, 128)  # tokens, and the model's longest


def write(model: ExportedModel, folder: Path, name: str) -> None:
    """`folder` is the repository."""
    names = str(model.settings["names"])
    outputs = output_names(model, names)
    version = folder / name / "1"
    version.mkdir(parents=True)
    fused = bool(model.settings["fused"])
    warn_of_sums(model, "ONNX Runtime", onnxruntime_is_exact)
    write_onnx(model, version / MODEL, fused, INPUTS[names], KINDS[names], outputs)
    _write_config(folder / name, ids_config(model, name))
    if model.settings["text"] and model.texts:
        _write_text_model(model, model.texts, folder / f"{name}_text", name)


def load(path: Path) -> PaddedModel:
    made = onnx.load(path, load_external_data=False).graph
    names = "nvidia" if made.input[0].name in INPUTS["nvidia"] else "bertkit"
    theirs = [output.name for output in made.output]
    ours = ("start_logits", "end_logits") if len(theirs) == 2 else ("logits",)
    return load_onnx(path, INPUTS[names], dict(zip(ours, theirs, strict=True)))


def ids_config(model: ExportedModel, name: str) -> Any:
    """Of the model that takes ids: a `ModelConfig` of Triton's."""
    settings, names = model.settings, str(model.settings["names"])
    kind = {"int64": proto.TYPE_INT64, "int32": proto.TYPE_INT32}[KINDS[names]]
    axes = [] if model.head.kind == "span" else [model.head.logits_each]
    axes = [-1, *axes] if model.head.kind in ("span", "tokens") else axes
    made = proto.ModelConfig(
        name=name,
        backend="onnxruntime",
        max_batch_size=int(settings["max_batch"]),
        input=[proto.ModelInput(name=each, data_type=kind, dims=[-1]) for each in sorted(INPUTS[names])],
        output=[
            proto.ModelOutput(name=each, data_type=proto.TYPE_FP32, dims=axes)
            for each in output_names(model, names).values()
        ],
        dynamic_batching=proto.ModelDynamicBatching(max_queue_delay_microseconds=int(settings["max_delay"])),
        instance_group=[_group(str(settings["device"]), int(settings["instances"]))],
        model_warmup=[_warm_up(INPUTS[names], kind, length) for length in _lengths(model)],
    )
    if settings["threads"]:
        made.parameters["intra_op_thread_count"].string_value = str(int(settings["threads"]))
    return made


def text_config(model: ExportedModel, name: str) -> Any:
    """Of the model that takes texts and asks the other: a `ModelConfig` of Triton's."""
    span = model.head.kind == "span"
    texts = ("question", "context") if span else ("text", "text_pair")
    outputs: list[tuple[str, int, int]] = [("label", proto.TYPE_STRING, 1), ("score", proto.TYPE_FP32, 1)]
    if span:
        ends = [(end, proto.TYPE_INT32, 1) for end in ("start", "end")]
        outputs = [("answer", proto.TYPE_STRING, 1), ("score", proto.TYPE_FP32, 1), *ends]
    elif model.head.kind == "multilabel":
        outputs = [("labels", proto.TYPE_STRING, 1), ("scores", proto.TYPE_FP32, model.head.outputs)]
    elif model.head.kind == "regression":
        outputs = [("values", proto.TYPE_FP32, model.head.outputs)]
    return proto.ModelConfig(
        name=name,
        backend="python",
        max_batch_size=int(model.settings["max_batch"]),
        input=[
            proto.ModelInput(name=each, data_type=proto.TYPE_STRING, dims=[1], optional=each == "text_pair")
            for each in texts
        ],
        output=[proto.ModelOutput(name=each, data_type=kind, dims=[size]) for each, kind, size in outputs],
        dynamic_batching=proto.ModelDynamicBatching(max_queue_delay_microseconds=int(model.settings["max_delay"])),
        instance_group=[_group("cpu", int(model.settings["instances"]))],
    )


def _write_text_model(model: ExportedModel, texts: TextRules, folder: Path, ids_name: str) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    for source, name in TEXT_FILES.items():
        shutil.copyfile(HERE / source, version / name)
    names = str(model.settings["names"])
    write_text(version / "tokenizer.json", texts.tokenizer)
    rules = {
        "model": ids_name,
        "max_batch": int(model.settings["max_batch"]),
        "inputs": INPUTS[names],
        "input_type": KINDS[names],
        "outputs": list(output_names(model, names).values()),
        "head": model.head.kind,
        "labels": model.labels or [f"LABEL_{number}" for number in range(model.head.outputs)],
        "seq_length": texts.seq_length,
        "doc_stride": texts.doc_stride,
        "query_length": texts.query_length,
        "n_best": texts.n_best,
        "longest": texts.longest,
        "null_threshold": texts.null_threshold,
        "temperature": texts.temperature,
        "thresholds": texts.thresholds or [0.5] * model.head.outputs,
    }
    write_text(version / "rules.json", json.dumps(rules, indent=2) + "\n")
    _write_config(folder, text_config(model, folder.name))


def _write_config(folder: Path, made: Any) -> None:
    write_text(folder / "config.pbtxt", text_format.MessageToString(made))


def _group(device: str, count: int) -> Any:
    return proto.ModelInstanceGroup(kind=proto.ModelInstanceGroup.Kind.Value(DEVICES[device]), count=count)


def _lengths(model: ExportedModel) -> list[int]:
    """Of the sequences that Triton computes before it says that it is ready."""
    longest = model.texts.seq_length if model.texts else model.config.max_position_embeddings
    return sorted({min(length, longest) for length in (*WARM_LENGTHS, longest)})


def _warm_up(names: Sequence[str], kind: int, length: int) -> Any:
    """Zeros: ids drawn at random by Triton would not be in the vocabulary."""
    made = proto.ModelWarmup(name=f"{length} tokens", batch_size=1)
    for name in names:
        made.inputs[name].data_type = kind
        made.inputs[name].dims.append(length)
        made.inputs[name].zero_data = True
    return made
