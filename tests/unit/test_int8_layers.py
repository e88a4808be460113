"""Weights of dense layers in int8: half a step at most, and outliers kept apart change nothing but the rounding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertkit.model.int8 import copied_neurons, int8_inputs, int8_layer, int8_layers_at

FIRST, SECOND = "bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.0.output.dense"
WHOLE = st.integers(1, 6)
ROWS = st.tuples(WHOLE, st.integers(1, 9))


def as_float(weights: dict[str, np.ndarray], name: str, scales: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(O, I), (O,): what the rounded weights stand for, and the bias."""
    layer = int8_layer(weights, (name,), scales)
    return layer.values * layer.scales[:, None], layer.bias


@given(arrays(np.float32, ROWS, elements=st.floats(-1e4, 1e4, width=32)), st.sampled_from([127, 64]))
def test_a_weight_is_within_half_a_step(weight: np.ndarray, largest: int) -> None:
    layer = int8_layer({"a.weight": weight, "a.bias": weight[:, 0]}, ("a",), {}, largest)
    assert (layer.values.dtype, layer.scales.dtype, layer.scales.shape) == (np.int8, np.float32, (len(weight),))
    assert np.abs(layer.values.astype(int)).max() <= largest
    assert (np.abs(layer.values * layer.scales[:, None] - weight) <= 0.501 * layer.scales[:, None]).all()


def test_layers_of_one_place_stand_side_by_side_in_the_order_asked_for() -> None:
    rng, place = np.random.default_rng(1), "bert.encoder.layer.0.attention.self"
    names = [f"{place}.{part}" for part in ("query", "key", "value")]
    weights = {f"{name}.weight": rng.normal(size=(2, 4)).astype(np.float32) for name in names}
    weights |= {f"{name}.bias": rng.normal(size=2).astype(np.float32) for name in names}
    assert int8_layers_at([*weights, f"{FIRST}.weight"], place) == tuple(names)
    divisors = np.array([1, 8, 1, 1], np.float32)
    scales = {place: np.array([0.1, 128], np.float32), f"{place}.divisors": divisors}
    layer = int8_layer(weights, (names[1], names[2]), scales)
    wanted = np.concatenate([weights[f"{name}.weight"] for name in names[1:]]) * divisors
    assert (np.abs(layer.values * layer.scales[:, None] - wanted) <= 0.501 * layer.scales[:, None]).all()
    np.testing.assert_array_equal(layer.bias, np.concatenate([weights[f"{name}.bias"] for name in names[1:]]))
    inputs = int8_inputs(scales, names[2])
    assert (inputs.zero, inputs.divisors is divisors) == (128, True)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_each_copy_knows_its_neuron_and_its_number(counts: list[int]) -> None:
    neurons, turns = copied_neurons(np.array(counts, np.float32))
    wanted = [(neuron, turn) for neuron, count in enumerate(counts) for turn in range(1, count + 1)]
    assert list(zip(neurons.tolist(), turns.tolist(), strict=True)) == wanted


@given(st.lists(st.integers(0, 3), min_size=4, max_size=4), st.floats(0.5, 4), st.integers(0, 1000))
def test_copies_reach_as_much_farther_as_there_are(counts: list[int], top: float, seed: int) -> None:
    """With ReLU exactly: each copy goes on where the one before it ends."""
    rng = np.random.default_rng(seed)
    scale = np.float32(top / 255)
    scales = {SECOND: np.array([scale, 0], np.float32), f"{SECOND}.copies": np.array(counts, np.float32)}
    scales[FIRST] = np.array([0.1, 128], np.float32)
    weights = {f"{FIRST}.weight": rng.normal(size=(4, 3)).astype(np.float32), f"{FIRST}.bias": np.ones(4, np.float32)}
    weights |= {f"{SECOND}.weight": np.eye(4, dtype=np.float32), f"{SECOND}.bias": np.zeros(4, np.float32)}
    x = rng.normal(0, 3, (50, 3)).astype(np.float32)
    first, bias = as_float(weights, FIRST, scales)
    hidden = np.maximum(x @ first.T + bias, 0)
    assert hidden.shape[1] == 4 + sum(counts)
    reached = int8_inputs(scales, SECOND).top
    second, _ = as_float(weights, SECOND, scales)
    found = np.minimum(hidden, reached) @ second.T
    wanted = np.minimum(hidden[:, :4], reached * (1 + np.array(counts)))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
