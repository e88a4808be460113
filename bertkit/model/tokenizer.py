"""WordPiece by the `tokenizers` library, set up as Hugging Face's BertTokenizer, and encoding into Features.

Legend: T tokens of all examples, N examples.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bertkit.errors import UserError
from bertkit.files.disk import write_json, write_text
from bertkit.model.tokenizer_files import ids_of, read_files
from bertkit.model.tokenizer_json import FILLER
from bertkit.model.tokenizer_json import LONGEST_WORD as LONGEST_WORD
from bertkit.model.tokenizer_settings import ROLES, AddedToken
from bertkit.model.tokenizer_settings import SPECIAL as SPECIAL

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Casing = Literal["auto", "cased", "uncased"]
GOOGLES_SPECIAL: Mapping[str, int] = dict(zip(SPECIAL, (0, 100, 101, 102, 103), strict=True))
VARIANT = f"WordPiece: drops characters of categories Cc, Cf and Co, words over {LONGEST_WORD} characters become [UNK]"
# Pieces that look special say nothing of the casing: [unused1], <S>, <T>, {x}
LOOKS_SPECIAL = re.compile(r"\[.*\]|<.*>|\{.*\}|\(.*\)", re.DOTALL)
# Keys of a read tokenizer_config.json that its writing makes anew, or that tell of the place it was read from
NAMED_SPECIAL = (*ROLES, "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
NOT_KEPT = (
    "tokenizer_file", "vocab_file", "special_tokens_map_file", "full_tokenizer_file", "name_or_path", "is_local",
    "local_files_only", "never_split", "clean_text",
)  # fmt: skip
STRAY = 0.02  # capitals in fewer of the pieces with letters are strays in a lower-cased vocabulary
CLEAR = 0.1  # capitals in so many leave no doubt that it is a cased one (bert-base-cased: 0.31)


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


def read_vocabulary(path: Path, casing: Casing = "auto") -> Vocabulary:
    """A `vocab.txt` or `tokenizer.json` with what the files beside it say of its tokenizer.

    Raises UserError where it is missing, not UTF-8, lacks a special token, or asks for what bertkit does not have.
    """
    found = read_files(path)
    ids = ids_of(found.pieces)
    missing = [piece for piece in found.special if piece not in ids]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}", "give the vocab.txt of a BERT, one word piece a line")
    lower, guess = bool(found.rules.get("lower_case")), None
    if casing != "auto":
        lower = casing == "uncased"
    elif "lower_case" not in found.rules:
        lower, guess = guess_lower_case(path, found.pieces)
    return Vocabulary(
        path,
        found.pieces,
        lower,
        strip_accents=found.rules.get("strip_accents"),
        split_chinese=found.rules.get("split_chinese") is not False,
        clean_text=found.rules.get("clean_text") is not False,
        special=found.special,
        added=found.added,
        word_pieces=found.word_pieces if found.word_pieces < len(found.pieces) else None,
        segments=found.segments,
        longest=found.longest,
        keys=found.keys,
        warnings=(*found.warnings, *([guess] if guess else [])),
    )


def write_vocabulary(path: Path, vocabulary: Vocabulary, added: bool = True) -> None:
    """As a `vocab.txt`. `added`: with the added tokens that are no word pieces as its last lines."""
    write_text(path, "\n".join(vocabulary.pieces if added else vocabulary.pieces[: vocabulary.word_pieces]) + "\n")


def write_rules(folder: Path, vocabulary: Vocabulary) -> None:
    """`vocab.txt`, and beside it a `tokenizer_config.json` where the pieces alone do not tell how text is cut."""
    write_vocabulary(folder / "vocab.txt", vocabulary, added=False)
    beside = folder / "tokenizer_config.json"
    if vocabulary.plain and guess_lower_case(vocabulary.path, vocabulary.pieces)[0] == vocabulary.lower_case:
        beside.unlink(missing_ok=True)
        return
    said = tokenizer_config(vocabulary, 0)
    if not vocabulary.longest:
        del said["model_max_length"]
    write_json(beside, said)


def without_words(rows: int, path: Path) -> Vocabulary:
    """For data that is ids already: `rows` pieces, the special ones where Google's English vocabularies have them."""
    special = {number: token for token, number in GOOGLES_SPECIAL.items()}
    pieces = tuple(special.get(number, f"[{number}]") for number in range(rows))
    return Vocabulary(path, pieces, lower_case=True, has_words=False)


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


def tokenizer(vocabulary: Vocabulary, names_are_text: bool = False) -> Tokenizer:
    """BERT's tokenizer: clean text, split at spaces and punctuation, WordPiece; [CLS] a [SEP] b [SEP].

    `names_are_text`: "[MASK]" and the like in a text are characters like any others, not the tokens of these names.
    """
    import tokenizers
    from tokenizers import decoders, normalizers, processors

    special, known = vocabulary.special_ids, vocabulary.pieces[: vocabulary.word_pieces]
    names = dict(zip(SPECIAL, vocabulary.special, strict=True))
    made = empty_tokenizer(vocabulary.lower_case, with_fillers(known), names["[UNK]"])
    made.normalizer = normalizers.BertNormalizer(
        clean_text=vocabulary.clean_text,
        handle_chinese_chars=vocabulary.split_chinese,
        strip_accents=vocabulary.strip_accents,
        lowercase=vocabulary.lower_case,
    )
    made.post_processor = processors.BertProcessing(
        (names["[SEP]"], special["[SEP]"]), (names["[CLS]"], special["[CLS]"])
    )
    made.decoder = decoders.WordPiece()
    made.add_tokens(
        [
            tokenizers.AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=token.normalized,
                special=token.special,
            )
            for token in all_added(vocabulary)
            if not (names_are_text and token.content in vocabulary.special)
        ]
    )
    return made


def all_added(vocabulary: Vocabulary) -> list[AddedToken]:
    """The added tokens with the special ones, in the order of their ids."""
    own = {token.content for token in vocabulary.added}
    usual = [
        AddedToken(p, vocabulary.ids[p], special=True, normalized=False) for p in vocabulary.special if p not in own
    ]
    return sorted([*vocabulary.added, *usual], key=lambda token: token.number or 0)


def with_fillers(pieces: Sequence[str]) -> dict[str, int]:
    """Piece -> id, with a piece that no text has at each id that is left over, so that the library counts as we do."""
    ids = ids_of(pieces)
    left = set(range(len(pieces))) - set(ids.values())
    return ids | {f"{FILLER}{number}": number for number in sorted(left)}


def empty_tokenizer(lower_case: bool, ids: Mapping[str, int] | None = None, unknown: str = "[UNK]") -> Tokenizer:
    """BERT's rules for words and pieces, with the pieces of `ids` or with none."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    pieces = dict(ids or {})
    made = Tokenizer(models.WordPiece(pieces, unk_token=unknown, max_input_chars_per_word=LONGEST_WORD))
    made.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def tokenizer_config(vocabulary: Vocabulary, positions: int) -> dict[str, Any]:
    """The `tokenizer_config.json` of this vocabulary; `positions`: the longest input of the model."""
    kept = {key: value for key, value in vocabulary.keys.items() if key not in (*NOT_KEPT, *NAMED_SPECIAL)}
    numbered = all_added(vocabulary) if vocabulary.added or vocabulary.special != SPECIAL else []
    added = {
        str(token.number): {name: value for name, value in asdict(token).items() if name != "number"}
        for token in numbered
    }
    return {
        **kept,
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": vocabulary.lower_case,
        "tokenize_chinese_chars": vocabulary.split_chinese,
        "strip_accents": vocabulary.strip_accents,
        "model_max_length": vocabulary.longest or positions,
        **dict(zip(ROLES, vocabulary.special, strict=True)),
        **({} if vocabulary.clean_text else {"clean_text": False}),
        **({"added_tokens_decoder": added} if added else {}),
    }
