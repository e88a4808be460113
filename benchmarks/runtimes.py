"""ONNX Runtime and OpenVINO as competitors for inference; both are optional and run the same exported model.

`export` writes the model once a comparison, from transformers' own module. ONNX Runtime gets it through its transformer
optimizer where that fuses something; int8 is dynamic quantisation of the weights of all products, a scale a channel.
OpenVINO's int8 is nncf's static quantisation (activations too), calibrated on the warm-up's examples. How right the
results are is measured beside the time, see `side_by_side.py`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from competitors import Competitor
from hugging_face import model, padded, real

from bertkit.data.features import Features
from bertkit.files.disk import read_arrays
from bertkit.model.config import Head, ModelConfig

Step = Callable[[np.ndarray], np.ndarray]
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def output_names(head: Head) -> tuple[str, ...]:
    return ("start_logits", "end_logits") if head.kind == "span" else ("logits",)


def export(path: Path, config: ModelConfig, head: Head, weights: Mapping[str, np.ndarray]) -> None:
    """An ONNX file with free batch and length. Attention is eager: its products are what optimizers look for."""
    import torch

    names = output_names(head)

    class Plain(torch.nn.Module):
        """transformers' model with plain tensors in and out, in a fixed order."""

        def __init__(self) -> None:
            super().__init__()
            one = Competitor("export", "hf", "fp32", "longest", attention="eager")
            self.network = model(one, config, head, weights)

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> tuple[Any, ...]:
            output = self.network(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return tuple(output[name] for name in names)

    sample = tuple(torch.ones(2, 16, dtype=torch.int64) for _ in INPUTS)
    both = {0: "batch", 1: "length"}
    axes = dict.fromkeys((*INPUTS, "start_logits", "end_logits"), both) | {"logits": {0: "batch"}}
    torch.onnx.export(  # the older exporter: onnxruntime 1.31 knows its graphs and fuses attention only in them
        Plain().eval(), sample, str(path), input_names=list(INPUTS), output_names=list(names),
        dynamic_axes={name: axes[name] for name in (*INPUTS, *names)},
        opset_version=17, dynamo=False,
    )  # fmt: skip


def onnxruntime(
    one: Competitor, file: Path, config: ModelConfig, head: Head, features: Features, threads: int
) -> tuple[Step, dict[str, str]]:
    import onnxruntime as ort

    tuned, fused = _fused(file, config, one.name)
    if one.precision == "int8":
        from onnx import TensorProto
        from onnxruntime.quantization import QuantType, quantize_dynamic

        logging.getLogger().setLevel(logging.ERROR)
        quantised = file.with_name(f"{one.name}.int8.onnx")
        untyped = {"DefaultTensorType": TensorProto.FLOAT}  # ONNX's own inference knows no fused operators
        quantize_dynamic(tuned, quantised, weight_type=QuantType.QInt8, per_channel=True, extra_options=untyped)
        tuned = quantised
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(str(tuned), options, providers=["CPUExecutionProvider"])
    names = output_names(head)

    def predict(examples: np.ndarray) -> np.ndarray:
        inputs = padded(features, examples, 0)
        outputs = session.run(list(names), {name: inputs[name] for name in INPUTS})
        return real(dict(zip(names, outputs, strict=True)), features.lengths[examples])

    return predict, {"onnxruntime": ort.__version__, "fused": fused}


def _fused(file: Path, config: ModelConfig, name: str) -> tuple[Path, str]:
    """The file after ONNX Runtime's transformer optimizer, and what that fused."""
    from onnxruntime.transformers.optimizer import optimize_model

    optimized = optimize_model(
        str(file), model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size,
        opt_level=1, use_gpu=False,
    )  # fmt: skip
    counts = {kind: count for kind, count in optimized.get_fused_operator_statistics().items() if count}
    target = file.with_name(f"{name}.fused.onnx")
    optimized.save_model_to_file(str(target))
    return target, ", ".join(f"{kind} {count}" for kind, count in counts.items()) or "nothing"


def openvino(
    one: Competitor, file: Path, head: Head, features: Features, threads: int, calibration: np.ndarray
) -> tuple[Step, dict[str, str]]:
    """`calibration`: (K, B) example numbers; only int8 looks at them."""
    import openvino as ov

    core = ov.Core()
    network = core.read_model(file)
    if one.precision == "int8":
        import nncf

        samples = [{n: padded(features, row[:8], 0)[n] for n in INPUTS} for row in calibration]
        network = nncf.quantize(
            network, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples)
        )
    hint = "f32" if one.precision == "fp32" else "bf16"  # of int8: what is not quantised
    compiled = core.compile_model(
        network, "CPU",
        {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint},
    )  # fmt: skip
    names = output_names(head)
    chosen = compiled.get_property("INFERENCE_PRECISION_HINT")

    def predict(examples: np.ndarray) -> np.ndarray:
        inputs = padded(features, examples, 0)
        result = compiled({name: inputs[name] for name in INPUTS})
        outputs = {name: np.asarray(result[place]) for place, name in enumerate(names)}
        return real(outputs, features.lengths[examples])

    return predict, {"openvino": ov.__version__, "precision": str(chosen)}


def main() -> None:
    """Export the model of a task that side_by_side.py wrote: the path of its JSON file is the only argument."""
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    weights, _ = read_arrays(Path(task["weights"]))
    export(Path(task["onnx"]), ModelConfig(**task["config"]), Head(**task["head"]), weights)


if __name__ == "__main__":
    main()
