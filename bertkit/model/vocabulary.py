"""The vocabulary of a model: its word pieces, the roles some of them have, and how text is cut into them.

Plain values, without the `tokenizers` library and without a file read: `tokenizer.py` and
`tokenizer_files.py` have these.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from bertkit.errors import UserError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # BERT's names for the five roles
LONGEST_WORD = 100  # characters; a longer word becomes [UNK], as in Hugging Face's and Google's tokenizers
FILLER = "\n"  # starts a piece that stands for no word: it fills an id so that those behind it keep theirs
Casing = Literal["auto", "cased", "uncased"]
GOOGLES_SPECIAL: Mapping[str, int] = dict(zip(SPECIAL, (0, 100, 101, 102, 103), strict=True))
VARIANT = f"WordPiece: drops characters of categories Cc, Cf and Co, words over {LONGEST_WORD} characters become [UNK]"
# Pieces that look special say nothing of the casing: [unused1], <S>, <T>, {x}
LOOKS_SPECIAL = re.compile(r"\[.*\]|<.*>|\{.*\}|\(.*\)", re.DOTALL)
STRAY = 0.02  # capitals in fewer of the pieces with letters are strays in a lower-cased vocabulary
CLEAR = 0.1  # capitals in so many leave no doubt that it is a cased one (bert-base-cased: 0.31)
# Tokenizers that cut text as BERT's does
BERTS_TOKENIZERS = frozenset({"Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "SqueezeBert", "LayoutLM"})


@dataclass(frozen=True)
class AddedToken:
    """A text that is one token wherever it stands, found before words are. The flags are the `tokenizers` library's."""

    content: str
    number: int | None = None  # its id; None: that of the vocabulary, or the next free one
    special: bool = False
    normalized: bool = True  # looked for in the text after lower-casing, not before
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False

    @property
    def flags(self) -> tuple[bool, ...]:
        return (self.special, self.normalized, self.single_word, self.lstrip, self.rstrip)


@dataclass(frozen=True)
class Vocabulary:
    """The word pieces of a model in the order of their ids, and how text is cut into them."""

    path: Path
    pieces: tuple[str, ...]  # added tokens are the last; "" where an id has none
    lower_case: bool
    has_words: bool = True  # False: only how many pieces there are is known, and where the special ones stand
    strip_accents: bool | None = None  # None: where words are lower-cased
    split_chinese: bool = True  # each Chinese character is a word
    clean_text: bool = True  # control characters vanish, spaces of all kinds become one
    special: tuple[str, ...] = SPECIAL  # the pieces in these roles
    added: tuple[AddedToken, ...] = ()  # but for special ones as every BERT has them
    word_pieces: int | None = None  # how many of the pieces words are made of; None: all
    segments: bool = True  # False: the second of two texts is in segment 0 like the first
    longest: int | None = None  # tokens that the tokenizer's settings allow, where they say it
    keys: Mapping[str, Any] = field(default_factory=dict, compare=False)  # of tokenizer_config.json, for writing
    warnings: tuple[str, ...] = field(default=(), compare=False)  # what was odd in the files, in sentences

    @cached_property
    def ids(self) -> Mapping[str, int]:
        """Piece -> id."""
        return ids_of(self.pieces)

    @cached_property
    def special_ids(self) -> Mapping[str, int]:
        """[PAD], [UNK], [CLS], [SEP], [MASK] -> id of the piece that has this role."""
        return {role: self.ids[piece] for role, piece in zip(SPECIAL, self.special, strict=True)}

    @property
    def plain(self) -> bool:
        """Whether text is cut as Google's and Hugging Face's published BERTs cut it, but for the casing."""
        return self.rules == Vocabulary(self.path, (), True).rules

    @property
    def rules(self) -> tuple[Any, ...]:
        """All that shapes ids beside pieces and casing."""
        added = tuple((token.content, token.number, *token.flags) for token in self.added)
        return self.strip_accents, self.split_chinese, self.clean_text, self.special, added, self.segments

    @property
    def digest(self) -> str:
        """SHA-256 of the pieces in order, and of the rules where they are not the usual ones.

        Line ends and the file's place do not matter.
        """
        found = hashlib.sha256("\n".join(self.pieces).encode())
        if not self.plain:
            found.update(json.dumps([self.word_pieces, *self.rules]).encode())
        return found.hexdigest()

    @property
    def variant(self) -> str:
        """How text is cut, in words."""
        said = [VARIANT]
        said += [] if self.strip_accents is None else [f"strip_accents {self.strip_accents}"]
        said += [] if self.split_chinese else ["Chinese characters are not split"]
        said += [] if self.clean_text else ["text is not cleaned"]
        said += [] if self.special == SPECIAL else [f"special: {' '.join(self.special)}"]
        said += [f"{len(self.added)} added tokens"] if self.added else []
        said += [] if self.segments else ["one segment"]
        return "; ".join(said)


def ids_of(pieces: Sequence[str]) -> dict[str, int]:
    """Piece -> id; of a piece that stands there twice the last."""
    return {piece: number for number, piece in enumerate(pieces) if piece}


def all_added(vocabulary: Vocabulary) -> list[AddedToken]:
    """The added tokens with the special ones, in the order of their ids."""
    own = {token.content for token in vocabulary.added}
    usual = [
        AddedToken(p, vocabulary.ids[p], special=True, normalized=False) for p in vocabulary.special if p not in own
    ]
    return sorted([*vocabulary.added, *usual], key=lambda token: token.number or 0)


def without_words(rows: int, path: Path) -> Vocabulary:
    """For data that is ids already: `rows` pieces, the special ones where Google's English vocabularies have them."""
    special = {number: token for token, number in GOOGLES_SPECIAL.items()}
    pieces = tuple(special.get(number, f"[{number}]") for number in range(rows))
    return Vocabulary(path, pieces, lower_case=True, has_words=False)


def check_class(name: object, where: object) -> str:
    """The class of a tokenizer, without `Fast`. Raises UserError where it does not cut text as BERT's does."""
    if name is None:
        return ""
    plain = name.removesuffix("Fast") if isinstance(name, str) else ""
    if plain.removesuffix("Tokenizer") in BERTS_TOKENIZERS or plain in ("PreTrainedTokenizer", "TokenizersBackend"):
        return plain
    raise UserError(f"{where}: tokenizer_class is {name!r}, not 'BertTokenizer'", "bertkit has BERT's WordPiece only")


def guess_lower_case(path: Path, pieces: Sequence[str]) -> tuple[bool, str | None]:
    """Whether words are lower-cased, by the vocabulary alone; and a sentence where that leaves doubt."""
    letters, capitals = count_capitals(pieces)
    lower = capitals < STRAY * letters or not capitals
    if letters and (not capitals or capitals >= CLEAR * letters):
        return lower, None
    why = f"{capitals:,} of its {letters:,} pieces with letters have capitals" if letters else "it has no letters"
    return lower, (
        f"no file says the casing of {path}: taken as {'uncased' if lower else 'cased'}, since {why}; "
        f"--set model.casing={'cased' if lower else 'uncased'} if it is not so"
    )


def count_capitals(pieces: Sequence[str]) -> tuple[int, int]:
    """(pieces with letters that have a case, those of them with a capital), pieces that look special left out."""
    words = [piece for piece in pieces if not LOOKS_SPECIAL.fullmatch(piece)]
    capitals = sum(piece != piece.lower() for piece in words)
    return capitals + sum(piece == piece.lower() != piece.upper() for piece in words), capitals


def casing_warning(vocabulary: Vocabulary) -> str | None:
    """A sentence where casing and vocabulary do not fit together, else None."""
    letters, capitals = count_capitals(vocabulary.pieces)
    upper = capitals >= STRAY * letters and capitals > 0
    if vocabulary.lower_case and upper:
        return f"{vocabulary.path} is a cased vocabulary but words are lower-cased; --set model.casing=cased mends it"
    if not vocabulary.lower_case and letters and not upper:
        return (
            f"{vocabulary.path} is an uncased vocabulary but words keep their case, so capitals become [UNK]; "
            "--set model.casing=uncased mends it"
        )
    return None
