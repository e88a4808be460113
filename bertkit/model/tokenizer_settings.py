"""What each file beside a vocabulary says of its tokenizer: it is honoured, or refused by name.

`tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`; then `tokenizer.json`, as the `tokenizers`
library writes it, of which BERT's WordPiece alone is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.inputs import exists, kind, mapping_value, read_object, whole_value
from bertkit.model.vocabulary import FILLER, LONGEST_WORD, SPECIAL, AddedToken, check_class

ROLES: Mapping[str, str] = {f"{role[1:-1].lower()}_token": role for role in SPECIAL}
# tokenizer_config.json's name -> ours, of the rules that are true, false or, for accents, as the casing has it
RULES: Mapping[str, str] = {
    "do_lower_case": "lower_case", "strip_accents": "strip_accents", "tokenize_chinese_chars": "split_chinese",
    "clean_text": "clean_text",
}  # fmt: skip
FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
MOST_PIECES = 1 << 24
# Settings with one value that bertkit has, and what any other would change
FIXED: Mapping[str, tuple[Any, str]] = {
    "do_basic_tokenize": (True, "bertkit always splits text at spaces and punctuation before it looks for pieces"),
    "split_special_tokens": (False, "bertkit takes a special token in a text for one"),
    "truncation_side": ("right", "bertkit cuts a text that is too long at its end"),
    "wordpieces_prefix": ("##", "bertkit has BERT's WordPiece only"),
}
# Keys that change no ids: defaults of a call's arguments, how ids become text again, where the files came from.
HARMLESS = frozenset(
    """add_bos_token add_eos_token add_prefix_space added_tokens_decoder additional_special_tokens auto_map backend
    bos_token chat_template clean_up_tokenization_spaces cls_token do_lower_case eos_token extra_special_tokens
    full_tokenizer_file init_inputs is_local local_files_only mask_token max_len max_length model_input_names
    model_max_length name_or_path never_split pad_to_multiple_of pad_token pad_token_type_id padding padding_side
    processor_class sep_token special_tokens_map_file stride strip_accents tokenize_chinese_chars tokenizer_class
    tokenizer_file trust_remote_code truncation truncation_strategy unk_token use_fast vocab_file clean_text""".split()
)


@dataclass(frozen=True)
class Said:
    """What one file says of a tokenizer."""

    file: Path
    rules: Mapping[str, bool | None] = field(default_factory=dict)  # our names; what the file does not say is not there
    special: Mapping[str, str] = field(default_factory=dict)  # role -> the piece that has it
    added: tuple[AddedToken, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """A `tokenizer_config.json`."""

    said: Said  # its added tokens are those of added_tokens_decoder
    own: tuple[AddedToken, ...] = ()  # its other special tokens, whose flags count last
    as_it_is: bool = False  # its class takes tokenizer.json whole, so that one's word counts first
    lists_added: bool = False  # then transformers reads the added and special tokens of no other file
    longest: int | None = None  # model_max_length, where it is one
    segments: bool = True  # False: the second of two texts is in segment 0 like the first
    never_split: tuple[str, ...] = ()
    keys: Mapping[str, Any] = field(default_factory=dict)  # the file's, to be written back


def read_config(path: Path) -> Config:
    """Raises UserError naming a setting that bertkit does not have; an absent file says nothing."""
    if not exists(path):
        return Config(Said(path))
    raw = read_object(path)
    name = check_class(raw.get("tokenizer_class"), path)
    _refuse(raw, path)
    added = [
        _token(value, path, whole_number_of(number, path), None)
        for number, value in mapping_value(
            raw.get("added_tokens_decoder") or {}, f"{path}: added_tokens_decoder"
        ).items()
    ]
    special, own = _named(raw, path)
    longest = raw.get("model_max_length")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float) or not longest >= 1):
        raise UserError(f"{path}: model_max_length is {longest!r}, not a number above 0", "correct it")
    inputs = raw.get("model_input_names")
    return Config(
        Said(path, _rules(raw, path), special, tuple(added), _told(raw, path)),
        own,
        name in ("PreTrainedTokenizer", "TokenizersBackend"),
        "added_tokens_decoder" in raw,
        int(longest) if longest is not None and longest < 1 << 31 else None,
        not isinstance(inputs, list) or "token_type_ids" in inputs,
        _never_split(raw.get("never_split"), path),
        raw,
    )


def read_special_map(path: Path) -> Said:
    """`special_tokens_map.json`: which pieces are [UNK], [CLS] and so on, and further special tokens."""
    if not exists(path):
        return Said(path)
    special, own = _named(read_object(path), path)
    return Said(path, {}, special, own)


def read_added(path: Path) -> Said:
    """`added_tokens.json`: content -> id."""
    if not exists(path):
        return Said(path)
    return Said(
        path,
        added=tuple(
            AddedToken(text_of(text, f"{path}: a token"), _id(number, path, text))
            for text, number in read_object(path).items()
        ),
    )


def token_of(value: object, path: Path) -> AddedToken:
    """An entry of tokenizer.json's `added_tokens`."""
    known = mapping_value(value, f"{path}: a token of added_tokens")
    return _token(known, path, _id(known.get("id"), path, known.get("content")), None)


def text_of(value: object, what: str) -> str:
    """A token as files spell it: a text, or an object with `content`. Raises UserError for anything else."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str) or not content:
        shown = "empty" if content == "" else kind(content)
        raise UserError(f"{what} is {shown}, not a token's text", "correct it")
    return content


def flag(value: object, what: str, nothing: bool = False) -> bool | None:
    """True, false or, with `nothing`, null. Raises UserError for anything else."""
    if not isinstance(value, bool) and not (nothing and value is None):
        raise UserError(
            f"{what} is {repr(value) if isinstance(value, str) else kind(value)}, not true or false", "correct it"
        )
    return value


def whole_number_of(text: str, path: Path) -> int:
    """The id that is a key of `added_tokens_decoder`."""
    return _id(
        int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text, path, "added_tokens_decoder"
    )


def _id(value: object, path: Path, name: object) -> int:
    return whole_value(value, f"{path}: the id of {name!r}", 0, MOST_PIECES)


def _token(value: object, path: Path, number: int | None, special: bool | None) -> AddedToken:
    content = text_of(value, f"{path}: an added token")
    known = value if isinstance(value, dict) else {}
    flags = {name: bool(flag(known[name], f"{path}: {name} of {content!r}")) for name in FLAGS if name in known}
    said = bool(flag(known["special"], f"{path}: special of {content!r}")) if "special" in known else False
    is_special = said if special is None else special
    return AddedToken(content, number, is_special, **{"normalized": not is_special, **flags})


def _named(raw: Mapping[str, Any], path: Path) -> tuple[dict[str, str], tuple[AddedToken, ...]]:
    """role -> piece; and the special tokens that are told with flags or are none of the five."""
    special: dict[str, str] = {}
    added: list[AddedToken] = []
    for key, role in ROLES.items():
        if raw.get(key) is not None:
            special[role] = text_of(raw[key], f"{path}: {key}")
            added += [_token(raw[key], path, None, True)] if isinstance(raw[key], dict) else []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        more = raw.get(key) or []
        if not isinstance(more, list | dict):
            raise UserError(f"{path}: {key} is {kind(more)}, not a list of tokens", "correct it")
        added += [_token(value, path, None, True) for value in (more.values() if isinstance(more, dict) else more)]
    return special, tuple(added)


def _rules(raw: Mapping[str, Any], path: Path) -> dict[str, bool | None]:
    rules: dict[str, bool | None] = {}
    for theirs, ours in RULES.items():
        if theirs in raw:
            value = flag(raw[theirs], f"{path}: {theirs}", nothing=True)
            if value is not None or ours == "strip_accents":
                rules[ours] = value
    return rules


def _refuse(raw: Mapping[str, Any], path: Path) -> None:
    for key, (has, why) in FIXED.items():
        if raw.get(key, has) not in (has, None):
            raise UserError(f"{path}: {key} is {raw[key]!r}", why)
    programs = raw.get("auto_map") or {}
    if programs and not (isinstance(programs, dict) and "AutoTokenizer" not in programs):
        raise UserError(
            f"{path}: auto_map says that a program beside it is the tokenizer",
            "bertkit runs no program of a model's folder; give one with BERT's WordPiece",
        )


def _never_split(value: object, path: Path) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise UserError(f"{path}: never_split is {kind(value)}, not a list of words", "correct it")
    return tuple(value)


def _told(raw: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    strange = [key for key in raw if key not in HARMLESS and key not in FIXED]
    more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
    said = [f"{path}: not known, so not read: {', '.join(strange[:5])}{more}"] if strange else []
    if raw.get("padding_side") == "left":
        said.append(f"{path}: padding_side is 'left', but nothing is padded here: positions count from [CLS]")
    return tuple(said)


def first_said(name: str, said: Iterable[Said]) -> tuple[bool | None, Said | None, tuple[Said, ...]]:
    """(value, who says it, who says otherwise) of a rule; the first file that speaks counts."""
    speaking = [one for one in said if name in one.rules]
    if not speaking:
        return None, None, ()
    value = speaking[0].rules[name]
    return value, speaking[0], tuple(one for one in speaking[1:] if one.rules[name] != value)


# ---- tokenizer.json ----

ELSE = "bertkit has BERT's WordPiece only"
# Their names of the normalizer's rules -> ours
NORMALIZER_RULES = {
    "lowercase": "lower_case", "strip_accents": "strip_accents", "handle_chinese_chars": "split_chinese",
    "clean_text": "clean_text",
}  # fmt: skip


@dataclass(frozen=True)
class TokenizerJson:
    """What the file says."""

    said: Said
    pieces: tuple[str, ...]  # "" where an id has none
    framed: bool  # whether it says how [CLS] and [SEP] are set


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Raises UserError naming what is damaged, or is not as BERT has it."""
    raw = read_object(path)
    model = mapping_value(raw.get("model"), f"{path}: model")
    _check_model(model, path)
    cut = raw.get("truncation")
    if isinstance(cut, dict) and cut.get("direction", "Right") != "Right":
        raise UserError(f"{path}: truncation is from the left", "bertkit cuts a text that is too long at its end")
    added = raw.get("added_tokens") or []
    if not isinstance(added, list):
        raise UserError(f"{path}: added_tokens is {kind(added)}, not a list", "correct it")
    special = _frame(raw.get("post_processor"), path)
    unknown = model.get("unk_token", "[UNK]")
    if not isinstance(unknown, str):
        raise UserError(f"{path}: unk_token is {kind(unknown)}, not a text", "correct it")
    said = Said(
        path, _normalizer_rules(raw, path), {"[UNK]": unknown} | special, tuple(token_of(one, path) for one in added)
    )
    return TokenizerJson(said, _pieces(model.get("vocab"), path), bool(special))


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    name = model.get("type", "WordPiece" if "max_input_chars_per_word" in model else None)
    if name != "WordPiece":
        shown = name if isinstance(name, str) else "not known"
        raise UserError(f"{path}: its model is {shown}, not WordPiece", ELSE)
    for key, has in (("continuing_subword_prefix", "##"), ("max_input_chars_per_word", LONGEST_WORD)):
        if model.get(key, has) != has:
            raise UserError(f"{path}: {key} is {model[key]!r}, not {has!r}", ELSE)


def _normalizer_rules(raw: Mapping[str, Any], path: Path) -> dict[str, bool | None]:
    normalizer = _part(raw, "normalizer", "BertNormalizer", path)
    _part(raw, "pre_tokenizer", "BertPreTokenizer", path)
    rules: dict[str, bool | None] = {}
    for theirs, ours in NORMALIZER_RULES.items():
        if theirs in normalizer:
            rules[ours] = flag(normalizer[theirs], f"{path}: {theirs}", nothing=ours == "strip_accents")
    return rules


def _part(raw: Mapping[str, Any], name: str, wanted: str, path: Path) -> Mapping[str, Any]:
    part = raw.get(name)
    found = part.get("type") if isinstance(part, dict) else kind(part)
    if not isinstance(part, dict) or found != wanted:
        raise UserError(f"{path}: its {name} is {found if isinstance(found, str) else kind(found)}, not {wanted}", ELSE)
    return part


def _frame(part: object, path: Path) -> dict[str, str]:
    """The pieces in the roles of [CLS] and [SEP]; empty: the file does not say. Raises UserError for another frame."""
    if part is None:
        return {}
    known = mapping_value(part, f"{path}: post_processor")
    if known.get("type") == "BertProcessing":
        pairs = {role: known.get(role[1:-1].lower()) for role in ("[CLS]", "[SEP]")}
        if all(isinstance(pair, list) and pair and isinstance(pair[0], str) for pair in pairs.values()):
            return {role: pair[0] for role, pair in pairs.items() if isinstance(pair, list)}
    if known.get("type") == "TemplateProcessing":
        single, pair = known.get("single"), known.get("pair")
        try:
            cls, sep = (single[place]["SpecialToken"]["id"] for place in (0, 2))  # type: ignore[index]
        except (TypeError, KeyError, IndexError):
            cls = sep = None
        if isinstance(cls, str) and isinstance(sep, str) and [single, pair] == _template(cls, sep):
            return {"[CLS]": cls, "[SEP]": sep}
    shown = known.get("type")
    raise UserError(f"{path}: its post_processor ({shown}) does not make [CLS] a [SEP] b [SEP] as BERT has it", ELSE)


def _template(cls: str, sep: str) -> list[list[dict[str, dict[str, str | int]]]]:
    def special(name: str, segment: int) -> dict[str, dict[str, str | int]]:
        return {"SpecialToken": {"id": name, "type_id": segment}}

    def text(name: str, segment: int) -> dict[str, dict[str, str | int]]:
        return {"Sequence": {"id": name, "type_id": segment}}

    single = [special(cls, 0), text("A", 0), special(sep, 0)]
    return [single, [*single, text("B", 1), special(sep, 1)]]


def _pieces(vocab: object, path: Path) -> tuple[str, ...]:
    """In the order of their ids."""
    known = mapping_value(vocab, f"{path}: the model's vocab")
    if not known:
        raise UserError(f"{path}: its vocabulary is empty", "give the file that belongs to the model")
    by_id: dict[int, str] = {}
    for piece, number in known.items():
        place = whole_value(number, f"{path}: the id of {piece!r}", 0, MOST_PIECES)
        if place in by_id:
            raise UserError(f"{path}: {by_id[place]!r} and {piece!r} both have the id {place}", "correct the file")
        by_id[place] = "" if piece.startswith(FILLER) else piece
    if max(by_id) >= 2 * len(by_id) + 100_000:
        raise UserError(f"{path}: {len(by_id):,} pieces have ids up to {max(by_id):,}", "correct the file")
    return tuple(by_id.get(number, "") for number in range(max(by_id) + 1))
