"""A model in OpenVINO's form: `model.xml` and `model.bin`, as its own reader makes them of our ONNX file."""

from __future__ import annotations

import functools
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openvino

from bertkit.plugin import Arrays, ExportedModel, PaddedModel, UserError
from bertkit_onnx.bert import NAMES
from bertkit_onnx.sums import openvino_is_exact, warn_of_sums
from bertkit_onnx.writing import write as write_onnx

HINT = "INFERENCE_PRECISION_HINT"
logger = logging.getLogger(__name__)


def write(model: ExportedModel, path: Path) -> None:
    warn_of_sums(model, "OpenVINO", openvino_is_exact)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        write_onnx(model, Path(folder) / "model.onnx")
        made = openvino.Core().read_model(Path(folder) / "model.onnx")
        openvino.save_model(made, path, compress_to_fp16=False)  # it is in its precision already
        del made  # it has mapped the file in the folder that goes now
    if model.precision != "bf16":
        logger.warning(
            "OpenVINO computes in bf16 on CPUs that have it, unless the program that loads the model sets %s to f32",
            HINT,
        )


def load(path: Path) -> PaddedModel:
    """On the CPU; in float32, save for what is stored in bf16: there OpenVINO's own choice is left to it."""
    core = openvino.Core()
    made = core.read_model(path)
    constants = (node for node in made.get_ops() if node.get_type_name() == "Constant")
    narrow = any(node.get_element_type() == openvino.Type.bf16 for node in constants)
    return functools.partial(_computed, core.compile_model(made, "CPU", {} if narrow else {HINT: "f32"}))


def compiled(graph: bytes, kind: str, threads: int) -> PaddedModel:
    """An ONNX file's content on the CPU. `kind`: bf16 or f32. Raises UserError where this CPU has no bf16."""
    core = openvino.Core()
    made = core.compile_model(core.read_model(graph), "CPU", {HINT: kind, "INFERENCE_NUM_THREADS": threads})
    if kind == "bf16" and made.get_property(HINT) != openvino.Type.bf16:
        raise UserError("OpenVINO does not compute in bf16 on this CPU", "use -d fp32")
    return functools.partial(_computed, made)


def _computed(compiled: openvino.CompiledModel, inputs: Mapping[str, np.ndarray]) -> Arrays:
    found = compiled({name: inputs[name].astype(np.int64) for name in NAMES})
    names = {name for output in compiled.outputs for name in output.names if name.endswith("logits")}
    return {name: np.array(found[compiled.output(name)]) for name in names}
