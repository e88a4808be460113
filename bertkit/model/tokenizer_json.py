"""`tokenizer.json`, as the `tokenizers` library writes it: BERT's WordPiece is read, any other is refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.inputs import kind, mapping_value, read_object, whole_value
from bertkit.model.tokenizer_settings import MOST_PIECES, Said, flag, token_of

LONGEST_WORD = 100  # characters; a longer word becomes [UNK], as in Hugging Face's and Google's tokenizers
ELSE = "bertkit has BERT's WordPiece only"
# Their names of the normalizer's rules -> ours
RULES = {
    "lowercase": "lower_case", "strip_accents": "strip_accents", "handle_chinese_chars": "split_chinese",
    "clean_text": "clean_text",
}  # fmt: skip
FILLER = "\n"  # starts a piece that stands for no word: it fills an id so that those behind it keep theirs


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
    said = Said(path, _rules(raw, path), {"[UNK]": unknown} | special, tuple(token_of(one, path) for one in added))
    return TokenizerJson(said, _pieces(model.get("vocab"), path), bool(special))


def _check_model(model: Mapping[str, Any], path: Path) -> None:
    name = model.get("type", "WordPiece" if "max_input_chars_per_word" in model else None)
    if name != "WordPiece":
        shown = name if isinstance(name, str) else "not known"
        raise UserError(f"{path}: its model is {shown}, not WordPiece", ELSE)
    for key, has in (("continuing_subword_prefix", "##"), ("max_input_chars_per_word", LONGEST_WORD)):
        if model.get(key, has) != has:
            raise UserError(f"{path}: {key} is {model[key]!r}, not {has!r}", ELSE)


def _rules(raw: Mapping[str, Any], path: Path) -> dict[str, bool | None]:
    normalizer = _part(raw, "normalizer", "BertNormalizer", path)
    _part(raw, "pre_tokenizer", "BertPreTokenizer", path)
    rules: dict[str, bool | None] = {}
    for theirs, ours in RULES.items():
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
            raise UserError(f"{path}: {by_id[place]!r} and {piece!r} both have the id {place}", "mend the file")
        by_id[place] = "" if piece.startswith(FILLER) else piece
    if max(by_id) >= 2 * len(by_id) + 100_000:
        raise UserError(f"{path}: {len(by_id):,} pieces have ids up to {max(by_id):,}", "mend the file")
    return tuple(by_id.get(number, "") for number in range(max(by_id) + 1))
