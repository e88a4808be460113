"""Names and shapes of all parameters as Hugging Face has them, and starting values that follow from the seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bertkit.model.config import ARCHITECTURES, Head, ModelConfig
from bertkit.model.parameters import count, decays, initial, shapes

PAIR, SCORE, SPAN, PRETRAINING = (
    Head("classification", 3), Head("regression", 1), Head("span", 2), Head("pretraining", 2),
)  # fmt: skip
EMBEDDINGS = {
    "bert.embeddings.word_embeddings.weight": (30522, 128),
    "bert.embeddings.position_embeddings.weight": (512, 128),
    "bert.embeddings.token_type_embeddings.weight": (2, 128),
    "bert.embeddings.LayerNorm.weight": (128,),
    "bert.embeddings.LayerNorm.bias": (128,),
}
LAYER = {
    "attention.self.query.weight": (128, 128),
    "attention.self.query.bias": (128,),
    "attention.self.key.weight": (128, 128),
    "attention.self.key.bias": (128,),
    "attention.self.value.weight": (128, 128),
    "attention.self.value.bias": (128,),
    "attention.output.dense.weight": (128, 128),
    "attention.output.dense.bias": (128,),
    "attention.output.LayerNorm.weight": (128,),
    "attention.output.LayerNorm.bias": (128,),
    "intermediate.dense.weight": (512, 128),
    "intermediate.dense.bias": (512,),
    "output.dense.weight": (128, 512),
    "output.dense.bias": (128,),
    "output.LayerNorm.weight": (128,),
    "output.LayerNorm.bias": (128,),
}
POOLER = {"bert.pooler.dense.weight": (128, 128), "bert.pooler.dense.bias": (128,)}
ENCODER = EMBEDDINGS | {f"bert.encoder.layer.{n}.{name}": shape for n in (0, 1) for name, shape in LAYER.items()}
CLS = {
    "cls.predictions.transform.dense.weight": (128, 128),
    "cls.predictions.transform.dense.bias": (128,),
    "cls.predictions.transform.LayerNorm.weight": (128,),
    "cls.predictions.transform.LayerNorm.bias": (128,),
    "cls.predictions.bias": (30522,),
    "cls.seq_relationship.weight": (2, 128),
    "cls.seq_relationship.bias": (2,),
}
SMALL = ModelConfig(16, 2, 2, 32, vocab_size=50, max_position_embeddings=8)


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (PAIR, ENCODER | POOLER | {"classifier.weight": (3, 128), "classifier.bias": (3,)}),
        (SCORE, ENCODER | POOLER | {"classifier.weight": (1, 128), "classifier.bias": (1,)}),
        (SPAN, ENCODER | {"qa_outputs.weight": (2, 128), "qa_outputs.bias": (2,)}),
        (PRETRAINING, ENCODER | POOLER | CLS),
    ],
    ids=lambda value: value.kind if isinstance(value, Head) else "",
)
def test_the_parameters_of_tiny(head: Head, wanted: dict[str, tuple[int, ...]]) -> None:
    assert list(shapes(ARCHITECTURES["tiny"], head).items()) == list(wanted.items())  # in the order of the forward pass
    assert len(wanted) == {"span": 39, "pretraining": 46}.get(head.kind, 41)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tiny", 4_385_920), ("mini", 11_170_560), ("small", 28_763_648), ("medium", 41_373_184), ("base", 109_482_240),
        ("large", 335_141_888), ("4l-288d", 13_018_464), ("4l-312d", 14_350_248), ("6l-768d", 66_955_008),
    ],
)  # fmt: skip
def test_as_many_parameters_as_the_published_models(name: str, wanted: int) -> None:
    assert count(ARCHITECTURES[name]) == wanted


def test_a_head_is_counted_where_it_is_asked_for() -> None:
    base = ARCHITECTURES["base"]
    assert count(base, Head("classification", 2)) == 109_482_240 + 2 * 768 + 2
    assert count(base, Head("span", 2)) == 109_482_240 - 768 * 769 + 2 * 768 + 2
    assert count(base, PRETRAINING) == 110_106_428  # the tied decoder counts once


@pytest.mark.parametrize("head", [PAIR, SCORE, SPAN, PRETRAINING], ids=lambda head: head.kind)
def test_the_start_follows_from_the_seed(head: Head) -> None:
    first, again, other = (initial(SMALL, head, seed) for seed in (1, 1, 2))
    assert list(first) == list(shapes(SMALL, head))
    for name, array in first.items():
        assert array.dtype == np.float32
        assert array.shape == shapes(SMALL, head)[name]
        assert array.tobytes() == again[name].tobytes()
        drawn = array.ndim == 2
        assert np.array_equal(array, other[name]) != drawn, name


def test_another_head_leaves_the_encoder_as_it_was() -> None:
    first = initial(SMALL, PAIR, 4)
    for head in (SCORE, SPAN, PRETRAINING):
        other = initial(SMALL, head, 4)
        shared = [name for name in first if name.startswith("bert.") and name in other]
        assert len(shared) >= 37
        assert all(np.array_equal(first[name], other[name]) for name in shared)


def test_more_layers_leave_the_first_ones_as_they_were() -> None:
    first, deeper = initial(SMALL, PAIR, 4), initial(dataclasses.replace(SMALL, num_hidden_layers=3), PAIR, 4)
    assert set(first) < set(deeper)
    assert all(np.array_equal(first[name], deeper[name]) for name in first)


def test_no_two_parameters_start_alike() -> None:
    made = initial(SMALL, PAIR, 4)
    drawn = [array.tobytes() for array in made.values() if array.ndim == 2]
    assert len(drawn) == len(set(drawn))


def test_the_start_is_normal_zero_and_one() -> None:
    made = initial(dataclasses.replace(SMALL, vocab_size=5000, initializer_range=0.05), PRETRAINING, 4)
    words = made["bert.embeddings.word_embeddings.weight"]
    assert abs(float(words.mean())) < 0.001
    assert abs(float(words.std()) - 0.05) < 0.001
    for name, array in made.items():
        if array.ndim == 1:
            assert np.all(array == (1 if name.endswith("LayerNorm.weight") else 0)), name


def test_the_values_of_a_seed_never_change() -> None:
    """Taken from the first version: whatever changes them changes every seeded run."""
    word = initial(SMALL, PAIR, 1)["bert.embeddings.word_embeddings.weight"][0, :3]
    assert word.tolist() == pytest.approx([0.0042001852, -0.0134307835, -0.0037262328], rel=1e-6)


@pytest.mark.parametrize("head", [PAIR, SCORE, SPAN, PRETRAINING], ids=lambda head: head.kind)
def test_decay_is_for_matrices_alone(head: Head) -> None:
    assert {name for name, shape in shapes(SMALL, head).items() if len(shape) == 2} == {
        name for name in shapes(SMALL, head) if decays(name)
    }
    assert not decays("cls.predictions.bias")
    assert not decays("bert.embeddings.LayerNorm.weight")
    assert decays("bert.embeddings.word_embeddings.weight")
