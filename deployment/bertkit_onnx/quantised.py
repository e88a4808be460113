"""The same BERT with the encoder's dense layers in int8, in the form that runtimes read as such: QuantizeLinear before
a layer, DequantizeLinear behind its inputs and its weights.

Inputs are uint8 with one scale and zero point for each place, from a calibration; weights int8 with a scale for each
output. A runtime's product of the two has 32 bits. Everything else is in float32.
Source: Jacob et al. 2018, arXiv:1712.05877.

Legend: I inputs, O outputs of layers side by side.
"""

from __future__ import annotations

import numpy as np

from bertkit.plugin import scales_place
from bertkit_onnx.bert import Bert, joined

ENCODER = "bert.encoder."


class QuantisedBert(Bert):
    """`dense` of the encoder alone differs."""

    def dense(self, x: str, *names: str) -> str:
        """(…, inputs) -> (…, outputs of all the named layers side by side)"""
        if not names[0].startswith(ENCODER):
            return super().dense(x, *names)
        product = self.graph.add("MatMul", self._input(x, scales_place(names[0])), self._weight(*names))
        return self.graph.add("Add", product, self.bias(*names))

    def _input(self, x: str, place: str) -> str:
        """What enters the layers at this place, rounded to its 256 values."""
        scale, zero = self.model.scales[place]
        pair = (
            self.graph.constant(f"{place}.input.scale", np.array(scale, np.float32)),
            self.graph.constant(f"{place}.input.zero", np.array(zero, np.uint8)),
        )
        return self.graph.add("DequantizeLinear", self.graph.add("QuantizeLinear", x, *pair), *pair)

    def _weight(self, *names: str) -> str:
        """(I, O)"""
        name = joined(names, "weight")
        rounded, scales = quantised(np.concatenate(self.each(names, "weight")))
        return self.graph.add(
            "DequantizeLinear",
            self.graph.constant(name, np.ascontiguousarray(rounded.T)),
            self.graph.constant(f"{name}.scales", scales),
            self.graph.constant(f"{name}.zeros", np.zeros(len(scales), np.int8)),
            axis=1,
        )


def quantised(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(O, I) float32 -> (O, I) int8 from -127 to 127, (O,) float32 scales."""
    scales = np.maximum(np.abs(weight).max(1), np.finfo(np.float32).tiny) / np.float32(127)
    return np.rint(weight / scales[:, None]).astype(np.int8), scales.astype(np.float32)
