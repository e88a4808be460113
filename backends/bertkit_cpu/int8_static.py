"""Inference with the encoder's dense layers in int8 from one product to the next, by scales found beforehand.

The inputs of a dense layer have one scale and zero point, from a calibration (`ranges.py`); weights have a scale for
each output. Bias, GELU and the next scale are part of oneDNN's product, so the feed-forward part's hidden values are
written once, as uint8; the second product adds to the residual, which is float32 there. Attention, embeddings and heads
stay in bf16. One short sequence goes through FBGEMM's products, and is float32 between them.

Legend: N slots, H hidden, I inputs, O outputs of all joined layers.
Source: Jacob et al. 2018, arXiv:1712.05877 (the scheme); Zafrir et al. 2019, arXiv:1910.06188 (of BERT).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import ModelConfig, scales_place
from bertkit_cpu.dense import InferenceWeights, Product, onednn_form
from bertkit_cpu.int8 import ENCODER, Quantised, quantise
from bertkit_cpu.int8_short import pack, short_product, short_works
from bertkit_torch.dropout import Dropout
from bertkit_torch.weights import activate


class StaticInt8Weights(InferenceWeights):
    """For forward passes without a gradient."""

    def __init__(self, masters: Mapping[str, Tensor], dtype: torch.dtype, scales: Mapping[str, np.ndarray]) -> None:
        """`scales`: (2,) of each place that `scales_place` names: scale and zero point."""
        super().__init__(masters, dtype)
        self._quantised: dict[tuple[str, ...], Quantised] = {}
        self.use(scales)

    def use(self, scales: Mapping[str, np.ndarray]) -> None:
        """Other scales, with the weights as they are quantised already."""
        self.scales = {name: (float(pair[0]), int(pair[1])) for name, pair in scales.items()}
        self._bound.clear()
        self.short_layers = None

    def add_and_norm(self, residual: Tensor, x: Tensor, block: str, config: ModelConfig, drop: Dropout) -> Tensor:
        """Returns float32, which `feed_forward` takes without rounding."""
        return self._add_and_norm(residual.float(), self._rows(x.float(), f"{block}.dense"), block, config)

    def feed_forward(self, x: Tensor, prefix: str, config: ModelConfig, drop: Dropout) -> Tensor:
        first, second = f"{prefix}intermediate.dense", f"{prefix}output.dense"
        form = onednn_form(config.hidden_act)
        inner = _product(
            self._rows(x, first), self.scales[scales_place(first)], self._weight((first,)), torch.uint8,
            self.scales[scales_place(second)], *form,
        )  # fmt: skip
        return self._add_and_norm(x, inner, f"{prefix}output", config).to(self.dtype)

    def _add_and_norm(self, residual: Tensor, rows: Tensor, block: str, config: ModelConfig) -> Tensor:
        """(N, H) float32, which the sum overwrites, (N, I) uint8 -> (N, H) float32."""
        name = f"{block}.dense"
        weight = self._weight((name,))
        torch.ops.onednn.qlinear_pointwise.binary(
            rows, *self.scales[scales_place(name)], weight.blocks, weight.scales, weight.zeros, residual, weight.bias,
            1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [], "",
        )  # fmt: skip
        return self.layer_norm(residual, f"{block}.LayerNorm", config.layer_norm_eps)

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        if not names[0].startswith(ENCODER):
            product = super().bind(names, activation)
            return lambda x: product(x.to(self.dtype))
        scale, weight, form = self.scales[scales_place(names[0])], self._weight(names), onednn_form(activation)
        return lambda x: _product(to_uint8(x.float(), *scale), scale, weight, self.dtype, (1.0, 0), *form)

    @property
    def short_dtype(self) -> torch.dtype:
        return torch.float32 if short_works() else self.dtype

    def short_dense(self, *names: str, activation: str = "") -> Product:
        if not short_works():
            return super().short_dense(*names, activation=activation)
        scale, packed = self.scales[scales_place(names[0])], pack(self.masters, names)
        if not activation:
            return lambda x: short_product(x, *scale, packed)
        return lambda x: activate(short_product(x, *scale, packed), activation)

    def _rows(self, x: Tensor, name: str) -> Tensor:
        return to_uint8(x, *self.scales[scales_place(name)])

    def _weight(self, names: tuple[str, ...]) -> Quantised:
        if names not in self._quantised:
            self._quantised[names] = quantise(self.masters, names)
        return self._quantised[names]


def _product(
    rows: Tensor, scale: tuple[float, int], weight: Quantised, dtype: torch.dtype, to: tuple[float, int], after: str,
    form: str,
) -> Tensor:  # fmt: skip
    """(N, I) uint8 -> (N, O); `to`: scale and zero point where `dtype` is uint8."""
    found: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, *scale, weight.blocks, weight.scales, weight.zeros, weight.bias, *to, dtype, after, [], form
    )
    return found


def to_uint8(x: Tensor, scale: float, zero: int) -> Tensor:
    """(N, I) float32 -> (N, I): round(x / scale) + zero, within 0 to 255."""
    rows = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
    return torch.empty(0, dtype=torch.uint8).set_(rows.untyped_storage(), 0, rows.shape, rows.stride())


TRIED = ModelConfig(vocab_size=1, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)


def static_int8_works() -> bool:
    """Whether torch has the operators used above, some without a public name, and they compute what they should."""
    masters = {"a.dense.weight": torch.eye(64), "a.dense.bias": torch.zeros(64)}
    masters |= {"a.LayerNorm.weight": torch.ones(64), "a.LayerNorm.bias": torch.zeros(64)}
    x = torch.linspace(-1, 1, 128, dtype=torch.bfloat16).view(2, 64)
    try:
        with warnings.catch_warnings():  # told once a process, that the quantised tensors of torch will go
            warnings.simplefilter("ignore")
            weights = StaticInt8Weights(masters, torch.bfloat16, {"a.dense": np.array([1 / 127, 127])})
            found = weights.add_and_norm(x, x, "a", TRIED, Dropout())
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    wanted = functional.layer_norm(2 * x.float(), (64,))
    return bool((found.float() - wanted).abs().max() < 0.1)
