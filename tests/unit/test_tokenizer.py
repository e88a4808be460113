"""`bertkit.model.tokenizer` on a vocabulary made by hand, and against what Google's own code wrote for MRPC."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.task import Shape
from bertkit.errors import UserError
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import LONGEST_WORD, Vocabulary, casing_warning
from tfrecord_reader import read_tfrecord

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the quick brown fox cafe un ##aff ##able a ##a b ##b don ' t , . ! 中 国 tea ##s Tea".split()
LOWER = [*SPECIAL, *WORDS[:-1]]


def write(folder: Path, pieces: Sequence[str], end: str = "\n") -> Path:
    path = folder / "vocab.txt"
    path.write_bytes("".join(piece + end for piece in pieces).encode())
    return path


@pytest.fixture
def uncased(tmp_path: Path) -> Vocabulary:
    return read_vocabulary(write(tmp_path, LOWER))


def pieces_of(vocabulary: Vocabulary, features: Features) -> list[str]:
    return [vocabulary.pieces[number] for number in features.input_ids]


def cut(vocabulary: Vocabulary, text: str) -> str:
    """The pieces of one text between [CLS] and [SEP], with a space between them."""
    features = encode(vocabulary, [text], None, {}, 512)
    found = pieces_of(vocabulary, features)
    assert (found[0], found[-1]) == ("[CLS]", "[SEP]")
    return " ".join(found[1:-1])


def pair(vocabulary: Vocabulary, first: str, second: str, length: int) -> tuple[str, list[int]]:
    features = encode(vocabulary, [first], [second], {}, length)
    return " ".join(pieces_of(vocabulary, features)), features.token_type_ids.tolist()


# Vocabularies


def test_a_line_is_a_piece(tmp_path: Path) -> None:
    vocabulary = read_vocabulary(write(tmp_path, LOWER))
    assert vocabulary.pieces == tuple(LOWER)
    assert read_vocabulary(write(tmp_path, LOWER, "\r\n")).digest == vocabulary.digest
    assert read_vocabulary(write(tmp_path, [*LOWER[:-1], "x\u2028y"])).pieces[-1] == "x\u2028y"
    assert read_vocabulary(write(tmp_path, LOWER[::-1])).digest != vocabulary.digest


def test_casing_comes_from_the_vocabulary_the_config_or_the_user(tmp_path: Path) -> None:
    path = write(tmp_path, LOWER)
    assert read_vocabulary(path).lower_case  # the upper case of [CLS] does not count
    assert not read_vocabulary(path, "cased").lower_case
    write(tmp_path, [*LOWER, "Tea"])
    assert not read_vocabulary(path).lower_case
    assert read_vocabulary(path, "uncased").lower_case
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"do_lower_case": True}))
    assert read_vocabulary(path).lower_case
    assert not read_vocabulary(path, "cased").lower_case
    config.write_text("{}")
    assert not read_vocabulary(path).lower_case  # back to what the vocabulary says
    for broken in ("{", "[]", '{"do_lower_case": "yes"}', "[" * 5000, '{"x": %s}' % ("9" * 5000)):
        config.write_text(broken)
        with pytest.raises(UserError, match=r"tokenizer_config\.json"):
            read_vocabulary(path)


def test_casing_that_does_not_fit_is_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, LOWER)
    assert casing_warning(read_vocabulary(path, "uncased")) is None
    said = casing_warning(read_vocabulary(path, "cased"))
    assert said is not None
    assert f"{path} is an uncased vocabulary" in said
    assert "model.casing=uncased" in said
    write(tmp_path, [*LOWER, "Tea"])
    assert casing_warning(read_vocabulary(path, "cased")) is None
    said = casing_warning(read_vocabulary(path, "uncased"))
    assert said is not None
    assert f"{path} is a cased vocabulary" in said
    assert "model.casing=cased" in said


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocab\.txt: no vocabulary: no such file"):
        read_vocabulary(tmp_path / "vocab.txt")


@pytest.mark.parametrize("lost", [SPECIAL, ["[MASK]"], ["[UNK]", "[SEP]"]])
def test_missing_specials_are_named(tmp_path: Path, lost: list[str]) -> None:
    path = write(tmp_path, [piece for piece in LOWER if piece not in lost])
    with pytest.raises(UserError) as caught:
        read_vocabulary(path)
    assert caught.value.cause == f"{path}: lacks {', '.join(lost)}"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lacks \[PAD\]"):
        read_vocabulary(write(tmp_path, []))


def test_of_a_doubled_line_the_last_counts_and_that_is_said(tmp_path: Path) -> None:
    path = write(tmp_path, [*SPECIAL, "tea", "milk", "", "tea", "milk", "", "jam"])
    vocabulary = read_vocabulary(path)
    assert vocabulary.warnings == (
        f"{path}:9: 'tea' stands there twice, first in line 6, as do 2 more pieces; the last line counts",
    )
    assert encode(vocabulary, ["tea milk jam"], None, {}, 8).input_ids.tolist() == [2, 8, 9, 11, 3]


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, LOWER)
    path.write_bytes(path.read_bytes() + "café\n".encode("latin-1"))
    with pytest.raises(UserError, match=f"{path}: not UTF-8 at byte"):
        read_vocabulary(path)


# Words


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The QUICK fox", "the quick fox"),
        ("unaffable", "un ##aff ##able"),
        ("unknown", "[UNK]"),  # "un" is there, the rest is not: the whole word is unknown
        ("Café CAFE\u0301", "cafe cafe"),  # composed and combined
        ("don't!", "don ' t !"),
        ("tea中国tea", "tea 中 国 tea"),
        ("te\x00a\ufffd t\x07ea", "tea tea"),  # control characters vanish
        ("te\u200da", "tea"),  # so does what joins without a width
        ("tea\ttea\r\ntea\u00a0tea\u3000tea", "tea tea tea tea tea"),  # spaces of all kinds
        ("  ", ""),
        ("", ""),
        ("tea[MASK]tea", "tea [MASK] tea"),
    ],
)
def test_words_uncased(uncased: Vocabulary, text: str, wanted: str) -> None:
    assert cut(uncased, text) == wanted


def test_words_cased(tmp_path: Path) -> None:
    cased = read_vocabulary(write(tmp_path, [*LOWER, "Tea", "##é"]))
    assert cut(cased, "Tea tea TEA aé") == "Tea tea [UNK] a ##é"


def test_a_word_that_is_too_long_is_unknown(uncased: Vocabulary) -> None:
    assert LONGEST_WORD == 100
    assert cut(uncased, "a" * 100) == "a" + " ##a" * 99
    assert cut(uncased, "a" * 101) == "[UNK]"
    assert cut(uncased, f"tea {'a' * 500}, tea") == "tea [UNK] , tea"


# Encoding


def test_one_text_and_two(uncased: Vocabulary) -> None:
    features = encode(uncased, ["the fox", "tea"], None, {"labels": np.array([1, 0])}, 16)
    assert pieces_of(uncased, features) == "[CLS] the fox [SEP] [CLS] tea [SEP]".split()
    assert features.cu_seqlens.tolist() == [0, 4, 7]
    assert not features.token_type_ids.any()
    assert features.labels["labels"].tolist() == [1, 0]
    assert pair(uncased, "the fox", "teas", 16) == ("[CLS] the fox [SEP] tea ##s [SEP]", [0, 0, 0, 0, 1, 1, 1])
    assert pair(uncased, "tea", "", 16) == ("[CLS] tea [SEP] [SEP]", [0, 0, 0, 1])


def test_the_longer_text_is_cut_first(uncased: Vocabulary) -> None:
    long, short = "a a a a a a a a", "b b"
    assert pair(uncased, long, short, 10)[0] == "[CLS] a a a a a [SEP] b b [SEP]"
    assert pair(uncased, short, long, 10)[0] == "[CLS] b b [SEP] a a a a a [SEP]"
    assert pair(uncased, long, long.replace("a", "b"), 9)[0] == "[CLS] a a a [SEP] b b b [SEP]"  # both cut
    assert pair(uncased, long, short, 13)[0] == "[CLS] a a a a a a a a [SEP] b b [SEP]"  # fits exactly
    assert pair(uncased, long, short, 13)[1] == [0] * 10 + [1] * 3


@pytest.mark.parametrize("length", [3, 4, 5, 8, 11, 64])
def test_nothing_is_longer_than_asked(uncased: Vocabulary, length: int) -> None:
    texts = ["a " * n for n in (1, 3, 9, 70)]
    one = encode(uncased, texts, None, {}, length)
    assert one.lengths.tolist() == [min(length, n + 2) for n in (1, 3, 9, 70)]
    two = encode(uncased, texts, texts[::-1], {}, length)
    assert two.lengths.tolist() == [min(length, n + 3) for n in (71, 12, 12, 71)]
    ends = [pieces_of(uncased, two)[end - 1] for end in two.cu_seqlens[1:]]
    assert ends == ["[SEP]"] * 4


def test_no_texts_at_all(uncased: Vocabulary) -> None:
    features = encode(uncased, [], None, {}, 8)
    assert len(features) == 0
    assert features.input_ids.dtype == np.int32


def test_many_texts_are_encoded_in_parts_with_progress(uncased: Vocabulary) -> None:
    seen: list[int] = []
    features = encode(uncased, ["tea", "the fox"] * 2500, None, {}, 8, seen.append)
    assert seen == [4096, 5000]
    assert features.lengths.tolist() == [3, 4] * 2500
    assert pieces_of(uncased, features)[-4:] == "[CLS] the fox [SEP]".split()


# Real data


def test_real_vocabularies_tell_their_casing(real_data: Path) -> None:
    uncased = read_vocabulary(real_data / "vocab" / "bert-base-uncased-vocab.txt")
    cased = read_vocabulary(real_data / "vocab" / "bert-base-cased-vocab.txt")
    assert (len(uncased.pieces), uncased.lower_case) == (30522, True)
    assert (len(cased.pieces), cased.lower_case) == (28996, False)
    assert casing_warning(uncased) is None
    assert casing_warning(cased) is None


def test_mrpc_is_encoded_as_googles_code_did(real_data: Path) -> None:
    golden = list(read_tfrecord(real_data / "tfrecord" / "mrpc_eval.tf_record"))
    task = find_task("mrpc")
    vocabulary = read_vocabulary(real_data / "vocab" / "bert-base-uncased-vocab.txt")
    (part,) = read_split(task, real_data / "glue", "dev", vocabulary, Shape(128))
    features = part.features
    assert len(golden) == len(features) == 408
    for number, row in enumerate(golden):
        batch = features.batch(np.array([number]))
        padding = [0] * (128 - len(batch["input_ids"]))
        assert batch["input_ids"].tolist() + padding == row["input_ids"], number
        assert batch["token_type_ids"].tolist() + padding == row["segment_ids"], number
        assert [1] * len(batch["input_ids"]) + padding == row["input_mask"], number
        assert batch["labels"].tolist() == row["label_ids"], number
