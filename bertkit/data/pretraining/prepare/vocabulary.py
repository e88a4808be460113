"""A vocabulary of word pieces trained on text, by the trainer of the `tokenizers` library.

The most frequent pair of neighbouring pieces becomes a piece, and so on (Sennrich et al. 2016), written as WordPiece:
what Hugging Face's `BertWordPieceTokenizer` does, since Google published no trainer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from bertkit.data.pretraining.prepare.sources import CorpusFile, part_bytes, plan
from bertkit.data.pretraining.prepare.texts import Notes, documents
from bertkit.errors import UserError
from bertkit.model.tokenizer import empty_tokenizer
from bertkit.model.vocabulary import SPECIAL

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MOST_CHARACTERS = 1000  # kept, the most frequent; a word with another becomes [UNK]
PASSES = 2  # over the text: its characters, then its pairs

Tell = Callable[[int], object]


def learn(sources: Sequence[CorpusFile], size: int, lower_case: bool, least: int, tell: Tell) -> tuple[str, ...]:
    """At most `size` pieces: the special ones, characters, then by frequency. The same text gives the same.

    `least`: how often a pair must be met to become a piece. `tell` hears of each byte of text `PASSES` times.
    Raises UserError where `size` has no room for the text's characters.
    """
    from tokenizers.trainers import WordPieceTrainer

    made = empty_tokenizer(lower_case)
    first, inner = _characters(made, _sentences(sources, tell))
    begin = [*SPECIAL, *first, *inner]
    if len(begin) > size:
        raise UserError(
            f"--size {size:,} has no room for the text's characters, which are {len(begin):,} pieces",
            f"ask for {2 * len(begin):,} or more",
        )
    trainer = WordPieceTrainer(
        vocab_size=size,
        min_frequency=least,
        limit_alphabet=len(first),
        initial_alphabet=first,
        special_tokens=[*SPECIAL, *inner],  # else the library numbers the inner ones by chance, and so breaks ties
        show_progress=False,
    )
    made.train_from_iterator(_sentences(sources, tell), trainer)
    ids = made.get_vocab()
    return (*begin, *sorted(ids.keys() - set(begin), key=ids.__getitem__))


def _characters(made: Tokenizer, texts: Iterator[list[str]]) -> tuple[list[str], list[str]]:
    """The text's characters at the start of a word, and with ## those that can stand within one, each in order."""
    counts: Counter[str] = Counter()
    for sentences in texts:
        counts.update(made.normalizer.normalize_str("\n".join(sentences)))
    common = sorted((-count, character) for character, count in counts.items() if not character.isspace())
    kept = sorted(character for _, character in common[:MOST_CHARACTERS])
    within = (word for word in kept if len(made.pre_tokenizer.pre_tokenize_str(f"a{word}a")) == 1)
    return kept, [f"##{word}" for word in within]


def _sentences(sources: Sequence[CorpusFile], tell: Tell) -> Iterator[list[str]]:
    """Those of each document."""
    for part in chain.from_iterable(plan(sources)):
        source = sources[part.source]
        yield from documents(source.path, source.format, part.start, part.stop, Notes())
        tell(part_bytes(part, sources))
