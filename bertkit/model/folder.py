"""A model's folder, but for its weights: configuration and vocabulary, checked against each other.

Every command that is given a model reads it through here, so that all of them honour or refuse the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.inputs import exists, read_object
from bertkit.model.config import READ, ModelConfig, from_mapping, told_of_keys
from bertkit.model.vocabulary import Vocabulary

CONFIGS = ("config.json", "bert_config.json")
ANOTHER = "give a folder with a BERT's config.json"
# Pieces of published vocabularies: one of these beside the rows of another is a mistake, not padding
PUBLISHED = {30522: "uncased", 28996: "cased", 21128: "chinese", 105879: "multilingual uncased", 119547: "multilingual"}


@dataclass(frozen=True)
class Configuration:
    """A configuration file."""

    path: Path
    model: ModelConfig
    keys: Mapping[str, Any]  # as they stand there
    warnings: tuple[str, ...]


def find_config(folder: Path) -> Path:
    """The folder's `config.json`, else its `bert_config.json`. Raises UserError where there is neither."""
    for name in CONFIGS:
        if exists(folder / name):
            return folder / name
    raise UserError(f"{folder}: holds no config.json", "give the folder of a pre-trained BERT")


def read_configuration(folder: Path) -> Configuration:
    """The folder's configuration; where it has two that differ, transformers' counts and that is said."""
    path = find_config(folder)
    keys = read_object(path, ANOTHER)
    model, told = from_mapping(keys, str(path)), list(told_of_keys(keys, READ, str(path)))
    other = folder / CONFIGS[1]
    if path.name == CONFIGS[0] and exists(other):
        theirs = read_object(other, ANOTHER)
        odd = [key for key in READ if key in theirs and key in keys and theirs[key] != keys[key]]
        told += [f"{path} and {other.name} differ in {', '.join(sorted(odd))}; the first counts"] if odd else []
    return Configuration(path, model, keys, tuple(told))


def check_fit(vocabulary: Vocabulary, config: ModelConfig, folder: Path) -> tuple[str, ...]:
    """Sentences on rows that no piece has. Raises UserError where there are fewer rows than pieces."""
    pieces, rows = len(vocabulary.pieces), config.vocab_size
    if pieces > rows or (pieces != rows and {pieces, rows} <= PUBLISHED.keys()):
        raise UserError(
            f"{vocabulary.path} has {pieces} word pieces but the model in {folder} has {rows} embeddings",
            "give the vocabulary that this model was trained with (--set model.vocab=FILE)",
        )
    if pieces == rows:
        return ()
    padding = next((size for size in (8, 16, 32, 64, 128) if rows == pieces + -pieces % size), 0)
    why = f", padding to a multiple of {padding}" if padding else ""
    return (
        f"{folder} has {rows - pieces:,} more embeddings than {vocabulary.path} has pieces{why}: no text uses them",
    )


def check_pad(vocabulary: Vocabulary, keys: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """A sentence where the configuration has another [PAD] than the vocabulary."""
    said = keys.get("pad_token_id")
    own = vocabulary.special_ids["[PAD]"]
    if said is None or not vocabulary.has_words or (said == own and type(said) is int):
        return ()
    return (f"{where} says pad_token_id {said!r}, but {vocabulary.path} has [PAD] at {own}; nothing is padded with it",)
