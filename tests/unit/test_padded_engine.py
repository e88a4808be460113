"""A padded model in an engine's place: whatever is computed beside it, each sequence has its own outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.engine.interface import Arrays
from bertkit.engine.padded_engine import PaddedEngine, padded
from bertkit.model.config import Head, HeadKind

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=12)


def ragged(lengths: list[int]) -> Arrays:
    ids = np.arange(1, sum(lengths) + 1, dtype=np.int32)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return {"input_ids": ids, "token_type_ids": ids % 2, "cu_seqlens": bounds}


class Model:
    """Outputs that follow from a row's real tokens; what stands at padding is not a number."""

    def __init__(self, kind: HeadKind) -> None:
        self.kind, self.places = kind, 0

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        ids, mask = inputs["input_ids"].astype(np.float32), inputs["attention_mask"]
        assert (ids[mask == 0] == 0).all()
        assert (inputs["token_type_ids"] == inputs["input_ids"] % 2).all()
        self.places += mask.size
        each = np.where(mask > 0, ids, np.nan)
        if self.kind == "span":
            return {"start_logits": each, "end_logits": -each}
        if self.kind == "tokens":
            return {"logits": np.stack([each, -each], -1)}
        return {"logits": np.stack([np.nansum(each, 1), mask.sum(1)], 1)}


@given(LENGTHS)
@settings(deadline=None)
@pytest.mark.parametrize("kind", ["classification", "tokens", "span"])
def test_each_sequence_has_its_own(kind: HeadKind, lengths: list[int]) -> None:
    batch, model = ragged(lengths), Model(kind)
    found = PaddedEngine(model, Head(kind, 2)).predict(batch)
    ids = batch["input_ids"].astype(np.float32)
    if kind == "span":
        np.testing.assert_array_equal(found["start_logits"], ids)
        np.testing.assert_array_equal(found["end_logits"], -ids)
    elif kind == "tokens":
        np.testing.assert_array_equal(found["logits"], np.stack([ids, -ids], 1))
    else:
        sums = np.add.reduceat(ids, batch["cu_seqlens"][:-1])
        np.testing.assert_array_equal(found["logits"], np.stack([sums, np.array(lengths)], 1))
    assert model.places == PaddedEngine(model, Head(kind, 2)).slots(np.array(lengths)) <= 1.26 * sum(lengths)


def test_without_groups_a_batch_is_padded_to_its_longest() -> None:
    lengths = [3, 40, 1, 12]
    batch, model = ragged(lengths), Model("span")
    engine = PaddedEngine(model, Head("span", 2), grouped=False)
    np.testing.assert_array_equal(engine.predict(batch)["start_logits"], batch["input_ids"].astype(np.float32))
    assert model.places == engine.slots(np.array(lengths)) == 4 * 40


def test_rows_in_their_order() -> None:
    made = padded(ragged([2, 3, 1]))
    assert made["input_ids"].tolist() == [[1, 2, 0], [3, 4, 5], [6, 0, 0]]
    assert made["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


def test_it_is_not_trained_and_not_used_when_closed() -> None:
    engine = PaddedEngine(Model("span"), Head("span", 2), {"runtime": "x"})
    assert engine.describe() == {"runtime": "x"}
    for wrong in (engine.weights, engine.state_dict, lambda: engine.load_state_dict({})):
        with pytest.raises(RuntimeError, match="answers only"):
            wrong()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.predict(ragged([3]))
