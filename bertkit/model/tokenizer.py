"""WordPiece by the `tokenizers` library, set up as Hugging Face's BertTokenizer; vocabularies read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertkit.errors import UserError
from bertkit.files.disk import write_json, write_text
from bertkit.model.tokenizer_files import read_files
from bertkit.model.tokenizer_settings import ROLES
from bertkit.model.vocabulary import (
    FILLER,
    LONGEST_WORD,
    SPECIAL,
    AddedToken,
    Casing,
    Vocabulary,
    guess_lower_case,
    ids_of,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Keys of a read tokenizer_config.json that its writing makes anew, or that tell of the place it was read from
NAMED_SPECIAL = (*ROLES, "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
NOT_KEPT = (
    "tokenizer_file", "vocab_file", "special_tokens_map_file", "full_tokenizer_file", "name_or_path", "is_local",
    "local_files_only", "never_split", "clean_text",
)  # fmt: skip


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
