"""An ONNX graph as it is put together: nodes in their order, each constant once, a name for every result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

# LayerNormalization as one node came with 17. 20 has Gelu as one too, but every runtime fuses its five nodes itself,
# and what is of 17 loads in programs from the middle of 2022 on.
OPSET = 17
IR_VERSION = 8  # of the file, the one that came with opset 17; onnx's own newest is refused by older runtimes
LARGEST = 1_900_000_000  # bytes of constants in one file: protobuf ends at 2^31 - 1
TYPES = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators


class Graph:
    """What is there so far; results go by their names."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.counts: Counter[str] = Counter()
        self.bytes = 0  # of the constants

    def add(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node with one result."""
        return self.several(operator, *inputs, results=1, domain=domain, **attributes)[0]

    def several(self, operator: str, *inputs: str, results: int, domain: str = "", **attributes: Any) -> list[str]:
        """A node with so many results."""
        name = f"{operator}_{self.counts[operator]}"
        self.counts[operator] += 1
        outputs = [name] if results == 1 else [f"{name}_{number}" for number in range(results)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, domain=domain or None, **attributes))
        return outputs

    def constant(self, name: str, values: np.ndarray, precision: str = "fp32") -> str:
        """Floating-point numbers in `precision`, whole ones as they are; a name stands for one constant alone."""
        if name not in self.constants:
            if values.dtype.kind == "f":
                values = values.astype(helper.tensor_dtype_to_np_dtype(TYPES[precision]), copy=False)
            self.constants[name] = values
            self.bytes += values.nbytes
        return name

    def whole(self, *values: int) -> str:
        """A constant list of whole numbers."""
        return self.constant("whole_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float, precision: str = "fp32") -> str:
        return self.constant(f"number_{value!r}_{precision}", np.array(value, np.float32), precision)

    def rename_last(self, name: str) -> None:
        """The last node's result is an output of the graph, and is called so."""
        self.nodes[-1].output[0] = name

    def model(
        self,
        inputs: Mapping[str, tuple[int, Sequence[str]]],
        outputs: Mapping[str, Sequence[str | int]],
    ) -> onnx.ModelProto:
        """`inputs`: name -> (type, axes); `outputs`: name -> axes, float32. An axis with a name is free."""
        graph = helper.make_graph(
            self.nodes,
            "bert",
            [helper.make_tensor_value_info(name, kind, list(axes)) for name, (kind, axes) in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(axes)) for name, axes in outputs.items()],
        )
        operators = [helper.make_opsetid("", OPSET)]
        if any(node.domain == MICROSOFT for node in self.nodes):
            operators.append(helper.make_opsetid(MICROSOFT, 1))
        made = helper.make_model(graph, opset_imports=operators, ir_version=IR_VERSION, producer_name="bertkit")
        for name, values in self.constants.items():  # last, and in place: onnx's helpers copy what they are given
            into = made.graph.initializer.add(name=name, dims=values.shape)
            into.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
            into.raw_data = values.tobytes()
        return made


def save(made: onnx.ModelProto, path: Path, constants: int) -> None:
    """Into `path`; constants of more than one file can hold go into `<path>.data` beside it."""
    if constants <= LARGEST:
        onnx.save_model(made, path)
        return
    onnx.save_model(made, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
