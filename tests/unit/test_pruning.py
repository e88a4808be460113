"""Smaller models out of trained ones: which layers stay, and that they are the same layers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig
from bertkit.model.parameters import initial, shapes
from bertkit.model.pruning import every_kth, keep_layers

CONFIG = ModelConfig(16, 4, 2, 32, vocab_size=20, max_position_embeddings=12)
HEAD = Head("classification", 3)


@pytest.mark.parametrize(
    ("layers", "wanted", "kept"),
    [
        (12, 6, (1, 3, 5, 7, 9, 11)), (12, 4, (2, 5, 8, 11)), (6, 3, (1, 3, 5)), (6, 4, (0, 2, 3, 5)),
        (3, 3, (0, 1, 2)), (24, 1, (23,)),
    ],
)  # fmt: skip
def test_layers_are_taken_evenly_and_the_last_among_them(layers: int, wanted: int, kept: tuple[int, ...]) -> None:
    assert every_kth(layers, wanted) == kept


@given(st.integers(1, 60).flatmap(lambda layers: st.tuples(st.just(layers), st.integers(1, layers))))
def test_any_number_of_layers_is_spread_evenly(sizes: tuple[int, int]) -> None:
    layers, wanted = sizes
    kept = every_kth(layers, wanted)
    steps = np.diff([-1, *kept])
    assert (len(kept), kept[-1]) == (wanted, layers - 1)
    assert steps.min() >= 1
    assert steps.max() - steps.min() <= 1


@pytest.mark.parametrize("wanted", [0, -1, 7])
def test_a_number_of_layers_that_cannot_be_is_refused(wanted: int) -> None:
    with pytest.raises(UserError, match=f"{wanted} of 6 layers cannot be kept; keep 1 to 6"):
        every_kth(6, wanted)


def test_layers_are_kept_whole_and_numbered_anew() -> None:
    weights = initial(CONFIG, HEAD, 1)
    config, kept = keep_layers(CONFIG, weights, (1, 3))
    assert config == dataclasses.replace(CONFIG, num_hidden_layers=2)
    assert {name: array.shape for name, array in kept.items()} == shapes(config, HEAD)
    for name, array in kept.items():
        old = name.replace(".layer.1.", ".layer.3.").replace(".layer.0.", ".layer.1.")
        assert np.shares_memory(array, weights[old]), name


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ((), "no layer is kept"), ((1, 4), "there is no layer 4; the model has 4: 0 to 3"), ((-1, 2), "no layer -1"),
        ((2, 1), "layers 2,1 are not in ascending order"), ((1, 1), "not in ascending order"),
    ],
)  # fmt: skip
def test_layers_that_cannot_be_kept_are_refused(layers: tuple[int, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        keep_layers(CONFIG, initial(CONFIG, HEAD, 1), layers)
