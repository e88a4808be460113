"""Fewer word pieces: texts of the corpus are cut as before, and every other text is still encoded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.corpus import corpus_files, count_pieces, texts_of
from bertkit.errors import UserError
from bertkit.model.config import ModelConfig
from bertkit.model.saving import write_tokenizer
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import read_vocabulary, write_vocabulary
from bertkit.model.vocabulary import SPECIAL, AddedToken, Vocabulary
from bertkit.model.vocabulary_pruning import keep_pieces, kept_ids, matched, needed_pieces

SINGLE = ("a", "b", "c", "##a", "##b", "##c", ".")
LONGER = ("ab", "abc", "##bc", "##ab", "##cab", "bca", "é", "##éa", "caé", "[unused0]")
WHOLE = Vocabulary(Path("vocab.txt"), (*SPECIAL, *LONGER, *SINGLE), lower_case=False)
COVERED = Vocabulary(Path("vocab.txt"), (*SPECIAL, *LONGER[:6], *SINGLE), lower_case=False)
WORDS = st.lists(st.text("abcé.", min_size=1, max_size=9), max_size=6).map(" ".join)
ANY = st.one_of(WORDS, st.text(st.characters(exclude_categories=["Cs"]), max_size=30))


def write(folder: Path, *texts: str) -> Path:
    (folder / "corpus.json").write_text(json.dumps(list(texts)), encoding="utf-8")
    return folder / "corpus.json"


def smaller(vocabulary: Vocabulary, file: Path, at_least: int = 1) -> Vocabulary:
    return keep_pieces(vocabulary, kept_ids(vocabulary, count_pieces(vocabulary, [file]).pieces, at_least))


def pieces(vocabulary: Vocabulary, text: str) -> list[str]:
    encoded = tokenizer(vocabulary).encode(text)
    assert [vocabulary.pieces[number] for number in encoded.ids] == encoded.tokens
    return list(encoded.tokens)


@given(st.lists(WORDS, min_size=1, max_size=5).filter(lambda texts: any(map(str.strip, texts))))
def test_texts_of_the_corpus_are_cut_as_before(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """[UNK] included: a word that finds no end does not become another word."""
    made = smaller(WHOLE, write(tmp_path_factory.getbasetemp(), *texts))
    for text in texts:
        assert pieces(made, text) == pieces(WHOLE, text)


@given(WORDS.filter(str.strip), ANY, st.integers(1, 3))
def test_any_other_text_is_encoded_and_no_word_becomes_unknown(
    tmp_path_factory: pytest.TempPathFactory, corpus: str, text: str, at_least: int
) -> None:
    """Where each character is a piece."""
    made = smaller(COVERED, write(tmp_path_factory.getbasetemp(), corpus), at_least)
    now, before = pieces(made, text), pieces(COVERED, text)
    assert now.count("[UNK]") <= before.count("[UNK]")
    if "[UNK]" not in before:
        assert "".join(now).replace("##", "") == "".join(before).replace("##", "")


def test_what_stays_whatever_the_texts_are() -> None:
    needed = needed_pieces(WHOLE)
    named = [{WHOLE.pieces[number] for number in ids} for ids in (needed.special, needed.characters, needed.bound)]
    assert named == [set(SPECIAL), {*SINGLE, "é"}, {"##éa", "caé", "[unused0]"}]
    assert needed_pieces(COVERED).bound == frozenset()


def test_a_word_without_an_end_stays_unknown(tmp_path: Path) -> None:
    """Without `ab`, the word would be `a ##bd` and no longer [UNK]."""
    vocabulary = Vocabulary(Path("vocab.txt"), (*SPECIAL, "a", "ab", "##bd", "b", "##b", "ba", "##a"), lower_case=True)
    counts = count_pieces(vocabulary, [write(tmp_path, "abd abd b")])
    assert (counts.unknown, counts.texts, counts.pieces[6]) == (2, 1, 2)
    made = keep_pieces(vocabulary, kept_ids(vocabulary, counts.pieces, 1))
    assert "ba" not in made.pieces
    assert pieces(made, "ABD b") == ["[CLS]", "[UNK]", "b", "[SEP]"]


@given(st.text("abcé", min_size=1, max_size=12))
def test_matched_is_the_librarys_rule(word: str) -> None:
    found, known = pieces(WHOLE, word)[1:-1], list(matched(word, set(WHOLE.pieces)))
    assert known == found if found != ["[UNK]"] else "".join(known).replace("##", "") != word
    assert list(matched("a" * 101, set(WHOLE.pieces))) == []


def test_pieces_that_occur_too_rarely_go(tmp_path: Path) -> None:
    counts = count_pieces(COVERED, [write(tmp_path, "ab bca ab ab bca")])
    assert [COVERED.pieces[n] for n in kept_ids(COVERED, counts.pieces, 3)] == [*SPECIAL, "ab", *SINGLE]
    assert counts.tokens == 5


def test_added_tokens_stay_behind_the_pieces_and_files_are_read_back(tmp_path: Path) -> None:
    names = ("<pad>", *SPECIAL[1:])
    vocabulary = Vocabulary(
        tmp_path / "vocab.txt", (*names, *LONGER, "", *SINGLE, "ab", "<brand>"), lower_case=True, special=names,
        added=(AddedToken("<brand>", 24, single_word=True),), word_pieces=24, split_chinese=False,
    )  # fmt: skip
    made = smaller(vocabulary, write(tmp_path, "abc <brand> ab"))
    assert made.pieces == (*names, "abc", *LONGER[6:], *SINGLE, "ab", "<brand>")
    assert [(token.content, token.number) for token in made.added] == [("<brand>", len(made.pieces) - 1)]
    write_vocabulary(tmp_path / "vocab.txt", made, added=False)
    write_tokenizer(tmp_path, ModelConfig(8, 1, 1, 8), made)
    read = read_vocabulary(tmp_path / "vocab.txt")
    assert (read.pieces, read.rules, read.lower_case) == (made.pieces, made.rules, True)
    text = "Abc <brand> ab!"
    assert pieces(read, text) == pieces(made, text) == ["[CLS]", "abc", "<brand>", "ab", "[UNK]", "[SEP]"]


def test_texts_are_found_in_files_of_every_kind(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('one "two\t1\n\n  three\n', encoding="utf-8")
    with gzip.open(tmp_path / "b.txt.gz", "wt", encoding="utf-8") as file:
        file.write("café\nlast")
    (tmp_path / "c.json").write_text(json.dumps({"data": [{"text": "caf\u00e9", "n": 1, "more": ["x", None]}]}))
    (tmp_path / "d.jsonl").write_text('{"a": "x y"}\n{"a": ["z"]}\n', encoding="utf-8")
    assert list(texts_of(tmp_path / "a.tsv")) == ['one "two 1', "three"]
    assert list(texts_of(tmp_path / "b.txt.gz")) == ["café", "last"]
    assert sorted(texts_of(tmp_path / "c.json")) == ["café", "x"]
    assert list(texts_of(tmp_path / "d.jsonl")) == ["x y", "z"]
    assert [path.name for path in corpus_files([tmp_path / "*.json*"])] == ["c.json", "d.jsonl"]
    (tmp_path / "e.jsonl").write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    (tmp_path / "f.txt").write_bytes(b"caf\xe9\n")
    for name, said in (("e.jsonl", "text 2"), ("f.txt", "not UTF-8"), ("absent.txt", "absent.txt")):
        with pytest.raises(UserError, match=said):
            list(texts_of(tmp_path / name))


def test_texts_are_found_in_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pa.table({"a": ["x y", None], "n": [1, 2], "l": [["z"], []]}), tmp_path / "t.parquet")
    assert sorted(texts_of(tmp_path / "t.parquet")) == ["x y", "z"]
    counts = count_pieces(COVERED, [tmp_path / "t.parquet"])
    assert (counts.texts, counts.unknown, int(np.sum(counts.pieces))) == (2, 3, 3)
