"""All files of a folder that say how text becomes ids, read as one vocabulary and written.

Where they contradict, one counts and that is said.

The order is that of transformers' BertTokenizer: the vocabulary of `tokenizer.json` before `vocab.txt`, the rules of
`tokenizer_config.json` before those of `tokenizer.json`, which it would not even read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.disk import write_json, write_text
from bertkit.files.inputs import exists, is_file, read_text
from bertkit.model.tokenizer_settings import (
    ROLES,
    Config,
    Said,
    TokenizerJson,
    first_said,
    read_added,
    read_config,
    read_special_map,
    read_tokenizer_json,
)
from bertkit.model.vocabulary import SPECIAL, AddedToken, Casing, Vocabulary, all_added, guess_lower_case, ids_of

# Keys of a read tokenizer_config.json that its writing makes anew, or that tell of the place it was read from
NAMED_SPECIAL = (*ROLES, "added_tokens_decoder", "additional_special_tokens", "extra_special_tokens")
NOT_KEPT = (
    "tokenizer_file", "vocab_file", "special_tokens_map_file", "full_tokenizer_file", "name_or_path", "is_local",
    "local_files_only", "never_split", "clean_text",
)  # fmt: skip
NAMES = ("vocab.txt", "tokenizer.json")
DEFAULTS: Mapping[str, bool | None] = {
    "lower_case": True, "strip_accents": None, "split_chinese": True, "clean_text": True,
}  # fmt: skip
SAID_OF = {
    "lower_case": "do_lower_case", "strip_accents": "strip_accents", "split_chinese": "tokenize_chinese_chars",
    "clean_text": "clean_text",
}  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """What the files say together."""

    pieces: tuple[str, ...]  # the vocabulary's, then the added tokens that it lacks; "" where an id has none
    word_pieces: int  # how many of them words are made of
    rules: Mapping[str, bool | None]  # those that are said, by our names
    special: tuple[str, ...]  # the pieces that have the roles of SPECIAL
    added: tuple[AddedToken, ...]  # but for special ones as every BERT has them
    segments: bool
    longest: int | None
    keys: Mapping[str, Any]  # tokenizer_config.json's
    warnings: tuple[str, ...]


def vocabulary_file(folder: Path) -> Path:
    """The folder's `vocab.txt`, else its `tokenizer.json`; where there is neither, the path of the first."""
    return next((folder / name for name in NAMES if exists(folder / name)), folder / NAMES[0])


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


# ---- what the files say together ----


def read_files(path: Path) -> Tokens:
    """The vocabulary at `path` and what the files beside it say. Raises UserError naming what bertkit does not have."""
    folder = path.parent
    if not exists(path):
        raise UserError(f"{path}: no vocabulary: no such file", "give its vocab.txt with --set model.vocab=FILE")
    config = read_config(folder / "tokenizer_config.json")
    beside = path if path.suffix == ".json" else folder / NAMES[1] if path.name == NAMES[0] else None
    whole = read_tokenizer_json(beside) if beside and is_file(beside) else None
    if whole and config.as_it_is and not whole.framed:
        raise UserError(f"{whole.said.file}: it has no post_processor, so no [CLS] and [SEP]", "bertkit needs both")
    named, numbered = read_special_map(folder / "special_tokens_map.json"), read_added(folder / "added_tokens.json")
    said = [config.said, *([whole.said] if whole else []), numbered, named, Said(config.said.file, added=config.own)]
    base, told = _base(path, whole, numbered)
    special, told_of_names = _special(config, whole, named)
    added, told_of_added = _added(said, special)
    pieces, placed = _placed(base, added, path)
    _check_never_split(config, {*special, *(token.content for token in placed)})
    rules, told_of_rules = _rules(config, whole)
    usual = tuple(token for token in placed if not _is_usual(token, special, base))
    warnings = (*told, *config.said.warnings, *told_of_names, *told_of_added, *told_of_rules)
    return Tokens(
        pieces, len(base), rules, special, usual, config.segments, config.longest, config.keys, tuple(warnings)
    )


def read_lines(path: Path) -> tuple[tuple[str, ...], list[str]]:
    """The pieces of a `vocab.txt`, line n being id n, and a sentence where one stands there twice."""
    text = read_text(path, "give a BERT's vocab.txt")
    pieces = tuple(line.rstrip() for line in text.rstrip("\r\n").split("\n"))
    first: dict[str, int] = {}
    doubled = [
        (first[piece], line, piece) for line, piece in enumerate(pieces, 1) if first.setdefault(piece, line) != line
    ]
    if not doubled:
        return pieces, []
    before, line, piece = doubled[0]
    more = f", as do {len(doubled) - 1} more pieces" if len(doubled) > 1 else ""
    what = repr(piece) if piece else "a blank line"
    return pieces, [f"{path}:{line}: {what} stands there twice, first in line {before}{more}; the last line counts"]


def _base(path: Path, whole: TokenizerJson | None, numbered: Said) -> tuple[tuple[str, ...], list[str]]:
    """The pieces that words are made of. Where vocab.txt and tokenizer.json differ, the latter's."""
    if path.suffix == ".json" and whole:
        return whole.pieces, []
    pieces, told = read_lines(path)
    if whole is None:
        return pieces, told
    lines, own = ids_of(pieces), ids_of(whole.pieces)
    if lines == own:
        return pieces, told
    added = {token.content: token.number for token in (*whole.said.added, *numbered.added)}
    if lines == {**added, **own}:  # vocab.txt with the added tokens as its last lines
        return whole.pieces, told
    odd = next(piece for piece in (*lines, *own) if lines.get(piece) != own.get(piece))
    told.append(
        f"{path} and {whole.said.file} differ ({odd!r} is {lines.get(odd, 'absent')} and {own.get(odd, 'absent')}); "
        "the latter counts, as in transformers"
    )
    return whole.pieces, told


def _special(config: Config, whole: TokenizerJson | None, named: Said) -> tuple[tuple[str, ...], list[str]]:
    """The pieces in the roles of SPECIAL."""
    order = [config.said, named] if config.lists_added else [named, config.said]
    if whole:
        order = [whole.said, *order] if config.as_it_is else [*order, whole.said]
    names, told = [], []
    for role in SPECIAL:
        speaking = [one for one in order if role in one.special]
        names.append(speaking[0].special[role] if speaking else role)
        told += [
            f"{one.file}: {one.special[role]!r} is to be {role}; {speaking[0].file} says {names[-1]!r}, which counts"
            for one in speaking[1:]
            if one.special[role] != names[-1]
        ]
    return tuple(names), told


def _added(said: Iterable[Said], special: Sequence[str]) -> tuple[list[AddedToken], list[str]]:
    """Every added token once; an earlier file's flags count. Raises UserError where two files give two ids."""
    found: dict[str, tuple[AddedToken, Path]] = {}
    told: list[str] = []
    files = list(said)
    extra = {*special, *(token.content for one in files for token in one.added if token.special)}
    for one in files:
        for given in one.added:
            token = given
            if one.file.name == "added_tokens.json" and token.content in extra:
                token = replace(token, special=True, normalized=False)
            if token.content not in found:
                found[token.content] = token, one.file
                continue
            known, file = found[token.content]
            if None not in (known.number, token.number) and known.number != token.number:
                raise UserError(
                    f"{one.file}: {token.content!r} has the id {token.number}, but {known.number} in {file}",
                    "correct the wrong one",
                )
            if known.number is None:
                found[token.content] = replace(known, number=token.number), file
            if one.file != file and known.flags != token.flags:
                told.append(f"{one.file}: {token.content!r} has other flags than in {file}, which count")
    return [token for token, _ in found.values()], told


def _placed(base: tuple[str, ...], added: list[AddedToken], path: Path) -> tuple[tuple[str, ...], list[AddedToken]]:
    """All pieces, and the added tokens with their ids. Raises UserError where an id is not as the library counts."""
    ids = ids_of(base)
    placed = []
    for token in added:
        if token.content in ids:
            if token.number not in (None, ids[token.content]):
                raise UserError(
                    f"the added token {token.content!r} is to have the id {token.number}, but {path} has it at "
                    f"{ids[token.content]}",
                    "give the files that belong together",
                )
            placed.append(replace(token, number=ids[token.content]))
    new = [token for token in added if token.content not in ids]
    new.sort(key=lambda token: (token.number is None, token.number or 0))  # those without an id in their order
    for place, token in enumerate(new, len(base)):
        if token.number not in (None, place):
            raise UserError(
                f"the added token {token.content!r} is to have the id {token.number}, but the next after the "
                f"{len(base):,} pieces of {path} is {place}",
                "give the vocabulary that the token was added to",
            )
        placed.append(replace(token, number=place))
    return (*base, *(token.content for token in new)), sorted(placed, key=lambda token: token.number or 0)


def _is_usual(token: AddedToken, special: Sequence[str], base: Sequence[str]) -> bool:
    """Whether it is one of the five special pieces, taken as every BERT takes it."""
    usual = AddedToken(token.content, token.number, special=True, normalized=False)
    return token.content in special and token == usual and (token.number or 0) < len(base)


def _check_never_split(config: Config, known: set[str]) -> None:
    strange = [word for word in config.never_split if word not in known]
    if strange:
        raise UserError(
            f"{config.said.file}: never_split names {strange[0]!r}, which is no special and no added token",
            "add it in added_tokens.json, or take never_split out: transformers' fast tokenizers do not read it",
        )


def _rules(config: Config, whole: TokenizerJson | None) -> tuple[dict[str, bool | None], list[str]]:
    order = [config.said, *([whole.said] if whole else [])]
    rules: dict[str, bool | None] = {}
    told: list[str] = []
    for name, default in DEFAULTS.items():
        value, source, otherwise = first_said(name, reversed(order) if config.as_it_is else order)
        if source is None:
            continue
        rules[name] = value
        told += [
            f"{other.file}: {SAID_OF[name]} is otherwise than in {source.file}, which counts" for other in otherwise
        ]
        if source is not config.said and value != default and not config.as_it_is:
            told.append(
                f"{source.file} says {SAID_OF[name]} {value}, which counts; transformers reads it in "
                f"{config.said.file.name} alone, which does not say it"
            )
    return rules, told
