"""WordPiece by the `tokenizers` library, set up as Hugging Face's BertTokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from bertkit.model.vocabulary import (
    FILLER,
    LONGEST_WORD,
    SPECIAL,
    Vocabulary,
    all_added,
    ids_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer


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
