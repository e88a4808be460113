"""Which files of a data set of the model hub a name means."""

from __future__ import annotations

from pathlib import Path

import pytest

from bertkit.data.tables.hub_tables import HubTable, choose, table_path
from bertkit.errors import UserError

SHARDS = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
FILES = (*SHARDS, "data/validation-00000-of-00001.parquet", "data/test-00000-of-00001.parquet", "README.md", "x.py")
CONFIGS = ("de/train.csv", "de/dev.csv", "fr/train.csv", "fr/dev.csv.gz", "training_notes.md")


@pytest.mark.parametrize(
    ("names", "path", "split", "wanted", "pattern"),
    [
        (FILES, "", "train", SHARDS, "data/train-0000*-of-00002.parquet"),
        (FILES, "", "dev", FILES[2:3], FILES[2]),
        (FILES, "data", "test", FILES[3:4], FILES[3]),
        (FILES, FILES[3], "train", FILES[3:4], FILES[3]),
        (FILES, "data/train-*.parquet", "dev", SHARDS, "data/train-*.parquet"),
        (CONFIGS, "de", "train", ("de/train.csv",), "de/train.csv"),
        (CONFIGS, "fr", "dev", ("fr/dev.csv.gz",), "fr/dev.csv.gz"),
        (("train/a.jsonl", "train/b.jsonl", "val/a.jsonl"), "", "train", ("train/a.jsonl", "train/b.jsonl"),
         "train/*.jsonl"),
    ],
)  # fmt: skip
def test_files_are_chosen(names: tuple[str, ...], path: str, split: str, wanted: tuple[str, ...], pattern: str) -> None:
    assert choose(HubTable("me/set", "", path), names, split) == (wanted, pattern)


@pytest.mark.parametrize(
    ("names", "path", "split", "words"),
    [
        (CONFIGS, "", "train", r"several tables for train.*de/train.csv, fr/train.csv"),
        (FILES[:2], "", "dev", r"no table for dev.*data/train-00000"),
        (FILES, "data/trian-*", "train", "matches no table"),
        (("script.py", "README.md"), "", "train", "no code of a data set is run"),
        (("a/train.csv", "a/train.json"), "", "train", "several tables"),
    ],
)
def test_what_is_not_one_table_is_named(names: tuple[str, ...], path: str, split: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        choose(HubTable("me/set", "", path), names, split)


def test_other_names_are_paths() -> None:
    assert table_path("a.csv") == Path("a.csv")
    assert table_path("~/a.csv") == Path.home() / "a.csv"
    with pytest.raises(UserError, match="names no data set of the model hub"):
        table_path("hf://models/me/x")
