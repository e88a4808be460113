"""A pre-trained BERT that proposes words for masked places, on any backend whose engine has the head `pretraining`.

Legend: M masked positions, V vocabulary, A pieces of it that are whole words, K candidates of a place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.data.augmentation.masked import (
    MOST_MASKED,
    SHORTEST,
    SPECIAL_TOKENS,
    MaskedSequence,
    MaskingWay,
    batch_of,
    batches,
)
from bertkit.data.augmentation.texts import WordTable
from bertkit.data.augmentation.words import whole_words
from bertkit.distributed.world import World
from bertkit.engine.interface import BatchLimits, DrawnBatch, Engine, Limits
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.model.loading import ModelSource, starting_weights
from bertkit.model.vocabulary import Vocabulary
from bertkit.model.weights import Fit
from bertkit.recipes.recipe import Recipe
from bertkit.training.batch_limits import thinned
from bertkit.training.setup import ComputeTarget, choose_target, find_model, inference_job, warn_of
from bertkit.training.supply import Say, supply

HEAD = Head("pretraining", 2)
WORDS = "cls.predictions."  # begins the names of the masked words' head


@dataclass(frozen=True)
class MaskedWordModel:
    """A pre-trained model, read and checked, and where it will be computed."""

    source: ModelSource
    target: ComputeTarget
    fit: Fit
    recipe: Recipe  # with the length of the sequences

    @property
    def vocabulary(self) -> Vocabulary:
        return self.source.vocabulary

    @property
    def seq_length(self) -> int:
        """Maximum sequence length in tokens."""
        return self.recipe.data.seq_length

    @property
    def segments(self) -> int:
        """How many the model tells apart."""
        return self.source.config.type_vocab_size if self.vocabulary.segments else 1


def open_masked_model(recipe: Recipe, length: int | None, say: Say, dry_run: bool = False) -> MaskedWordModel:
    """The model `recipe.model.name` with its masked words' head. `length`: of sequences in tokens; None: the model's.

    `dry_run`: nothing is fetched, and the backend need not be ready.
    Raises UserError where the weights have no such head: its proposals would be random.
    """
    if length is not None and length < SHORTEST:
        raise UserError(f"sequences of {length} tokens have no room for a text twice", f"use -s {SHORTEST} or more")
    start = supply(recipe, None, say, may_fetch=not dry_run)
    if start.random:
        raise UserError("words that random weights propose mean nothing", "drop model.start=random")
    least = dataclasses.replace(recipe.data, seq_length=length or SHORTEST)  # the model's own is not known before it
    source = find_model(dataclasses.replace(recipe, data=least), start=start)
    if source.folder is None:
        raise UserError(f"{recipe.model.name} is a size without weights", "give a pre-trained model with -m")
    most = min(source.config.max_position_embeddings, source.vocabulary.longest or source.config.vocab_size)
    data = dataclasses.replace(recipe.data, seq_length=length or most)
    target = choose_target(recipe, HEAD, "masked words", training=False, dry_run=dry_run)
    if target.precision == "int8":
        raise UserError("int8 is not for masked words", "choose another precision with -d")
    fit = starting_weights(source, HEAD, recipe.seed)
    lacking = [name for name in (*fit.missing, *fit.reshaped) if name.startswith(WORDS)]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(
            f"{recipe.model.name}: has no head for masked words: its weights lack {lacking[0]}{more}",
            "give a pre-trained BERT with -m, as base, or a run of `bertkit train -t pretrain`",
        )
    warn_of(fit)
    return MaskedWordModel(source, target, fit, dataclasses.replace(recipe, data=data))


class MaskedWords:
    """The model on its device."""

    def __init__(
        self, model: MaskedWordModel, table: WordTable, count: int, way: MaskingWay, drawn: Sequence[MaskedSequence]
    ) -> None:
        """`count`: candidates of a place; `way`: how the sequences are made; `drawn`: some of those that will come."""
        self.table, self.model, self.size = table, model, model.recipe.evaluation.batch_size
        self.allowed = whole_words(model.vocabulary)  # (A,)
        self.column = np.full(len(model.vocabulary.pieces), -1, np.int64)  # (V,) of `allowed`
        self.column[self.allowed] = np.arange(len(self.allowed))
        self.count = candidate_count(model.vocabulary, count)
        self.engine: Engine = self._engine(way, drawn)

    def _engine(self, way: MaskingWay, drawn: Sequence[MaskedSequence]) -> Engine:
        model, table = self.model, self.table
        each = min(way.at_once, int(np.diff(table.first).max()))
        some = [[drawn[place] for place in places] for places in batches(drawn, self.size)]
        seen = [DrawnBatch(np.array([one.tokens for one in part]), masked_in(part)) for part in some]
        limits = BatchLimits(
            sequences=self.size,
            longest=2 * min(way.room, max(table.lengths)) + SPECIAL_TOKENS,
            masked=max(each, min(MOST_MASKED, self.size * each)),
            drawn=thinned(seen),
        )
        job = inference_job(model.recipe, HEAD, model.target, model.source, model.fit)
        return model.target.backend.engine(dataclasses.replace(job, limits=Limits((), (limits,))), World())

    def propose(
        self, sequences: Sequence[MaskedSequence], progress: Callable[[int], object] = lambda done: None
    ) -> dict[tuple[int, int], np.ndarray]:
        """(text, piece) -> (K,) ids of the candidates of each masked place, in the order of the ids.

        `progress` is called with how many places are done. Raises UserError where the numbers are not finite.
        """
        numbers = sorted({sequence.text for sequence in sequences})
        pieces = dict(zip(numbers, self.table.pieces_of(numbers), strict=True))
        found: dict[tuple[int, int], np.ndarray] = {}
        for places in batches(sequences, self.size):
            part = [sequences[place] for place in places]
            texts = [pieces[sequence.text] for sequence in part]
            batch = batch_of(part, texts, self.model.vocabulary, self.model.segments)
            logits = self.engine.predict(batch)["masked_logits"]
            named = [(sequence.text, piece) for sequence in part for piece in sequence.masked]
            own = np.array([pieces[text][piece] for text, piece in named])
            rows = best(logits[:, self.allowed], self.column[own], self.count)
            found |= dict(zip(named, self.allowed[rows], strict=True))
            progress(len(named))
        return found

    def close(self) -> None:
        """Free the device."""
        self.engine.close()


def candidate_count(vocabulary: Vocabulary, count: int) -> int:
    """K: `count`, or fewer where the vocabulary has fewer words. Raises UserError where it has no two."""
    most = len(whole_words(vocabulary)) - 1
    if most < 1:
        raise UserError(f"{vocabulary.path}: has no words of letters", "give a BERT's vocabulary")
    return min(count, most)


def best(logits: np.ndarray, own: np.ndarray, count: int) -> np.ndarray:
    """(M, A) logits of the words -> (M, K) the `count` likeliest in the order of their numbers.

    `own` (M,): the word that stands there, which is none of them; -1: it is none of the A.
    Raises UserError where a logit is not finite.
    """
    if not np.isfinite(logits).all():
        raise UserError(
            "masked words have logits that are not finite",
            "the weights are damaged, or the numbers too large for this precision: try -d fp32",
        )
    values = logits.copy()
    rows = np.flatnonzero(own >= 0)
    values[rows, own[rows]] = -np.inf
    found: np.ndarray = np.sort(np.argpartition(-values, count - 1, axis=1)[:, :count], axis=1)
    return found


def masked_in(sequences: Sequence[MaskedSequence]) -> int:
    """Masked places."""
    return sum(len(sequence.masked) for sequence in sequences)
