"""Texts of megabytes: encoding them part by part gives what encoding them whole would."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.encoding import encode
from bertkit.data.tasks.sample import vocabulary as sample_words
from bertkit.data.tasks.squad.windows import encode_squad
from bertkit.data.tasks.task import Shape
from bertkit.errors import UserError
from bertkit.model.long_texts import LONG, batches, encode_long, parts, shortened
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary
from squad_files import paragraph

VOCABULARY = Vocabulary(Path("v"), tuple(sample_words()), True)
WORDS = st.sampled_from(
    ["the", "plot", "is", "good", "wording,up", "。", "été", "[SEP]", "[MASK].", "x" * 120, "电影", "\t", "\n"]
)
TEXT = st.lists(WORDS, max_size=40).map(" ".join)


@given(TEXT, st.integers(1, 30))
def test_parts_make_the_text(text: str, size: int) -> None:
    found = list(parts(text, size))
    assert "".join(part for _, part in found) == text
    assert all(text.startswith(part, start) for start, part in found)


@settings(deadline=None)
@given(TEXT, st.integers(1, 30))
def test_pieces_do_not_depend_on_the_parts(text: str, size: int) -> None:
    made = tokenizer(VOCABULARY)
    whole = made.encode(text, add_special_tokens=False)
    ids, offsets = encode_long(made, text, size)
    assert ids.tolist() == whole.ids
    assert offsets.tolist() == [list(pair) for pair in whole.offsets]


@settings(deadline=None, max_examples=200)
@given(TEXT, TEXT, st.integers(5, 24), st.integers(1, 30), st.booleans())
def test_truncation_gives_the_same(first: str, second: str, limit: int, size: int, pair: bool) -> None:
    made = tokenizer(VOCABULARY)
    one, other = shortened(made, [first], [second] if pair else None, limit, size)
    made.enable_truncation(limit, strategy="longest_first")
    whole = made.encode(first, second) if pair else made.encode(first)
    cut = made.encode(one[0], other[0]) if other else made.encode(one[0])
    assert (cut.ids, cut.type_ids) == (whole.ids, whole.type_ids)


@given(st.lists(st.integers(0, 9)), st.integers(1, 5), st.integers(1, 12))
def test_batches_hold_every_text_once(sizes: list[int], most: int, characters: int) -> None:
    texts = ["x" * size for size in sizes]
    found = list(batches(texts, most, characters))
    assert [text for batch in found for text in batch] == texts
    assert all(0 < len(batch) <= most for batch in found)
    assert all(sum(map(len, batch[:-1])) < characters for batch in found)


def test_a_row_of_megabytes_needs_little_more_memory() -> None:
    text = "the plot is good . " * (1 << 17)  # 2.5 MB
    tracemalloc.start()
    found = encode(VOCABULARY, [text], [text], {}, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.cu_seqlens.tolist() == [0, 64]
    assert peak < 20 << 20  # of Python and NumPy; the library's own memory is bounded by LONG characters


def test_a_long_context_is_read_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = paragraph("the plot is good . " * 3000 + "the hero is bold .", ("the hero is ?", ["bold"]))
    assert len(asked.context) > LONG
    found = [encode_squad([asked], VOCABULARY, Shape(384), learn) for learn in (True, False)]
    monkeypatch.setattr("bertkit.data.tasks.squad.windows.LONG", 1 << 30)
    whole = [encode_squad([asked], VOCABULARY, Shape(384), learn) for learn in (True, False)]
    for one, other in zip(found, whole, strict=True):
        assert np.array_equal(one.input_ids, other.input_ids)
        assert all(np.array_equal(one.labels[name], other.labels[name]) for name in other.labels)
        assert all(np.array_equal(one.notes[name], other.notes[name]) for name in other.notes)


def test_a_file_whose_answers_all_stand_elsewhere() -> None:
    asked = paragraph("the plot is good", ("the plot is ?", ["good"]), ("is it good ?", ["good"]))
    moved = type(asked)(asked.title, "x" + asked.context, asked.questions)
    with pytest.raises(UserError, match=r"f: all 2 of its questions were left out: their answers are not in their"):
        encode_squad([moved], VOCABULARY, Shape(32), learn=True, where="f")
    assert int(encode_squad([moved, asked], VOCABULARY, Shape(32), learn=True).notes["misplaced"][0]) == 2
