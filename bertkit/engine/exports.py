"""A trained model in other programs' formats: what writes one, and which there are.

A format is a plug-in (entry points in `bertkit.exports`); the core imports none of them until it is asked for.

Legend: B sequences, S length that they are padded to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

import numpy as np

from bertkit.engine.interface import Arrays, Precision, Setting
from bertkit.errors import UserError, nearest
from bertkit.files.entry_points import by_name, load
from bertkit.model.config import Head, HeadKind, ModelConfig

GROUP = "bertkit.exports"
EXPORTED_HEADS: tuple[HeadKind, ...] = ("classification", "multilabel", "regression", "choice", "tokens", "span")
# input_ids, token_type_ids and attention_mask, each (B, S) int32, to what `Engine.predict` names, float32: logits
# (B, C); tokens: logits (B, S, C); span: start_logits and end_logits (B, S). What stands at padding means nothing.
PaddedModel = Callable[[Mapping[str, np.ndarray]], Arrays]


@dataclass(frozen=True)
class TextRules:
    """How a run makes tokens of texts, and answers of logits."""

    tokenizer: str  # as tokenizer.json holds it
    lower_case: bool
    seq_length: int  # maximum sequence length in tokens
    doc_stride: int  # tokens from one window over a long context to the next
    query_length: int  # most tokens of a question
    n_best: int
    longest: int  # maximum answer length in tokens
    null_threshold: float | None  # "no answer" where it beats the best answer by more than this; None: never
    temperature: float = 1.0  # what logits are divided by before they become probabilities
    thresholds: tuple[float, ...] = ()  # of each label, where there are several; (): .5


@dataclass(frozen=True)
class ExportedModel:
    """What is written: an encoder with its head."""

    config: ModelConfig
    head: Head
    weights: Mapping[str, np.ndarray]  # complete, under Hugging Face's names, float32
    precision: Precision  # to compute in
    task: str = "model"  # its name
    labels: tuple[str, ...] = ()  # in the order of the logits; (): they have no names
    pad: int = 0  # the id of [PAD]
    texts: TextRules | None = None  # None: the run knew no words
    settings: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # of the format, all of them
    scales: Mapping[str, np.ndarray] = field(default_factory=dict)  # int8: as `Job.scales`


class ExportFormat(Protocol):
    """One format. Importing it imports no framework."""

    name: str  # as --format takes it
    title: str  # a few words
    precisions: tuple[Precision, ...]
    heads: tuple[HeadKind, ...]
    settings: Mapping[str, Setting]  # reached as --option NAME=VALUE

    def check(self) -> None:
        """Raises UserError where what it needs is not installed."""

    def versions(self) -> Mapping[str, str]:
        """Of the packages that write and load it, as far as they are installed."""

    def write(self, model: ExportedModel, folder: Path) -> None:
        """Into the folder, which is there and empty. Raises UserError for what the format cannot hold."""

    def load(self, folder: Path) -> PaddedModel | None:
        """What was written, as its own runtime loads and computes it; None: `write` has read it back, and there is no
        runtime here to compute it."""


def format_names() -> tuple[str, ...]:
    """Of all formats that are installed; none is imported."""
    return tuple(_points())


def find_format(name: str) -> ExportFormat:
    """Raises UserError for a format that there is not, naming those there are."""
    points = _points()
    if name not in points:
        has = f"there are {', '.join(points)}" if points else "none is installed"
        raise UserError(f"--format {name!r} is not known: {has}", nearest(name, points) if points else "install one")
    return _load(points[name])


def _points() -> dict[str, list[EntryPoint]]:
    return by_name(entry_points(group=GROUP))


def _load(points: list[EntryPoint]) -> ExportFormat:
    def make(form: Callable[[], ExportFormat]) -> ExportFormat:
        return form()

    return load(points, "format", make)
