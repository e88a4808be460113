"""Heads that are set to 0: which ones, what is 0 then, and that importances are what a mask's would be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig
from bertkit.model.parameters import initial
from bertkit.model.pruning import without_heads
from bertkit.training.pruning_heads import GIVES, READS, least, of_norms

SMALL = ModelConfig(8, 2, 4, 16, vocab_size=30, max_position_embeddings=16)
ENCODER = Head("encoder", 8, (2,))


@given(st.integers(1, 3), st.integers(2, 5), st.data())
def test_the_least_go_and_each_layer_keeps_one(layers: int, heads: int, data: st.DataObject) -> None:
    values = st.lists(st.floats(0, 9), min_size=layers * heads, max_size=layers * heads)
    importance = np.array(data.draw(values)).reshape(layers, heads)
    number = data.draw(st.integers(1, layers * (heads - 1)))
    gone = least(importance, number)
    assert sum(map(len, gone.values())) == number
    assert all(len(numbers) < heads for numbers in gone.values())
    for layer, numbers in gone.items():
        kept = [n for n in range(heads) if n not in numbers]
        assert importance[layer, list(numbers)].max() <= importance[layer, kept].min()


def test_so_many_cannot_go() -> None:
    for number in (0, 7):
        with pytest.raises(UserError, match=f"{number} of 8 heads cannot go; take 1 to 6"):
            least(np.ones((2, 4)), number)


def test_a_head_that_is_gone_is_0_in_all_its_parts() -> None:
    weights = {name: array + 1 for name, array in initial(SMALL, ENCODER, 1).items()}
    found, zeros = without_heads(SMALL, weights, {1: (0, 3)})
    changed = {name for name in weights if not np.array_equal(found[name], weights[name])}
    prefix = "bert.encoder.layer.1.attention."
    parts = {f"{prefix}self.{part}.{kind}" for part in ("query", "key", "value") for kind in ("weight", "bias")}
    assert changed == parts | {f"{prefix}output.dense.weight"}
    assert sum(int((found[name] == 0).sum()) for name in changed) == zeros == 4 * (3 * (8 + 1) + 8)
    reads = found[READS.format(1)]
    assert not reads[:, [0, 1, 6, 7]].any()
    assert reads[:, 2:6].all()
    assert weights[READS.format(1)].all(), "the source's arrays stay"
    with pytest.raises(UserError, match="there is no head 4"):
        without_heads(SMALL, weights, {0: (4,)})


def test_norms_are_of_a_heads_own_parts() -> None:
    weights = initial(SMALL, ENCODER, 1)
    gives, reads = weights[GIVES.format(0)], weights[READS.format(0)]
    wanted = np.linalg.norm(gives[2:4]) * np.linalg.norm(reads[:, 2:4])
    assert of_norms(SMALL, weights)[0, 1] == pytest.approx(wanted)
