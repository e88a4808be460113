"""Whether a runtime's sums of uint8 times int8 are exact on this CPU.

Without VNNI, x86 adds two such products in 16 bits, and a runtime may cut off what does not fit, silently. With weights
of 7 bits everything fits. What a runtime does on this CPU is tried.

Legend: R rows, I inputs, O outputs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from bertkit.plugin import INT8_WEIGHTS, ExportedModel, extreme_weights
from bertkit_onnx.graph import Graph
from bertkit_onnx.quantised import BITS, largest_weight

WEIGHTS = np.ascontiguousarray(extreme_weights(INT8_WEIGHTS[8]).T)  # (I, O)
logger = logging.getLogger(__name__)
Compute = Callable[[bytes, np.ndarray], np.ndarray]  # what a runtime makes of a graph with one input and one output


def trial() -> bytes:
    """A graph: `x` (R, I) float32, whole numbers from 0 to 255, times the largest weights there are."""
    graph, outputs = Graph(), WEIGHTS.shape[1]
    one = graph.constant("one", np.array(1, np.float32))
    zero = graph.constant("zero", np.array(0, np.uint8))
    rounded = graph.add("DequantizeLinear", graph.add("QuantizeLinear", "x", one, zero), one, zero)
    weight = graph.add(
        "DequantizeLinear",
        graph.constant("weight", WEIGHTS),
        graph.constant("scales", np.ones(outputs, np.float32)),
        graph.constant("zeros", np.zeros(outputs, np.int8)),
        axis=1,
    )
    graph.add("Add", graph.add("MatMul", rounded, weight), graph.constant("bias", np.zeros(outputs, np.float32)))
    graph.rename_last("y")
    made = graph.model({"x": (TensorProto.FLOAT, ["rows", "inputs"])}, {"y": ["rows", outputs]})
    content: bytes = made.SerializeToString()
    return content


def are_exact(compute: Compute) -> bool:
    x = np.full((16, len(WEIGHTS)), 255, np.float32)
    return np.array_equal(compute(trial(), x), x @ WEIGHTS.astype(np.float32))


def warn_of_sums(model: ExportedModel, runtime: str, exact: Callable[[], bool]) -> None:
    """Where an export is in int8, and `exact` says that the runtime cuts off its sums on this CPU."""
    if model.precision == "int8" and largest_weight(model) == INT8_WEIGHTS[8] and not exact():
        logger.warning(
            "%s cuts off sums of int8 on this CPU (no VNNI); for CPUs like it, export with --option %s=7", runtime, BITS
        )


@functools.cache
def onnxruntime_is_exact() -> bool:
    import onnxruntime

    def compute(graph: bytes, x: np.ndarray) -> np.ndarray:
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": x})[0])

    return are_exact(compute)


@functools.cache
def openvino_is_exact() -> bool:
    import openvino

    def compute(graph: bytes, x: np.ndarray) -> np.ndarray:
        core = openvino.Core()
        return np.array(core.compile_model(core.read_model(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(x)[0])

    return are_exact(compute)
