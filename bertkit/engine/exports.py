"""A trained model in other programs' formats: what writes one, and which there are.

The formats are those of the installed backends' frameworks, found on their cards; the core imports no framework.

Legend: B sequences, S length that they are padded to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from bertkit.engine.interface import Arrays, Precision
from bertkit.engine.registry import installed
from bertkit.errors import UserError, nearest
from bertkit.model.config import Head, HeadKind, ModelConfig

# input_ids, token_type_ids and attention_mask, each (B, S) int32, to what `Engine.predict` names, float32: logits
# (B, C); tokens: logits (B, S, C); span: start_logits and end_logits (B, S). What stands at padding means nothing.
PaddedModel = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclass(frozen=True)
class ExportedModel:
    """What is written: an encoder with its head."""

    config: ModelConfig
    head: Head
    weights: Mapping[str, np.ndarray]  # complete, under Hugging Face's names, float32
    precision: Precision  # to compute in


class ExportFormat(Protocol):
    """One format. Importing it imports no framework."""

    name: str  # as --format takes it
    title: str  # a few words
    precisions: tuple[Precision, ...]
    heads: tuple[HeadKind, ...]

    def check(self) -> None:
        """Raises UserError where what it needs is not installed."""

    def write(self, model: ExportedModel, folder: Path) -> None:
        """Into the folder, which is there and empty."""

    def load(self, folder: Path) -> PaddedModel:
        """What was written, as its own runtime loads and computes it."""


@runtime_checkable
class Exports(Protocol):
    """What a backend's card may have besides."""

    exports: tuple[ExportFormat, ...]


def export_formats() -> dict[str, ExportFormat]:
    """Name -> format, of all installed backends."""
    cards = (card for card in installed().values() if isinstance(card, Exports))
    return {form.name: form for card in cards for form in card.exports}


def find_format(name: str) -> ExportFormat:
    """Raises UserError for a format that there is not, naming those there are."""
    found = export_formats()
    if name not in found:
        has = f"there are {', '.join(found)}" if found else "no installed backend has one"
        raise UserError(f"--format {name!r} is not known: {has}", nearest(name, found) if found else "install one")
    return found[name]
