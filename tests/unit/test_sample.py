"""`bertkit.data.tasks.sample`: the built-in task is the same everywhere, is fair, and is not won by counting words."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.encoding import encode
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.sample import BAD, GOOD, ROWS, SAMPLE, write_sample
from bertkit.data.tasks.tabular import TableFormat
from bertkit.data.tasks.task import Shape, SplitName
from bertkit.model.tokenizer import tokenizer
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import SPECIAL

SHA256 = {
    "train.tsv": "aaa6af7f63b95132926924abccfee35ba84ffb51349cdb0fa51975fbf394e7db",
    "dev.tsv": "9f4eb4524f096bdd6e383bd8d06cb4a58062125b5c175e3379aa81740f234977",
    "test.tsv": "11b85ef71d3e5767d155a03433f344dbce6cb9ae69a8c1e83da03130ceb4569a",
}
SPLITS: tuple[SplitName, ...] = ("train", "dev", "test")


def examples(folder: Path, split: SplitName) -> tuple[list[str], np.ndarray]:
    table, one = SAMPLE.format, SAMPLE.splits[split][0]
    assert isinstance(table, TableFormat)
    found = table.examples_of(SAMPLE, folder / "sample" / one.file, split, one)
    return list(found.first), np.array([]) if found.labels is None else found.labels


def test_the_files_are_the_same_on_every_machine(sample_dir: Path, tmp_path: Path) -> None:
    again = write_sample(tmp_path)
    assert again == tmp_path / "sample"
    for name, digest in SHA256.items():
        assert hashlib.sha256((sample_dir / "sample" / name).read_bytes()).hexdigest() == digest, name
    assert {path.name for path in again.iterdir()} == {*SHA256, "vocab.txt"}
    for path in again.iterdir():
        assert path.read_bytes() == (sample_dir / "sample" / path.name).read_bytes()


def test_no_text_stands_twice(sample_dir: Path) -> None:
    texts = [text for split in SPLITS for text in examples(sample_dir, split)[0]]
    assert len(texts) == len(set(texts)) == sum(ROWS.values())


@pytest.mark.parametrize("split", ["train", "dev"])
def test_classes_are_balanced(sample_dir: Path, split: SplitName) -> None:
    texts, labels = examples(sample_dir, split)
    assert len(texts) == len(labels) == ROWS[split]
    assert set(labels.tolist()) == {0, 1}
    assert labels.mean() == pytest.approx(0.5, abs=0.05)


def test_the_test_set_shows_no_labels(sample_dir: Path) -> None:
    assert len(examples(sample_dir, "test")[1]) == 0


@pytest.mark.parametrize("draw", [0, 1], ids=["draws are bad", "draws are good"])
def test_counting_words_does_not_win(sample_dir: Path, draw: int) -> None:
    texts, labels = examples(sample_dir, "dev")
    words = [text.split() for text in texts]
    score = np.array([sum(w in GOOD for w in one) - sum(w in BAD for w in one) for one in words])
    said = np.where(score == 0, draw, score > 0)
    assert 0.5 < (said == labels).mean() < 0.75


def test_every_word_has_an_encoding(sample_dir: Path) -> None:
    vocabulary = read_vocabulary(sample_dir / "sample" / "vocab.txt")
    assert vocabulary.lower_case
    assert vocabulary.pieces[: len(SPECIAL)] == SPECIAL
    unknown = vocabulary.pieces.index("[UNK]")
    for split in SPLITS:
        texts, _ = examples(sample_dir, split)
        features = encode(vocabulary, texts, None, {}, 512)
        assert unknown not in features.input_ids
        words = [len(text.split()) for text in texts]
        assert (features.lengths - 2).tolist() == words  # every word is a piece of its own


def test_any_text_of_letters_and_digits_has_an_encoding(sample_dir: Path) -> None:
    made = tokenizer(read_vocabulary(sample_dir / "sample" / "vocab.txt"))
    assert "[UNK]" not in made.encode('Zygotes (42x), "quartz": 7-ply; why? so!').tokens


def test_the_task_is_read_like_any_other(sample_dir: Path) -> None:
    vocabulary = read_vocabulary(sample_dir / "sample" / SAMPLE.vocab)
    (part,) = read_split(SAMPLE, sample_dir, "dev", vocabulary, Shape(64, rows=10))
    assert len(part.features) == 10
    assert part.name == ""
    assert part.sha256 == SHA256["dev.tsv"]
