"""The same BERT with the encoder's dense layers in int8, in the form that runtimes read as such: QuantizeLinear before
a layer, DequantizeLinear behind its inputs and its weights.

Inputs are uint8 with one scale and zero point for each place, from a calibration; weights int8 with a scale for each
output. A runtime's product of the two has 32 bits. Everything else is in float32.
Source: Jacob et al. 2018, arXiv:1712.05877.

Legend: I inputs, O outputs of layers side by side.
"""

from __future__ import annotations

import numpy as np

from bertkit.plugin import INT8_WEIGHTS, ExportedModel, Int8Layer, UserError, int8_inputs, int8_layer, scales_place
from bertkit_onnx.bert import Bert, joined

ENCODER = "bert.encoder."
BITS = "weight_bits"  # the setting that says how many a weight has


def largest_weight(model: ExportedModel) -> int:
    """Raises UserError for bits that there are not."""
    bits = int(model.settings.get(BITS, 8))
    if bits not in INT8_WEIGHTS:
        raise UserError(f"--option {BITS}={bits} is neither 7 nor 8", "leave it out, or take 7 for CPUs without VNNI")
    return INT8_WEIGHTS[bits]


class QuantisedBert(Bert):
    """`dense` of the encoder alone differs."""

    def dense(self, x: str, *names: str) -> str:
        """(…, inputs) -> (…, outputs of all the named layers side by side)"""
        if not names[0].startswith(ENCODER):
            return super().dense(x, *names)
        layer = int8_layer(self.model.weights, names, self.model.scales, largest_weight(self.model))
        product = self.graph.add("MatMul", self._input(x, names[0]), self._weight(joined(names, "weight"), layer))
        return self.graph.add("Add", product, self.graph.constant(joined(names, "bias"), layer.bias))

    def _input(self, x: str, layer: str) -> str:
        """What enters the layers at this place, rounded to its 256 values."""
        inputs, place = int8_inputs(self.model.scales, layer), scales_place(layer)
        if inputs.divisors is not None:
            factors = self.graph.constant(f"{place}.input.factors", (1 / inputs.divisors).astype(np.float32))
            x = self.graph.add("Mul", x, factors)
        pair = (
            self.graph.constant(f"{place}.input.scale", np.array(inputs.scale, np.float32)),
            self.graph.constant(f"{place}.input.zero", np.array(inputs.zero, np.uint8)),
        )
        return self.graph.add("DequantizeLinear", self.graph.add("QuantizeLinear", x, *pair), *pair)

    def _weight(self, name: str, layer: Int8Layer) -> str:
        """(I, O)"""
        return self.graph.add(
            "DequantizeLinear",
            self.graph.constant(name, np.ascontiguousarray(layer.values.T)),
            self.graph.constant(f"{name}.scales", layer.scales),
            self.graph.constant(f"{name}.zeros", np.zeros(len(layer.scales), np.int8)),
            axis=1,
        )
