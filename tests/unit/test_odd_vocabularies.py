"""Vocabularies with rules of their own in pre-training: words, masks and shards have the ids of their tokenizer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.encoding import encode
from bertkit.data.pretraining.formats.parquet import look, read
from bertkit.data.pretraining.formats.rows import Rows
from bertkit.data.pretraining.formats.shards import find_shards
from bertkit.data.pretraining.formats.writers import write_parquet
from bertkit.data.pretraining.masking import pieces_of
from bertkit.data.pretraining.prepare.fast_wordpiece import WordCache
from bertkit.data.pretraining.prepare.work import Settings, plan_work
from bertkit.errors import UserError
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import SPECIAL, AddedToken, Vocabulary

LETTERS = "abcdeé中国0123456789"
WORDS = ["tea", "covid", "new", "york", "e1", "café", "cafe", "中国", "##s", "[", "]", ".", "<", ">", "unk", "s"]
PIECES = tuple(dict.fromkeys([*SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]))
SIZE = len(PIECES)
PLAIN = Vocabulary(Path("vocab.txt"), PIECES, True)
ADDED = (
    AddedToken("covid", PIECES.index("covid"), single_word=True),
    AddedToken("[E1]", SIZE, special=True, normalized=False),
    AddedToken("New York", SIZE + 1, lstrip=True, rstrip=True),
)
NAMES = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
VOCABULARIES: dict[str, Vocabulary] = {
    "plain": PLAIN,
    "accents kept": dataclasses.replace(PLAIN, strip_accents=False),
    "Chinese not split": dataclasses.replace(PLAIN, split_chinese=False),
    "not cleaned": dataclasses.replace(PLAIN, clean_text=False),
    "added": dataclasses.replace(PLAIN, pieces=(*PIECES, "[E1]", "New York"), added=ADDED, word_pieces=SIZE),
    "renamed": dataclasses.replace(PLAIN, pieces=(*NAMES, *PIECES[5:]), special=NAMES),
    "doubled": dataclasses.replace(PLAIN, pieces=(*PIECES, "tea", "", "covid", "[SEP]")),
}
ODD = st.lists(
    st.one_of(
        st.sampled_from(
            "tea teas covid covid19 Covid New York new [E1] tea[E1]s [e1] café CAFÉ 中国 中tea <unk> <s>  .".split()
        ),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Zs", "Cc"]), min_size=1, max_size=5),
    ),
    max_size=8,
)


@pytest.fixture(params=VOCABULARIES)
def odd(request: pytest.FixtureRequest) -> Vocabulary:
    return VOCABULARIES[request.param]


@settings(deadline=None, max_examples=60)
@given(ODD)
def test_words_have_the_tokenizers_ids(words: list[str]) -> None:
    for name, vocabulary in VOCABULARIES.items():
        sentence = " ".join(" ".join(words).split())
        memory, library = WordCache(vocabulary), tokenizer(vocabulary, names_are_text=True)
        for _ in range(2):  # new, and remembered
            (found,) = memory.encode([sentence])
            wanted = library.encode(sentence, add_special_tokens=False).ids
            assert np.frombuffer(found, memory.dtype).tolist() == wanted, name


def test_special_pieces_are_known_by_their_roles(odd: Vocabulary) -> None:
    ids = {
        role: len(odd.pieces) - 1 - odd.pieces[::-1].index(name)
        for role, name in zip(SPECIAL, odd.special, strict=True)
    }
    pieces = pieces_of(odd)
    assert (pieces.size, pieces.mask, pieces.special) == (len(odd.pieces), ids["[MASK]"], (ids["[CLS]"], ids["[SEP]"]))
    features = encode(odd, ["tea"], ["qqq"], {}, 8)
    tea = odd.ids["tea"]
    assert features.input_ids.tolist() == [ids["[CLS]"], tea, ids["[SEP]"], ids["[UNK]"], ids["[SEP]"]]


def test_parquet_reads_the_ids_that_were_written(odd: Vocabulary, tmp_path: Path) -> None:
    ids = sorted(number for piece, number in odd.ids.items() if " " not in piece)
    cls, sep = (odd.special_ids[role] for role in ("[CLS]", "[SEP]"))
    tokens = np.array([cls, *ids, sep, *ids[::-1], sep])
    rows = Rows(
        tokens, np.array([0, len(tokens)]), np.array([len(ids) + 2]), np.array([1]), np.empty(0, np.int32),
        np.empty(0, np.int32), np.array([0, 0]),
    )  # fmt: skip
    write_parquet(tmp_path / "part.0.parquet", rows, odd, False, None)
    (file,) = find_shards(tmp_path)
    found = read(look(file).file, odd)
    assert found.input_ids.tolist() == tokens.tolist()
    assert found.second.tolist() == rows.second.tolist()


def test_a_token_with_a_space_is_refused_in_parquet(tmp_path: Path) -> None:
    def work(format: Any) -> Any:
        kind = "dynamic" if format == "parquet" else "static"
        return plan_work(
            Settings(format, 32, kind, True, 0.1, 1, 0.15, 5, False, 0, 1, 1, True), VOCABULARIES["added"], (), tmp_path
        )

    with pytest.raises(UserError, match=r"'New York' of vocab\.txt has a space in it"):
        work("parquet")
    assert work("hdf5").shards == 1
