"""A BERT's encoder in Python: `load_encoder(model).embed(texts)`, `.embed_tokens(texts)`.

Legend: N texts, T tokens, H hidden, K layers side by side, D = K H the width of an embedding.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, overload

import numpy as np

from bertkit.console import Display
from bertkit.data.encoding import encode
from bertkit.data.features import Features
from bertkit.data.sampler import by_length
from bertkit.distributed.world import World
from bertkit.engine.interface import Engine
from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig
from bertkit.model.loading import ModelSource, starting_weights
from bertkit.model.tokenizer import tokenizer
from bertkit.model.weights import Fit
from bertkit.recipes.keywords import from_keywords
from bertkit.recipes.recipe import Recipe, Value
from bertkit.recipes.resolve import resolve
from bertkit.training.run_task import run_settings
from bertkit.training.setup import ComputeTarget, choose_target, find_model, inference_job, warn_of
from bertkit.training.supply import Say, supply

Pooling = Literal["mean", "cls"]
POOLINGS: tuple[Pooling, ...] = ("mean", "cls")
AT_ONCE = 1024  # texts that are encoded, and sorted by length, together; bounds what is in memory
MOST_NUMBERS = 1 << 26  # of the hidden states that are kept at once: 256 MiB
TINY = 1e-12  # the least norm that a vector is divided by, as in torch's `normalize`


@dataclass(frozen=True)
class EncoderSetup:
    """A model whose encoder is wanted, read and checked, and where it will be computed."""

    source: ModelSource
    target: ComputeTarget
    fit: Fit
    head: Head
    layers: tuple[int, ...]  # (K,) as they were asked for


@dataclass(frozen=True)
class TokenEmbeddings:
    """A text's tokens, [CLS] and [SEP] among them, and the hidden states of each."""

    tokens: tuple[str, ...]  # (T,)
    ids: np.ndarray  # (T,) int32
    embeddings: np.ndarray  # (T, D) float32


@dataclass(frozen=True)
class EmbeddedTexts:
    """Some texts, one after another, and their embeddings."""

    texts: tuple[str, ...]
    embeddings: np.ndarray  # (N, D) float32


class Encoder:
    """A BERT's encoder on its device. Close it, or use it as a context manager, where several follow one another."""

    def __init__(self, setup: EncoderSetup, recipe: Recipe, engine: Engine) -> None:
        self.setup, self.engine = setup, engine
        self.seq_length, self.batch_size = recipe.data.seq_length, recipe.evaluation.batch_size
        self.full = 0  # texts so far that fill the maximum sequence length, so that they may be truncated

    @property
    def width(self) -> int:
        """D: values of an embedding, those of all layers."""
        return self.setup.head.outputs

    @property
    def layers(self) -> tuple[int, ...]:
        """(K,) the layers as they were asked for."""
        return self.setup.layers

    @overload
    def embed(self, texts: str, pooling: Pooling = ..., normalise: bool = ...) -> np.ndarray: ...
    @overload
    def embed(self, texts: Iterable[str], pooling: Pooling = ..., normalise: bool = ...) -> np.ndarray: ...
    def embed(self, texts: str | Iterable[str], pooling: Pooling = "mean", normalise: bool = False) -> np.ndarray:
        """(N, D) float32, a row for each text in their order; (D,) for a single text.

        `pooling`: "mean" over a text's tokens, [CLS] and [SEP] included, as sentence-transformers does; "cls": the
        first token's. `normalise`: to an L2 norm of 1.
        Raises UserError where a text is empty or none.
        """
        single = isinstance(texts, str)
        given = [texts] if isinstance(texts, str) else texts
        found = [part.embeddings for part in self.embed_parts(given, pooling, normalise)]
        rows = np.concatenate([np.empty((0, self.width), np.float32), *found])
        return rows[0] if single else rows

    def embed_tokens(self, texts: Sequence[str], normalise: bool = False) -> list[TokenEmbeddings]:
        """The hidden states of every token of each text, in their order. Raises UserError as `embed`."""
        return list(self.token_parts([texts] if isinstance(texts, str) else texts, normalise))

    def embed_parts(
        self,
        texts: Iterable[str],
        pooling: Pooling = "mean",
        normalise: bool = False,
        progress: Callable[[int], object] = lambda done: None,
    ) -> Iterator[EmbeddedTexts]:
        """As `embed`, piece by piece, in bounded memory. `progress` is called with how many texts are done."""
        if pooling not in POOLINGS:
            raise UserError(f"there is no pooling {pooling!r}", "choose " + " or ".join(POOLINGS))
        for part, features in self._encoded(texts, AT_ONCE):
            rows = np.empty((len(part), self.width), np.float32)
            for members, hidden, starts in self._hidden(features):
                rows[members] = pool(hidden, starts, pooling)
                progress(len(members))
            yield EmbeddedTexts(tuple(part), unit(rows) if normalise else rows)

    def token_parts(
        self,
        texts: Iterable[str],
        normalise: bool = False,
        progress: Callable[[int], object] = lambda done: None,
    ) -> Iterator[TokenEmbeddings]:
        """As `embed_tokens`, one after another, in bounded memory."""
        made = tokenizer(self.setup.source.vocabulary)
        at_once = min(AT_ONCE, max(1, MOST_NUMBERS // (self.seq_length * self.width)))
        for part, features in self._encoded(texts, at_once):
            found: list[np.ndarray] = [np.empty(0)] * len(part)
            for members, hidden, starts in self._hidden(features):
                for member, (start, end) in zip(members, itertools.pairwise(starts), strict=True):
                    found[member] = hidden[start:end]
                progress(len(members))
            for rows, (start, end) in zip(found, itertools.pairwise(features.cu_seqlens), strict=True):
                ids = features.input_ids[start:end]
                names = tuple(str(made.id_to_token(number)) for number in ids.tolist())
                yield TokenEmbeddings(names, ids, unit(rows) if normalise else rows)

    def _encoded(self, texts: Iterable[str], at_once: int) -> Iterator[tuple[list[str], Features]]:
        rows, first = iter(texts), 0
        while part := list(itertools.islice(rows, at_once)):
            for number, text in enumerate(part, first):
                check_text(text, f"text {number}")
            features = encode(self.setup.source.vocabulary, part, None, {}, self.seq_length)
            self.full += int((features.lengths == self.seq_length).sum())
            yield part, features
            first += len(part)

    def _hidden(self, features: Features) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(texts of a batch, hidden states (T, D) of their tokens, where each text's begin and the last's end)."""
        for members in by_length(features.sizes, self.batch_size):
            batch = features.batch(members)
            hidden = self.engine.predict(batch)["hidden"]
            if not np.isfinite(hidden).all():
                raise UserError(
                    "hidden states are not finite",
                    "the weights are damaged, or the numbers too large for this precision: try -d fp32",
                )
            yield members, hidden, batch["cu_seqlens"]

    def close(self) -> None:
        """Free the device; the encoder is not used afterwards."""
        self.engine.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def check_text(text: Any, place: str) -> None:
    """Raises UserError for what is no text, or an empty one: an embedding of nothing would go unnoticed."""
    if not isinstance(text, str):
        raise UserError(f"{place} is {type(text).__name__}, not a text", "give a str")
    if not text.strip():
        raise UserError(f"{place} is empty", "leave it out, or write a text")


def pool(hidden: np.ndarray, starts: np.ndarray, pooling: Pooling) -> np.ndarray:
    """(T, D) hidden states of texts that begin at `starts` (N + 1,) -> (N, D)."""
    first, counts = starts[:-1], np.diff(starts)[:, None].astype(np.float32)
    pooled: np.ndarray = hidden[first] if pooling == "cls" else np.add.reduceat(hidden, first) / counts
    return pooled


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row by its L2 norm."""
    divided: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), TINY)
    return divided


def layer_numbers(config: ModelConfig, wanted: Sequence[int]) -> tuple[int, ...]:
    """The layers from 0, the embeddings, to the last; of `wanted`, negative ones count from the last.

    Raises UserError for one that the model has not.
    """
    last = config.num_hidden_layers
    for number in wanted:
        if not -last <= number <= last:
            known = f"layers are 0 (the embeddings), 1 to {last}, or -1 to -{last}"
            raise UserError(f"the model has no layer {number}", known)
    if not wanted:
        raise UserError("no layer is named", "name one or more, as -1")
    return tuple(number if number >= 0 else last + 1 + number for number in wanted)


def open_encoder(recipe: Recipe, layers: Sequence[int], say: Say, dry_run: bool = False) -> EncoderSetup:
    """The encoder of `recipe.model.name`: any BERT's, whatever head stands on it. `dry_run`: nothing is fetched, and
    the backend need not be ready.

    Raises UserError where there are no weights, and for a layer that the model has not.
    """
    start = supply(recipe, None, say, may_fetch=not dry_run)
    if start.random:
        raise UserError("embeddings of random weights mean nothing", "drop model.start=random")
    source = find_model(recipe, start=start)
    numbers = layer_numbers(source.config, layers)
    head = Head("encoder", len(numbers) * source.config.hidden_size, numbers)
    target = choose_target(recipe, head, "embeddings", training=False, dry_run=dry_run)
    fit = starting_weights(source, head, recipe.seed)
    warn_of(fit)
    return EncoderSetup(source, target, fit, head, tuple(layers))


def start_encoder(recipe: Recipe, layers: Sequence[int], say: Say) -> Encoder:
    """The encoder of `recipe.model.name` on its device."""
    setup = open_encoder(recipe, layers, say)
    job = inference_job(recipe, setup.head, setup.target, setup.source, setup.fit)
    return Encoder(setup, recipe, setup.target.backend.engine(job, World()))


def encoder_settings(model: str) -> dict[str, Value]:
    """The settings that an encoder takes over where `model` is a run; of whatever task, known here or not."""
    told = run_settings(model, known_only=False)
    return {key: told[key] for key in ("precision", "data.seq_length", "model.casing") if key in told}


def load_encoder(
    model: str | Path,
    *,
    layers: int | Sequence[int] = -1,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **keywords: Any,
) -> Encoder:
    """The encoder of any BERT on a device: `backend=`, `precision=`, `seq_length=` and other settings as keywords.

    `layers`: whose hidden states are wanted, several side by side; -1: the last, 0: the embeddings, 1: the first.
    Raises UserError where the model has no weights, and for a layer that it has not.
    """
    chosen = from_keywords({**keywords, "model": str(model)}, settings, ("layers", "batch_size", "quiet"))
    chosen |= {"evaluation.batch_size": batch_size} if batch_size is not None else {}
    recipe = resolve(chosen, run=encoder_settings(str(model))).recipe
    return start_encoder(recipe, [layers] if isinstance(layers, int) else layers, Display(quiet=quiet).say)
