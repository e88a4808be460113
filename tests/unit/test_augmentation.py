"""Words that are replaced: which, in what form, by what; what stays as it was; masked sequences; vectors."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.augmentation.masked import MaskedSequence, MaskingWay, batch_of, batches, masked_sequences
from bertkit.data.augmentation.task_files import open_task_file
from bertkit.data.augmentation.texts import WordTable, is_protected
from bertkit.data.augmentation.variants import ReplaceableWord, copies
from bertkit.data.augmentation.vectors import WordVectors, read_vectors
from bertkit.data.augmentation.words import SEVERAL, in_case_of, may_replace, whole_words
from bertkit.data.tasks.squad.reader import Question, ReferenceAnswer, read_squad
from bertkit.data.tasks.squad.task import SQUAD
from bertkit.errors import UserError
from bertkit.model.vocabulary import SPECIAL, Vocabulary
from squad_files import paragraph, write_squad

WORDS = ("film", "cafe", "movie", "owner", "don", "long", "great", "story", "naive", "film", "the", "x", "owners")
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz'\",.-")
PIECES = (*SPECIAL, *dict.fromkeys(WORDS), *LETTERS[:23], *LETTERS[24:], *(f"##{letter}" for letter in LETTERS[:26]))
VOCABULARY = Vocabulary(Path("vocab.txt"), PIECES, lower_case=True)


def table(*texts: str, protected: tuple[tuple[int, int], ...] = ()) -> WordTable:
    made = WordTable(VOCABULARY)
    made.add({text: [protected] for text in texts})
    return made


def words(text: str, protected: tuple[tuple[int, int], ...] = ()) -> list[str]:
    """The words that may be replaced; those of several pieces with a star."""
    found = table(text, protected=protected).words(0)
    return [text[word.start : word.end] + ("*" if word.piece == SEVERAL else "") for word in found]


# ---- which words ----


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The Film was  a GREAT film.", ["Film", "GREAT", "film"]),
        ("a café, the cafe\u0301 and naïve", ["café", "naïve"]),  # an accent of its own is dropped by the tokenizer
        ("don't O'Neill owner's owners' film", ["owner", "owners", "film"]),
        ("it does n't, she 's long, ca n't", ["long"]),
        ("long-story film2 fi\u200blm [MASK] 3", ["long", "story", "MASK*"]),
        ("plan x movies", ["plan*", "movies*"]),
        ("", []),
        (" \t ", []),
    ],
)
def test_words_of_letters_that_are_no_stop_words(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_words_that_are_protected_wherever_a_text_stands_are_not_asked_for() -> None:
    assert words("great film, long story", ((6, 10), (12, 13))) == ["great", "story"]
    made = WordTable(VOCABULARY)
    made.add({"great film": [((0, 5),), ((0, 10),)]})
    assert [word.start for word in made.words(0)] == [6]
    assert [is_protected(6, 10, spans) for spans in ((), ((0, 6),), ((9, 12),), ((10, 12),))] == [0, 0, 1, 0]


def test_candidates_are_words_of_letters_that_are_no_stop_words() -> None:
    names = [PIECES[number] for number in whole_words(VOCABULARY)]
    assert names == ["film", "cafe", "movie", "owner", "don", "long", "great", "story", "naive", "owners"]
    assert [may_replace(word) for word in ("because", "b", "ß", "film2", "中")] == [False, False, True, False, True]


@pytest.mark.parametrize(
    ("word", "replacement", "made"),
    [
        ("film", "story", "story"),
        ("Film", "story", "Story"),
        ("FILM", "story", "STORY"),
        ("iFilm", "story", "story"),
        ("É", "story", "Story"),
    ],
)
def test_a_replacement_takes_the_case_form(word: str, replacement: str, made: str) -> None:
    assert in_case_of(word, replacement) == made


# ---- copies ----


def replaceable(text: str, *options: str, takes_case: bool = True) -> list[ReplaceableWord]:
    return [ReplaceableWord(one.start, one.end, options, takes_case) for one in table(text).words(0)]


def test_a_cased_vocabulary_keeps_its_own_capitals() -> None:
    (copy,) = copies(["Great FILM"], [replaceable("Great FILM", "Paris", takes_case=False)], 1, 1.0, "")
    assert copy[0].text == "Paris Paris"


def test_copies_follow_from_seed_example_and_text_alone() -> None:
    text = "great film, long story"
    found = replaceable(text, "movie", "owner", "cafe")

    def made(key: str, count: int = 20) -> list[str]:
        return [copy[0].text for copy in copies([text], [found], count, 0.4, key)]

    assert made("1 0") == made("1 0")
    assert made("1 0")[: len(made("1 0", 5))] == made("1 0", 5)
    assert made("1 0") != made("1 1")
    assert made("1 0") != made("2 0")
    assert len({*made("1 0"), text}) == len(made("1 0")) + 1, "a copy stands there once, and the example itself never"


def test_the_texts_of_a_pair_vary_independently() -> None:
    text = "great film"
    pair = [text, text]
    found = replaceable(text, "movie", "owner", "cafe", "story")
    drawn = [(one.replaced, other.replaced) for one, other in copies(pair, [found, found], 400, 0.5, "1 7")]
    alone = [(bool(one), bool(other)) for one, other in drawn]
    assert {(True, False), (False, True), (True, True)} <= set(alone)
    firsts = {one for one, _ in drawn}
    assert len(firsts) > 15, "of 25: the first text does not stay as its last variant"
    same = sum([r.word for r in one] == [r.word for r in other] for one, other in drawn)
    assert same < len(drawn) / 5


def test_the_share_of_words_that_are_replaced() -> None:
    text = " ".join(["great", "film"] * 200)
    made = copies([text], [replaceable(text, "movie", "story")], 20, 0.3, "1 0")
    assert np.mean([len(copy[0].replaced) for copy in made]) == pytest.approx(120, abs=8)


TEXT = st.text(st.sampled_from("FILMfilm Great story\u0301é'-.,\n\t\U0001f600中ßİ\u200b"), max_size=60)


@given(TEXT, st.floats(0.01, 1.0), st.integers(0, 99))
def test_text_outside_the_replaced_words_is_unchanged(text: str, share: float, seed: int) -> None:
    found = replaceable(text, "movie", "a longer one")
    for (varied,) in copies([text], [found], 3, share, str(seed)):
        spans = [(one.start, one.end) for one in varied.replaced]
        assert spans == sorted(spans)
        assert {*spans} <= {(word.start, word.end) for word in found}
        ends = [0, *itertools.chain.from_iterable(spans), len(text)]
        kept = [text[one:other] for one, other in zip(ends[::2], ends[1::2], strict=True)]
        new = [one.word for one in varied.replaced]
        assert varied.text == "".join(itertools.chain(*itertools.zip_longest(kept, new, fillvalue="")))
        for place in range(len(text)):
            if not any(start <= place < end for start, end in spans):
                assert varied.text[varied.moved(place)] == text[place]


# ---- SQuAD ----


PARTS = ("great", "Film", "STORY", "café", "\U0001f600", "中国", "don't", "long-story", ".", "e\u0301")


@st.composite
def contexts(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A context and the spans of answers in it."""
    parts = st.sampled_from(PARTS)
    context = draw(st.sampled_from([" ", "  ", "\n"])).join(draw(st.lists(parts, min_size=1, max_size=12)))
    spans = []
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(context) - 1))
        spans.append((start, draw(st.integers(start + 1, len(context)))))
    return context, [span for span in spans if context[slice(*span)].strip()]


@given(contexts(), st.integers(0, 99))
def test_answers_stand_where_a_copy_says(found: tuple[str, list[tuple[int, int]]], seed: int) -> None:
    context, spans = found
    protected = tuple(spans)
    options = [
        ReplaceableWord(one.start, one.end, ("movie", "owners", "x"))
        for one in table(context).words(0)
        if not is_protected(one.start, one.end, protected)
    ]
    for (varied,) in copies([context], [options], 4, 0.6, str(seed)):
        for start, end in spans:
            moved = varied.moved(start)
            assert varied.text[moved : moved + end - start] == context[start:end]


def test_copies_of_a_squad_file(tmp_path: Path) -> None:
    """Contexts are varied, ids are new, what has no answer says so, and the second of two equal words may be one."""
    first = paragraph("The film is a film. \U0001f600 Great!", ("what ?", ["film"]), ("who ?", ()))
    written = write_squad(tmp_path / "in.json", [first, paragraph("Nothing here", ("why ?", ["here"]))], version2=True)
    source = open_task_file(SQUAD[1], written)
    examples = list(source.examples())
    assert [one.protected for one in examples] == [((4, 8),), ((8, 12),)]
    words = [ReplaceableWord(14, 18, ("owners",)), ReplaceableWord(22, 27, ("x",))]
    varied = copies([first.context], [words], 2, 1.0, "")
    source.write(tmp_path / "out.json", [(examples[0], varied), (examples[1], [])])
    made = list(read_squad(tmp_path / "out.json"))
    assert [one.context for one in made] == [first.context, "The film is a owners. \U0001f600 X!", "Nothing here"]
    ids = [[question.id for question in one.questions] for one in made]
    assert ids[1] == [f"{name}-aug1" for name in ids[0]]
    assert [question.impossible for question in made[1].questions] == [False, True]
    assert made[1].questions[0].answers == (ReferenceAnswer("film", 4),)


def test_a_squad_file_that_is_augmented_already(tmp_path: Path) -> None:
    plain = paragraph("A film", ("what ?", ["film"]))
    again = Question(f"{plain.questions[0].id}-aug3", "what ?", plain.questions[0].answers)
    written = write_squad(tmp_path / "in.json", [plain, type(plain)("Title", "A film", (again,))])
    with pytest.raises(UserError, match="is augmented already: it has the id 'q0-6-aug3'"):
        list(open_task_file(SQUAD[0], written).examples())


# ---- masked sequences ----


def test_a_masked_text_stands_before_the_same_text() -> None:
    made = table("great film")
    (sequence,) = masked_sequences(0, 2, [1], MaskingWay(64))
    batch = batch_of([sequence], made.pieces_of([0]), VOCABULARY, 2)
    names = [PIECES[number] for number in batch["input_ids"]]
    assert names == ["[CLS]", "great", "[MASK]", "[SEP]", "great", "film", "[SEP]"]
    assert batch["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert batch["masked_positions"].tolist() == [2]
    assert batch_of([sequence], made.pieces_of([0]), VOCABULARY, 1)["token_type_ids"].tolist() == [0] * 7


@given(st.integers(1, 300), st.integers(11, 64), st.integers(1, 5), st.randoms(use_true_random=False))
def test_each_word_of_a_long_text_is_masked_once_where_it_stands(
    length: int, seq_length: int, at_once: int, random: np.random.Generator
) -> None:
    pieces = sorted(random.sample(range(length), min(length, 40)))
    way = MaskingWay(seq_length, at_once)
    found = list(masked_sequences(3, length, pieces, way))
    assert sorted(piece for one in found for piece in one.masked) == pieces
    text = np.arange(length) + 100  # no special ids
    batch = batch_of(found, [text] * len(found), VOCABULARY, 2)
    assert np.diff(batch["cu_seqlens"]).max() <= seq_length
    second = [batch["input_ids"][start:] for start in batch["cu_seqlens"][:-1]]
    at = iter(batch["masked_positions"].tolist())
    for one, ids, start in zip(found, second, batch["cu_seqlens"], strict=False):
        assert len(one.masked) <= at_once
        for piece in one.masked:
            place = next(at)
            assert batch["input_ids"][place] == VOCABULARY.special_ids["[MASK]"]
            behind = place - start - 1 + (one.end - one.start) + 2
            assert ids[behind] == 100 + piece, "the same place of the whole text"
            if length > way.room:  # as much context on either side as there is
                least = min(piece - one.start, one.end - 1 - piece)
                assert least >= min(way.room // 4 - 1, piece, length - 1 - piece)


def test_words_that_are_masked_together_are_no_neighbours() -> None:
    found = list(masked_sequences(0, 20, range(20), MaskingWay(64, 4)))
    assert [one.masked for one in found] == [tuple(range(start, 20, 5)) for start in range(5)]
    assert found[0] == MaskedSequence(0, 0, 20, (0, 5, 10, 15))


def test_batches_are_of_like_length_and_of_few_masked_positions() -> None:
    sequences = [MaskedSequence(number, 0, number % 7 + 1, tuple(range(400))) for number in range(20)]
    found = list(batches(sequences, 64))
    assert [len(part) for part in found] == [2] * 10
    assert sorted(place for part in found for place in part) == list(range(20))
    lengths = [sequences[place].tokens for part in found for place in part]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(part) for part in batches([MaskedSequence(0, 0, 3, (1,))] * 5, 2)] == [2, 2, 1]
    assert list(batches([MaskedSequence(0, 0, 5000, tuple(range(5000)))], 2)) == [[0]]


# ---- vectors ----

ROWS = "the 1 0\nfilm 1 0.1\nmovie 1 0.2\nFilm 1 0.1\nstory 0 1\n. 1 0.1\nnovel 0.1 1\nbook 0.2 1\n"


@pytest.mark.parametrize("header", ["", "8 2\n"])
def test_the_nearest_words_by_cosine(tmp_path: Path, header: str) -> None:
    (tmp_path / "v.txt").write_text(header + ROWS)
    vectors = read_vectors(tmp_path / "v.txt")
    assert vectors.words == ("film", "movie", "Film", "story", "novel", "book")
    found = vectors.nearest(["film", "story", "absent"], 2)
    assert found == {"film": ("movie", "book"), "story": ("novel", "book")}


def test_the_nearest_are_those_of_all_cosines() -> None:
    stream = np.random.default_rng(1)
    rows = stream.normal(size=(500, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = tuple(f"w{chr(97 + number % 26)}{chr(97 + number // 26)}" for number in range(500))
    found = WordVectors(names, rows).nearest(names[:100], 5)
    for number in range(100):
        order = np.argsort(-(rows @ rows[number]), kind="stable")
        assert found[names[number]] == tuple(names[place] for place in order if place != number)[:5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no word vectors; give word vectors as text"),
        ("film\n", "v.txt:1: is no word with its numbers"),
        ("film 1 2\nmovie 1\n", "v.txt:2: is no word with 2 numbers"),
        ("film 1 2\nmovie 1 x\n", "v.txt:2: holds something that is no number"),
        ("film 1 nan\n", "the vector of 'film' is not finite"),
        (". 1 2\nthe 1 2\nfilm 0 0\n", "has no vector of a word of letters"),
    ],
)
def test_broken_vectors_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(UserError, match=said):
        read_vectors(tmp_path / "v.txt")
