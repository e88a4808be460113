"""SQuAD's windows: windows cover the paragraph, labels point at the answer, offsets at its letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.features import Features
from bertkit.data.tasks.squad.reader import Paragraph, Question, ReferenceAnswer, read_squad
from bertkit.data.tasks.squad.windows import OUTSIDE, encode_squad, max_context, windows
from bertkit.data.tasks.task import Shape
from bertkit.errors import UserError
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import Vocabulary
from squad_files import CONTEXT, paragraph, reviews


@pytest.fixture(scope="module")
def vocabulary(sample_dir: Path) -> Vocabulary:
    return read_vocabulary(sample_dir / "sample" / "vocab.txt")


def pieces(features: Features, window: int) -> slice:
    return slice(int(features.cu_seqlens[window]), int(features.cu_seqlens[window + 1]))


def words(features: Features, window: int, vocabulary: Vocabulary) -> list[str]:
    return [vocabulary.pieces[token] for token in features.input_ids[pieces(features, window)]]


# Windows


@given(st.integers(0, 700), st.integers(1, 400), st.integers(1, 300))
def test_windows_cover_every_piece_and_move_by_the_stride(count: int, room: int, stride: int) -> None:
    spans = windows(count, room, stride)
    covered = np.zeros(count, int)
    for start, end in spans:
        assert end - start <= room
        covered[start:end] += 1
    assert (covered > 0).all()
    assert spans[-1][1] == count
    step = min(room, stride)
    assert [start for start, _ in spans] == [n * step for n in range(len(spans))]
    assert all(end == start + room for start, end in spans[:-1])


@given(st.integers(1, 60), st.integers(1, 30), st.integers(1, 30))
def test_each_piece_has_its_maximum_context_once(count: int, room: int, stride: int) -> None:
    spans = windows(count, room, stride)
    owner = max_context(spans, count)
    for place in range(count):
        scores = [  # the published code's own words: a score for each window that holds the piece
            min(place - start, end - 1 - place) + 0.01 * (end - start) if start <= place < end else -1.0
            for start, end in spans
        ]
        assert owner[place] == scores.index(max(scores))


# Sequences


def test_a_sequence_is_question_and_window(vocabulary: Vocabulary) -> None:
    asked = paragraph("the plot is good", ("is the plot dull ?", ["good"]))
    (found,) = [encode_squad([asked], vocabulary, Shape(32), learn=True)]
    assert words(found, 0, vocabulary) == "[CLS] is the plot dull ? [SEP] the plot is good [SEP]".split()
    assert found.token_type_ids.tolist() == [0] * 7 + [1] * 5
    assert found.labels["start_positions"].tolist() == found.labels["end_positions"].tolist() == [10]


def test_labels_point_at_the_answer_in_the_windows_that_hold_it(vocabulary: Vocabulary) -> None:
    context = " ".join(["the plot is good and the cast is dull"] * 6)
    start = context.index("dull", 100)
    asked = Paragraph("", context, (Question("q", "is it ?", (ReferenceAnswer("dull", start),)),))
    found = encode_squad([asked], vocabulary, Shape(24, doc_stride=7), learn=True)
    assert len(found) > 3
    holding = 0
    for window in range(len(found)):
        first, last = (int(found.labels[f"{side}_positions"][window]) for side in ("start", "end"))
        if first:
            holding += 1
            assert words(found, window, vocabulary)[first : last + 1] == ["dull"]
        else:
            assert last == 0
    assert 0 < holding < len(found)


@pytest.mark.parametrize("stride", [3, 8, 128])
def test_offsets_cut_the_pieces_out_of_the_paragraph(vocabulary: Vocabulary, stride: int) -> None:
    asked = [paragraph(CONTEXT, ("is it good ?", ()), ("is the hero bold ?", ())), paragraph("Flat Music.", ("?", ()))]
    found = encode_squad(asked, vocabulary, Shape(24, doc_stride=stride), learn=False)
    owners = found.notes["question"]
    assert sorted(set(owners.tolist())) == [0, 1, 2]
    seen: dict[int, int] = {0: 0, 1: 0, 2: 0}
    for window, owner in enumerate(owners.tolist()):
        own = pieces(found, window)
        context = asked[owner // 2].context
        starts, ends = found.notes["start"][own], found.notes["end"][own]
        real = starts != OUTSIDE
        assert real.sum() == found.token_type_ids[own].sum() - 1  # the window, without its [SEP]
        cut = [context[a:b].lower() for a, b in zip(starts[real], ends[real], strict=True)]
        said = [word.removeprefix("##") for word in words(found, window, vocabulary)]
        assert cut == [said[n] for n in np.flatnonzero(real)]
        seen[owner] += int(found.notes["max_context"][own].sum())
        assert not found.notes["max_context"][own][~real].any()
    count = len(tokenizer(vocabulary).encode(CONTEXT, add_special_tokens=False).ids)
    assert seen == {0: count, 1: count, 2: 3}  # every piece exactly once


def test_a_question_is_cut_and_a_sequence_never_too_long(vocabulary: Vocabulary) -> None:
    asked = paragraph(CONTEXT, ("the plot of the film is so very good that it is not bad ?", ["good"]))
    found = encode_squad([asked], vocabulary, Shape(20, doc_stride=4, query_length=5), learn=True)
    assert found.lengths.max() == 20
    for window in range(len(found)):
        assert words(found, window, vocabulary)[6] == "[SEP]"


def test_the_batch_of_many_equals_each_alone(vocabulary: Vocabulary) -> None:
    many = reviews(300)
    whole = encode_squad(many, vocabulary, Shape(24, doc_stride=6), learn=True)
    alone = [encode_squad([one], vocabulary, Shape(24, doc_stride=6), learn=True) for one in many]
    assert np.array_equal(whole.input_ids, np.concatenate([one.input_ids for one in alone]))
    for name in ("start_positions", "end_positions"):
        assert np.array_equal(whole.labels[name], np.concatenate([one.labels[name] for one in alone]))
    assert int(whole.notes["questions"][0]) == 600


# Faults


def misplaced(start: int, text: str = "good") -> Paragraph:
    return Paragraph("", "the plot is good", (Question("q7", "?", (ReferenceAnswer(text, start),)),))


@pytest.mark.parametrize(
    ("start", "text"), [(0, "good"), (13, "good"), (-1, "good"), (99, "good"), (12, "goo d"), (3, " ")]
)
def test_an_answer_that_is_not_there_is_counted_or_refused(vocabulary: Vocabulary, start: int, text: str) -> None:
    good = paragraph("the plot is good", ("?", ["good"]))
    found = encode_squad([misplaced(start, text), good], vocabulary, Shape(32), learn=True, where="some.json")
    assert (len(found), int(found.notes["misplaced"][0]), int(found.notes["questions"][0])) == (1, 1, 2)
    with pytest.raises(UserError, match=rf"some\.json: question q7: the answer '{text}' does not stand at character"):
        encode_squad([misplaced(start, text)], vocabulary, Shape(32, strict=True), learn=True, where="some.json")


def test_white_space_within_an_answer_may_differ(vocabulary: Vocabulary) -> None:
    asked = Paragraph("", "the plot\tis good", (Question("q", "?", (ReferenceAnswer("plot is good", 4),)),))
    found = encode_squad([asked], vocabulary, Shape(32, strict=True), learn=True)
    assert int(found.labels["start_positions"][0]) > 0


def test_a_question_without_an_answer_cannot_be_learnt_from(vocabulary: Vocabulary) -> None:
    asked = Paragraph("", "the plot", (Question("q9", "?", ()),))
    with pytest.raises(UserError, match=r"x\.json: question q9 has no answer to learn from"):
        encode_squad([asked], vocabulary, Shape(32), learn=True, where="x.json")
    assert len(encode_squad([asked], vocabulary, Shape(32), learn=False)) == 1


def test_an_impossible_question_is_learnt_as_the_first_token(vocabulary: Vocabulary) -> None:
    found = encode_squad([paragraph("the plot", ("?", ()))], vocabulary, Shape(32), learn=True)
    assert found.labels["start_positions"].tolist() == found.labels["end_positions"].tolist() == [0]


def test_a_sequence_needs_room_beside_the_question(vocabulary: Vocabulary) -> None:
    asked = paragraph("the plot", ("is the film good and bad ?", ()))  # 7 pieces
    with pytest.raises(UserError, match=r"question q0-8 has 7 word pieces, which leaves no room .* in 10; raise -s"):
        encode_squad([asked], vocabulary, Shape(10), learn=False)
    assert len(encode_squad([asked], vocabulary, Shape(11), learn=False)) == 2


# Real data


def test_the_dev_set_makes_as_many_windows_as_googles_code(real_data: Path) -> None:
    """10,833 windows of 384 tokens: the inference set of MLPerf's BERT."""
    vocabulary = read_vocabulary(real_data / "vocab" / "bert-base-uncased-vocab.txt")
    found = encode_squad(read_squad(real_data / "squad" / "dev-v1.1.json"), vocabulary, Shape(384), learn=False)
    assert len(found) == 10_833
    assert found.lengths.max() == 384
