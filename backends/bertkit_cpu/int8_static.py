"""Inference with the encoder's dense layers in int8 from one product to the next, by scales found beforehand.

The inputs of a dense layer have one scale and zero point, from a calibration (`ranges.py`); weights have a scale for
each output. Bias, GELU and the next scale are part of oneDNN's product, so the feed-forward part's hidden values are
written once, as uint8; the second product adds to the residual. What passes from layer to layer is float32; attention,
embeddings and heads stay in bf16, or in float32 where the CPU has no bf16. One short sequence is float32 between its
products, which are FBGEMM's where oneDNN's have no AMX or would not be worth their start.

Legend: N slots, H hidden, I inputs, O outputs of all joined layers, K inputs that are kept apart.
Source: Jacob et al. 2018, arXiv:1712.05877 (the scheme); Zafrir et al. 2019, arXiv:1910.06188 (of BERT).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bertkit.plugin import Int8Inputs, Int8Layer, ModelConfig, int8_inputs
from bertkit_cpu.capture import recording, scripts
from bertkit_cpu.dense import InferenceWeights, Product, onednn_form
from bertkit_cpu.int8 import ENCODER, Quantised, largest_weight, layer_of, quantise
from bertkit_cpu.int8_short import ShortProduct, pack, short_works
from bertkit_torch.dropout import Dropout
from bertkit_torch.placement import SHORT
from bertkit_torch.weights import ComputeWeights


class StaticInt8Weights(InferenceWeights):
    """For forward passes without a gradient."""

    overwrites = True

    def __init__(
        self,
        masters: Mapping[str, Tensor],
        dtype: torch.dtype,
        scales: Mapping[str, np.ndarray],
        largest: int,
        *,
        onednn_from: int = SHORT + 1,
    ) -> None:
        """`scales`, `largest`: as `bertkit.plugin.int8_layer` takes them. `onednn_from`: slots of a short sequence from
        which oneDNN's products are worth their start."""
        super().__init__(masters, dtype)
        self.largest = largest
        self.onednn_from = onednn_from
        self._quantised: dict[tuple[str, ...], Quantised] = {}
        self.use(scales)

    def use(self, scales: Mapping[str, np.ndarray]) -> None:
        """Other scales of inputs, where divisors and copies are the same: weights stay as they are quantised."""
        self.scales = scales
        self._rounding: dict[str, Rounding] = {}
        self._bound.clear()
        self.short_layers = None
        self._longer: _Longer | None = None

    def of_short(self, slots: int) -> ComputeWeights:
        if slots < self.onednn_from or not short_works(self.largest):
            return self
        self._longer = self._longer or _Longer(self)
        return self._longer

    @property
    def attended_dtype(self) -> torch.dtype:
        return torch.float32  # it is rounded next, which takes nothing else

    def add_and_norm(self, residual: Tensor, x: Tensor, block: str, config: ModelConfig, drop: Dropout) -> Tensor:
        """Returns float32, which `feed_forward` takes without rounding; a float32 residual is overwritten."""
        rows = self._round(f"{block}.dense")(x.float())
        return self._add_and_norm(residual.float(), rows, block, config)

    def feed_forward(self, x: Tensor, prefix: str, config: ModelConfig, drop: Dropout) -> Tensor:
        """Returns float32, which the next layer takes without a cast."""
        first, second = f"{prefix}intermediate.dense", f"{prefix}output.dense"
        entering, between = self._round(first), self._round(second)
        inner = _product(
            entering(x), entering.pair, self._weight((first,)), torch.uint8, between.pair,
            *onednn_form(config.hidden_act),
        )  # fmt: skip
        return self._add_and_norm(x, inner, f"{prefix}output", config)

    def _add_and_norm(self, residual: Tensor, rows: Tensor, block: str, config: ModelConfig) -> Tensor:
        """(N, H) float32, which the sum overwrites, (N, I) uint8 -> (N, H) float32."""
        name = f"{block}.dense"
        weight = self._weight((name,))
        torch.ops.onednn.qlinear_pointwise.binary(
            rows, *self._round(name).pair, weight.blocks, weight.scales, weight.zeros, residual, weight.bias,
            1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [], "",
        )  # fmt: skip
        return self.layer_norm(residual, f"{block}.LayerNorm", config.layer_norm_eps)

    def bind(self, names: tuple[str, ...], activation: str) -> Product:
        if not names[0].startswith(ENCODER):
            product = super().bind(names, activation)
            return lambda x: product(x.to(self.dtype))
        return self.product(names, self.dtype, activation)

    @property
    def short_dtype(self) -> torch.dtype:
        return torch.float32 if short_works(self.largest) else self.dtype

    def short_dense(self, *names: str, activation: str = "") -> Product:
        if not short_works(self.largest):
            return super().short_dense(*names, activation=activation)
        inputs, packed = int8_inputs(self.scales, names[0]), pack(self._layer(names))
        return ShortProduct(packed, inputs, activation)

    def product(self, names: tuple[str, ...], dtype: torch.dtype, activation: str) -> Product:
        """By oneDNN: (N, I) -> (N, O) `dtype`."""
        entering, weight, form = self._round(names[0]), self._weight(names), onednn_form(activation)
        return _Product(entering, weight, dtype, form)

    def _layer(self, names: tuple[str, ...]) -> Int8Layer:
        return layer_of(self.masters, names, self.scales, self.largest)

    def _round(self, name: str) -> Rounding:
        if name not in self._rounding:
            self._rounding[name] = Rounding(int8_inputs(self.scales, name))
        return self._rounding[name]

    def _weight(self, names: tuple[str, ...]) -> Quantised:
        if names not in self._quantised:
            self._quantised[names] = quantise(self._layer(names), torch.float32)
        return self._quantised[names]


class _Longer(InferenceWeights):
    """Of one sequence that is short, but not so short that FBGEMM's products are faster."""

    def __init__(self, weights: StaticInt8Weights) -> None:
        super().__init__(weights.masters, weights.dtype)
        self.weights = weights

    short_dtype = torch.float32

    def short_dense(self, *names: str, activation: str = "") -> Product:
        return self.weights.product(names, torch.float32, activation)


class _Product(nn.Module):
    """(N, I) -> (N, O) of another dtype than uint8, by oneDNN."""

    def __init__(self, entering: Rounding, weight: Quantised, dtype: torch.dtype, form: tuple[str, str]) -> None:
        super().__init__()
        self.entering, self.form, self.dtype = entering, form, dtype
        self.weight = weight
        for field in dataclasses.fields(weight):  # what is recorded must know its tensors
            self.register_buffer(field.name, getattr(weight, field.name))

    def forward(self, x: Tensor) -> Tensor:
        return _product(self.entering(x.float()), self.entering.pair, self.weight, self.dtype, (1.0, 0), *self.form)


class Rounding:
    """How the inputs of one place become uint8."""

    def __init__(self, inputs: Int8Inputs) -> None:
        self.pair = inputs.scale, inputs.zero
        self._large: tuple[Tensor, Tensor] | None = None  # which inputs are divided, (K,), and by what
        if inputs.divisors is not None:
            divisors = torch.from_numpy(inputs.divisors)
            which = (divisors != 1).nonzero()[:, 0]
            self._large = which, divisors[which]

    def __call__(self, x: Tensor) -> Tensor:
        """(N, I) float32, the same afterwards -> (N, I): round(x / divisors / scale) + zero, within 0 to 255."""
        if self._large is None:
            return to_uint8(x, *self.pair)
        which, divisors = self._large
        large = x.index_select(1, which)
        x.index_copy_(1, which, large / divisors)
        rows = to_uint8(x, *self.pair)
        x.index_copy_(1, which, large)
        return rows


def _product(
    rows: Tensor, scale: tuple[float, int], weight: Quantised, dtype: torch.dtype, to: tuple[float, int], after: str,
    form: str,
) -> Tensor:  # fmt: skip
    """(N, I) uint8 -> (N, O); `to`: scale and zero point where `dtype` is uint8."""
    given = rows, *scale, weight.blocks, weight.scales, weight.zeros, weight.bias, *to, dtype, after
    if recording():
        found: Tensor = scripts().quantised(*given, form)
    else:
        found = torch.ops.onednn.qlinear_pointwise(*given, [], form)
    return found


def to_uint8(x: Tensor, scale: float, zero: int) -> Tensor:
    """(N, I) float32 -> (N, I): round(x / scale) + zero, within 0 to 255."""
    rows = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
    if recording():  # storage would be recorded as it stands
        return rows.int_repr()
    return torch.empty(0, dtype=torch.uint8).set_(rows.untyped_storage(), 0, rows.shape, rows.stride())


TRIED = ModelConfig(vocab_size=1, hidden_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)


def static_int8_works() -> bool:
    """Whether torch has the operators used above, some without a public name, and they compute what they should."""
    largest = largest_weight()
    if largest is None:
        return False
    masters = {"a.dense.weight": torch.eye(64), "a.dense.bias": torch.zeros(64)}
    masters |= {"a.LayerNorm.weight": torch.ones(64), "a.LayerNorm.bias": torch.zeros(64)}
    x = torch.linspace(-1, 1, 128).view(2, 64)
    try:
        with warnings.catch_warnings():  # told once a process, that the quantised tensors of torch will go
            warnings.simplefilter("ignore")
            weights = StaticInt8Weights(masters, torch.float32, {"a.dense": np.array([1 / 127, 127])}, largest)
            found = weights.add_and_norm(x, x, "a", TRIED, Dropout())
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return False
    wanted = functional.layer_norm(2 * x.float(), (64,))
    return bool((found.float() - wanted).abs().max() < 0.1)
