"""`bertkit data vocabulary`: pieces that are the same for the same text, and that `data prepare` takes."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.pretraining.prepare.sources import find_sources
from bertkit.data.pretraining.prepare.vocabulary import learn
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import SPECIAL
from conftest import Run, assert_one_line_error

SYLLABLES = ("ka", "to", "mi", "ré", "Lu", "ben", "o", "st")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    stream = random.Random(0)  # noqa: S311
    words = ["".join(stream.choices(SYLLABLES, k=stream.randint(1, 3))) for _ in range(200)]
    for name in ("a.txt", "b.txt"):
        texts = [" ".join(stream.choices(words, k=8)) + "!" for _ in range(400)]
        (folder / name).write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return folder


def test_the_same_text_gives_the_same_file_and_prepare_takes_it(corpus: Path, tmp_path: Path, bertkit: Run) -> None:
    for name in ("one", "other"):
        done = bertkit("data", "vocabulary", corpus, "-o", tmp_path / name / "vocab.txt", "--size", 120)
        assert done.returncode == 0, done.stderr
    first, second = ((tmp_path / name / "vocab.txt").read_bytes() for name in ("one", "other"))
    assert first == second
    pieces = first.decode().split("\n")[:-1]
    assert tuple(pieces[:5]) == SPECIAL
    assert len(pieces) == len(set(pieces)) == 120
    assert "é" not in pieces
    assert pieces[-1].strip("#").isalpha()
    assert len(pieces[-1].strip("#")) > 1
    done = bertkit("data", "prepare", corpus, "-o", tmp_path / "out", "--vocab", tmp_path / "one/vocab.txt")
    assert done.returncode == 0, done.stderr


def test_case_is_kept_where_it_is_asked_for(corpus: Path, tmp_path: Path, bertkit: Run) -> None:
    file = tmp_path / "vocab.txt"
    done = bertkit("data", "vocabulary", corpus, "-o", file, "--size", 5000, "--cased", "--json")
    said = json.loads(done.stdout)
    vocabulary = read_vocabulary(file)
    assert (said["pieces"], said["cased"], said["sha256"]) == (len(vocabulary.pieces), True, vocabulary.digest)
    assert not vocabulary.lower_case
    assert {"é", "L"} <= set(vocabulary.pieces)
    assert "no more pairs" in done.stderr
    assert len(vocabulary.pieces) < 5000


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60), min_size=1, max_size=8))
def test_every_word_of_the_text_has_its_pieces(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    folder = tmp_path_factory.mktemp("text")
    (folder / "text.txt").write_text("\n".join(["begin here", *lines]), encoding="utf-8")
    pieces = learn(find_sources([folder], "raw"), 2000, True, 2, lambda read: None)
    assert len(pieces) == len(set(pieces))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    made = tokenizer(read_vocabulary(folder / "vocab.txt", "uncased"))
    assert "[UNK]" not in made.encode("\n".join(lines).replace("[UNK]", ""), add_special_tokens=False).tokens


def test_what_cannot_be_made_leaves_nothing(corpus: Path, tmp_path: Path, bertkit: Run) -> None:
    file = tmp_path / "vocab.txt"
    assert_one_line_error(bertkit("data", "vocabulary", corpus, "-o", file, "--size", 20), "no room", "ask for")
    assert_one_line_error(bertkit("data", "vocabulary", tmp_path, "-o", file), "no text in it")
    assert_one_line_error(bertkit("data", "vocabulary", corpus, "-o", tmp_path), "is a folder")
    (tmp_path / "broken.txt").write_bytes(b"a \xff b")
    assert_one_line_error(bertkit("data", "vocabulary", tmp_path / "broken.txt", "-o", file), "broken.txt")
    assert not file.exists()
    assert_one_line_error(
        bertkit("data", "vocabulary", corpus, "-o", tmp_path / "broken.txt" / "vocab.txt"), "broken.txt"
    )
    file.write_text("mine")
    assert_one_line_error(bertkit("data", "vocabulary", corpus, "-o", file), "--overwrite")
    assert file.read_text() == "mine"
