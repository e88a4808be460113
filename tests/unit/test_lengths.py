"""The built-in length distributions: what they claim of the data, and that drawing from them is fair and repeatable."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.lengths import BUILT_IN, LEVELS, find_distribution, lengths, masked_counts
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.task import Shape
from bertkit.errors import UserError
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import read_vocabulary

# name -> mean, mean square, (p50, p90, p99, max): of the data itself, as the module's docstring says
STATED = {
    "mrpc": (53.24, 3003.6, (53, 70, 83, 103)),
    "sst2": (25.16, 740.7, (24, 40, 52, 55)),
    "squad384": (178.49, 36_554, (164, 272, 384, 384)),
    "wiki512": (255.83, 98_826, (204, 512, 512, 512)),
    "wiki128": (128, 128**2, (128, 128, 128, 128)),
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_draw_has_the_datas_moments_and_percentiles(name: str) -> None:
    mean, square, percentiles = STATED[name]
    drawn = lengths(name, 10_000, seed=1).astype(float)
    assert drawn.mean() == pytest.approx(mean, rel=0.005)
    assert np.square(drawn).mean() == pytest.approx(square, rel=0.01)
    found = np.quantile(drawn, [0.5, 0.9, 0.99, 1.0], method="inverted_cdf")
    assert found == pytest.approx(percentiles, rel=0.02)


def test_pretraining_predicts_as_many_positions_as_published() -> None:
    """38.2 a sequence in mlcommons' data, whose mean length is 254.4."""
    assert masked_counts(lengths("wiki512", 10_000, 1), 76).mean() == pytest.approx(38.2, rel=0.005)
    assert masked_counts(np.array([3, 6, 128, 512]), 76).tolist() == [1, 1, 19, 76]


@given(
    name=st.sampled_from([*BUILT_IN, "3", "77"]),
    count=st.integers(0, 300),
    seed=st.integers(0, 2**32),
    longest=st.sampled_from([0, 3, 64, 600]),
)
def test_a_draw_repeats_and_stays_within_bounds(name: str, count: int, seed: int, longest: int) -> None:
    drawn = lengths(name, count, seed, longest)
    assert drawn.shape == (count,)
    assert drawn.tolist() == lengths(name, count, seed, longest).tolist()
    table = find_distribution(name).quantiles
    most = min(max(table), longest) if longest else max(table)
    assert all(min(*table, most) <= length <= most for length in drawn) if len(table) > 1 else set(drawn) <= {most}


def test_another_seed_draws_others_in_random_order() -> None:
    one, other = lengths("mrpc", 1000, 1), lengths("mrpc", 1000, 2)
    assert one.tolist() != other.tolist()
    assert abs(np.corrcoef(one, np.arange(1000))[0, 1]) < 0.1  # not sorted


@pytest.mark.parametrize("name", ["mrcp", "", "-5", "²", "2", "1.5"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        find_distribution(name)
    with pytest.raises(UserError, match="did you mean mrpc"):
        find_distribution("mrcp")


@pytest.mark.parametrize("name", BUILT_IN)
def test_tables_ascend(name: str) -> None:
    table = BUILT_IN[name].quantiles
    assert len(table) in (1, len(LEVELS))
    assert list(table) == sorted(table)


def quantiles(found: np.ndarray) -> list[int]:
    """At LEVELS, by nearest rank, as the tables were made."""
    return [int(value) for value in np.quantile(found, LEVELS, method="inverted_cdf")]


def test_mrpc_is_what_the_data_says(real_data: Path) -> None:
    vocabulary = read_vocabulary(real_data / "minilm" / "vocab.txt")
    (part,) = read_split(find_task("mrpc"), real_data / "glue", "train", vocabulary, Shape(512))
    assert quantiles(part.features.lengths) == list(BUILT_IN["mrpc"].quantiles)


def test_sst2_is_what_the_data_says(real_data: Path) -> None:
    vocabulary = read_vocabulary(real_data / "minilm" / "vocab.txt")
    (part,) = read_split(find_task("sst2"), real_data / "glue", "dev", vocabulary, Shape(512))
    assert quantiles(part.features.lengths) == list(BUILT_IN["sst2"].quantiles)


def test_squad_is_what_the_data_says(real_data: Path) -> None:
    articles = json.loads((real_data / "squad" / "dev-v1.1.json").read_text(encoding="utf-8"))["data"]
    made = tokenizer(read_vocabulary(real_data / "minilm" / "vocab.txt"))
    found: list[int] = []
    for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
        pieces = len(made.encode(paragraph["context"], add_special_tokens=False).ids)
        for asked in paragraph["qas"]:
            question = min(64, len(made.encode(asked["question"], add_special_tokens=False).ids))
            found += windows(pieces, question)
    assert len(found) == 10_833
    assert quantiles(np.array(found)) == list(BUILT_IN["squad384"].quantiles)


def windows(pieces: int, question: int, most: int = 384, stride: int = 128) -> list[int]:
    """Lengths of the windows over a paragraph, as google-research/bert cuts it."""
    room = most - question - 3
    found, start = [], 0
    while True:
        length = min(room, pieces - start)
        found.append(length + question + 3)
        if start + length == pieces:
            return found
        start += min(length, stride)
