"""WordPiece by the `tokenizers` library, set up as Hugging Face's BertTokenizer, and encoding into Features.

Legend: T tokens of all examples, N examples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bertkit.disk import write_text
from bertkit.errors import UserError
from bertkit.features import Features
from bertkit.long_texts import batches, shortened

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Casing = Literal["auto", "cased", "uncased"]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOOGLES_SPECIAL: Mapping[str, int] = dict(zip(SPECIAL, (0, 100, 101, 102, 103), strict=True))
LONGEST_WORD = 100  # characters; a longer word becomes [UNK], as in Hugging Face's and NVIDIA's tokenizers
VARIANT = f"WordPiece: drops characters of categories Cc, Cf and Co, words over {LONGEST_WORD} characters become [UNK]"


@dataclass(frozen=True)
class Vocabulary:
    """The word pieces of a `vocab.txt`, line n being id n, and whether words are lower-cased before the look-up."""

    path: Path
    pieces: tuple[str, ...]
    lower_case: bool
    has_words: bool = True  # False: only how many pieces there are is known, and where the special ones stand

    @property
    def digest(self) -> str:
        """SHA-256 of the pieces in order: line ends and the file's place do not matter."""
        return hashlib.sha256("\n".join(self.pieces).encode()).hexdigest()


def read_vocabulary(path: Path, casing: Casing = "auto") -> Vocabulary:
    """Raises UserError where the file is missing, empty, not UTF-8, doubled, or lacks a special token."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path}: no vocabulary: {error.strerror}", "give its vocab.txt with --set model.vocab=FILE"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    pieces = tuple(line.rstrip("\r") for line in text.rstrip("\r\n").split("\n"))
    missing = [token for token in SPECIAL if token not in set(pieces)]
    if missing:
        raise UserError(f"{path}: lacks {', '.join(missing)}", "give the vocab.txt of a BERT, one word piece a line")
    if len(set(pieces)) != len(pieces):
        first = {piece: line for line, piece in reversed(list(enumerate(pieces, 1)))}
        line, piece = next((i, p) for i, p in enumerate(pieces, 1) if first[p] != i)
        raise UserError(f"{path}:{line}: {piece!r} stands there twice", "each word piece needs a line of its own")
    lower = guess_lower_case(path, pieces) if casing == "auto" else casing == "uncased"
    return Vocabulary(path, pieces, lower)


def write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    """As a `vocab.txt`."""
    write_text(path, "\n".join(vocabulary.pieces) + "\n")


def without_words(rows: int, path: Path) -> Vocabulary:
    """For data that is ids already: `rows` pieces, the special ones where Google's English vocabularies have them."""
    special = {number: token for token, number in GOOGLES_SPECIAL.items()}
    pieces = tuple(special.get(number, f"[{number}]") for number in range(rows))
    return Vocabulary(path, pieces, lower_case=True, has_words=False)


def guess_lower_case(path: Path, pieces: Sequence[str]) -> bool:
    """What the model's own tokenizer_config.json says, else whether the vocabulary has no upper-case letter."""
    config = path.parent / "tokenizer_config.json"
    if config.exists():
        try:
            said = json.loads(config.read_text(encoding="utf-8")).get("do_lower_case")
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, AttributeError):
            said = None
        if isinstance(said, bool):
            return said
    return not has_upper_case(pieces)


def has_upper_case(pieces: Sequence[str]) -> bool:
    return any(piece != piece.lower() for piece in pieces if not piece.startswith("["))


def casing_warning(vocabulary: Vocabulary) -> str | None:
    """A sentence where casing and vocabulary do not fit together, else None."""
    upper = has_upper_case(vocabulary.pieces)
    if vocabulary.lower_case and upper:
        return f"{vocabulary.path} is a cased vocabulary but words are lower-cased; --set model.casing=cased mends it"
    if not vocabulary.lower_case and not upper:
        return (
            f"{vocabulary.path} is an uncased vocabulary but words keep their case, so capitals become [UNK]; "
            "--set model.casing=uncased mends it"
        )
    return None


def tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """BERT's tokenizer: clean text, split at spaces and punctuation, WordPiece; [CLS] a [SEP] b [SEP]."""
    from tokenizers import decoders, processors

    ids = {piece: number for number, piece in enumerate(vocabulary.pieces)}
    made = empty_tokenizer(vocabulary.lower_case, ids)
    made.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL))
    return made


def empty_tokenizer(lower_case: bool, ids: Mapping[str, int] | None = None) -> Tokenizer:
    """BERT's rules for words and pieces, with the pieces of `ids` or with none."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    pieces = dict(ids or {})
    made = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD))  # noqa: S106
    made.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made


def encode(
    vocabulary: Vocabulary,
    first: Sequence[str],
    second: Sequence[str] | None,
    labels: dict[str, np.ndarray],
    seq_length: int,
    progress: Callable[[int], object] = lambda done: None,
    notes: Mapping[str, np.ndarray] | None = None,
) -> Features:
    """N texts, or pairs of texts, as Features of at most `seq_length` tokens; the longer text is cut first."""
    made = tokenizer(vocabulary)
    first, second = shortened(made, first, second, seq_length)
    made.enable_truncation(seq_length, strategy="longest_first")
    inputs: Sequence[Any] = first if second is None else list(zip(first, second, strict=True))
    ids: list[np.ndarray] = []
    types: list[np.ndarray] = []
    lengths = np.zeros(len(inputs), np.int64)
    for together in batches(inputs, 4096):  # in parts, so that progress can be shown
        for encoding in made.encode_batch(together):
            lengths[len(ids)] = len(encoding.ids)
            ids.append(np.array(encoding.ids, np.int32))
            types.append(np.array(encoding.type_ids, np.int32))
        progress(len(ids))
    return Features(_join(ids), _join(types), np.concatenate([[0], np.cumsum(lengths)]), labels, notes or {})


def _join(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
