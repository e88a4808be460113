"""Reading SQuAD's JSON strictly, one article at a time: every fault is named with its place and cure.

An article is decoded when its turn comes, so that the whole file never exists as Python objects (ten times its size).
Source: Rajpurkar et al. 2016, arXiv:1606.05250, and 2018, arXiv:1806.03822, and the published files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.inputs import json_fault, kind, read_whole_text

_SPACE = re.compile(r"[ \t\n\r]*")
_HALF_PAIR = re.compile("[\ud800-\udfff]")
_DECODER = json.JSONDecoder()
_MEND = "correct the file; `bertkit data get squad` fetches the published one"


@dataclass(frozen=True)
class ReferenceAnswer:
    """A reference answer as the file has it; that the text stands at `start` is not checked."""

    text: str
    start: int  # character offset in the context


@dataclass(frozen=True)
class Question:
    """A question and its reference answers: none in a test file, nor where v2.0 says that it has none."""

    id: str
    text: str
    answers: tuple[ReferenceAnswer, ...]
    impossible: bool = False


@dataclass(frozen=True)
class Paragraph:
    """A context and what is asked about it."""

    title: str
    context: str
    questions: tuple[Question, ...]


def read_squad(path: Path, rows: int = 0) -> Iterator[Paragraph]:
    """The paragraphs of a SQuAD file, or of JSON lines with a question each, in its order; `rows`: only the first so
    many questions (0: all).

    Raises UserError, while it is walked, where the file is missing, not UTF-8, cut off, no JSON or not SQuAD's,
    where an id stands twice, and where there is no question.
    """
    text = read_whole_text(path, "`bertkit data get squad` fetches the published files")
    seen: set[str] = set()
    for paragraph in _all_paragraphs(path, text):
        for at, question in enumerate(paragraph.questions):
            if question.id in seen:
                raise UserError(f"{path}: the id {question.id!r} stands twice", "give each question an id of its own")
            seen.add(question.id)
            if rows and len(seen) == rows:
                yield replace(paragraph, questions=paragraph.questions[: at + 1])
                return
        yield paragraph
    if not seen:
        raise UserError(f"{path}: holds no question", _MEND)


def _all_paragraphs(path: Path, text: str) -> Iterator[Paragraph]:
    if is_rows(text):
        yield from read_rows(path, text)
        return
    for number, article in enumerate(_articles(path, text), start=1):
        yield from _paragraphs(article, f"{path}: article {number}")


# Rows of Hugging Face's `datasets`: one question a line


def is_rows(text: str) -> bool:
    """Whether the file's first object has a question and its context, where SQuAD's own has "data"."""
    names: set[str] = set()
    try:
        at = _skip(text, 0) + 1
        sign = text[at - 1 : at]
        while sign in ("{", ","):
            name, at = _key(text, at)
            names.add(name)
            if name == "data" or {"question", "context"} <= names:
                return name != "data"
            sign, at = _sign(text, _DECODER.raw_decode(text, at)[1], ",}")
    except (ValueError, RecursionError):
        pass
    return False


def read_rows(path: Path, text: str) -> Iterator[Paragraph]:
    """The paragraphs of JSON lines, neighbouring questions of one context together.

    Raises UserError naming the line.
    """
    waiting: Paragraph | None = None
    for number, line in enumerate(_lines(text), start=1):
        if not line.strip():
            continue
        entry = inputs.mapping_value(inputs.parse_json(line, f"{path}:{number}", _MEND), f"{path}:{number}", _MEND)
        place = f"{path}:{number}"
        title = _name(entry, "title", place) if entry.get("title") is not None else ""
        context = _some_text(entry, "context", place)
        question = _question(_as_in_squad(entry, place), place)
        if waiting and (waiting.title, waiting.context) == (title, context):
            waiting = replace(waiting, questions=(*waiting.questions, question))
            continue
        if waiting:
            yield waiting
        waiting = Paragraph(title, context, (question,))
    if waiting:
        yield waiting


def _lines(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield text[at:end]
        at = end + 1


def _as_in_squad(entry: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A row with its answers, lists of texts and of starts, as SQuAD's own file has them; none: it has no answer."""
    given = entry.get("answers")
    if not isinstance(given, dict):
        return dict(entry)
    texts, starts = (_list(given, name, f"{place}: 'answers'") for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise UserError(f"{place}: 'answers' has {len(texts)} texts and {len(starts)} starts", _MEND)
    said = {} if texts or entry.get("is_impossible") is not None else {"is_impossible": True}
    answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    return {**entry, "answers": answers, **said}


# The outermost object, walked by hand


def _articles(path: Path, text: str) -> Iterator[object]:
    try:
        yield from _walk(path, text)
    except (ValueError, RecursionError) as error:
        raise json_fault(path, error) from None


def _walk(path: Path, text: str) -> Iterator[object]:
    """The members of the list "data" of the outermost object. Raises JSONDecodeError where the JSON is broken."""
    at = _skip(text, 0)
    if text[at] != "{":
        found = kind(_DECODER.raw_decode(text, at)[0])
        raise UserError(f"{path}: holds {found}, not an object with 'data'", _MEND)
    found_data, sign = False, ","
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        sign, at = "}", at + 1
    while sign == ",":
        name, at = _key(text, at)
        if name != "data":
            at = _DECODER.raw_decode(text, at)[1]
        elif found_data:
            raise UserError(f"{path}: 'data' stands twice", _MEND)
        else:
            found_data = True
            at = yield from _members(path, text, at)
        sign, at = _sign(text, at, ",}")
    if text[_skip(text, at) :]:
        raise json.JSONDecodeError("Extra data", text, _skip(text, at))
    if not found_data:
        raise UserError(f"{path}: has no 'data': it is no file of SQuAD", _MEND)


def _members(path: Path, text: str, at: int) -> Generator[object, None, int]:
    """Yields the members of the list that begins at `at`, and returns where it ends."""
    if text[at : at + 1] != "[":
        found = kind(_DECODER.raw_decode(text, at)[0])
        raise UserError(f"{path}: 'data' is {found}, not a list of articles", _MEND)
    at = _skip(text, at + 1)
    if text[at : at + 1] == "]":
        return at + 1
    sign = ","
    while sign == ",":
        article, at = _DECODER.raw_decode(text, _skip(text, at))
        yield article
        sign, at = _sign(text, at, ",]")
    return at


def _key(text: str, at: int) -> tuple[str, int]:
    """The name at `at`, and where its value begins."""
    at = _skip(text, at)
    if text[at : at + 1] != '"':
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", text, at)
    name, at = _DECODER.raw_decode(text, at)
    return name, _skip(text, _sign(text, at, ":")[1])


def _sign(text: str, at: int, signs: str) -> tuple[str, int]:
    """Whichever of `signs` comes next, and what is behind it."""
    at = _skip(text, at)
    if text[at : at + 1] not in tuple(signs):
        raise json.JSONDecodeError(f"Expecting {' or '.join(map(repr, signs))}", text, at)
    return text[at], at + 1


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()  # type: ignore[union-attr]


# What an article must hold


def _paragraphs(article: object, place: str) -> Iterator[Paragraph]:
    if not isinstance(article, dict):
        raise UserError(f"{place}: is {kind(article)}, not an object", _MEND)
    title = _name(article, "title", place) if article.get("title") is not None else ""
    place = f"{place} ({title[:60]!r})" if title else place
    for number, entry in enumerate(_list(article, "paragraphs", place), start=1):
        here = f"{place}, paragraph {number}"
        if not isinstance(entry, dict):
            raise UserError(f"{here}: is {kind(entry)}, not an object", _MEND)
        context = _some_text(entry, "context", here)
        asked = enumerate(_list(entry, "qas", here), start=1)
        yield Paragraph(title, context, tuple(_question(one, f"{here}, question {count}") for count, one in asked))


def _question(entry: object, place: str) -> Question:
    if not isinstance(entry, dict):
        raise UserError(f"{place}: is {kind(entry)}, not an object", _MEND)
    name = _name(entry, "id", place)
    if not name.strip():
        raise UserError(f"{place}: 'id' is empty", _MEND)
    place = f"{place} (id {name[:60]})"
    text = _some_text(entry, "question", place)
    said = entry.get("is_impossible")
    if said is not None and not isinstance(said, bool):
        raise UserError(f"{place}: 'is_impossible' is {kind(said)}, not true or false", _MEND)
    given = _list(entry, "answers", place) if entry.get("answers") is not None else []
    empty = bool(given) and said is not False and all(_is_empty(one) for one in given)
    answers = (
        () if empty else tuple(_answer(one, f"{place}, answer {count}") for count, one in enumerate(given, start=1))
    )
    impossible = bool(said) or empty
    if impossible and answers:
        raise UserError(f"{place}: 'is_impossible' is true, yet it has answers", "drop one of the two")
    return Question(name, text, answers, impossible)


def _is_empty(entry: object) -> bool:
    """Whether an answer says that there is none, as SQuAD-like sets have it: an empty text, wherever it is to start."""
    return isinstance(entry, dict) and entry.get("text") == ""


def _answer(entry: object, place: str) -> ReferenceAnswer:
    if not isinstance(entry, dict):
        raise UserError(f"{place}: is {kind(entry)}, not an object", _MEND)
    start = _member(entry, "answer_start", place)
    if not isinstance(start, int) or isinstance(start, bool):
        found = repr(start) if isinstance(start, float) else kind(start)
        raise UserError(f"{place}: 'answer_start' is {found}, not a whole number", _MEND)
    return ReferenceAnswer(_some_text(entry, "text", place), start)


def _member(entry: Mapping[str, Any], name: str, place: str) -> Any:
    if name not in entry:
        raise UserError(f"{place}: has no {name!r}", _MEND)
    return entry[name]


def _list(entry: Mapping[str, Any], name: str, place: str) -> list[Any]:
    value = _member(entry, name, place)
    if not isinstance(value, list):
        raise UserError(f"{place}: {name!r} is {kind(value)}, not a list", _MEND)
    return value


def _text(entry: Mapping[str, Any], name: str, place: str) -> str:
    value = _member(entry, name, place)
    if not isinstance(value, str):
        raise UserError(f"{place}: {name!r} is {kind(value)}, not a text", _MEND)
    if _HALF_PAIR.search(value):
        raise UserError(f"{place}: {name!r} holds half of a character pair (\\ud800 to \\udfff)", _MEND)
    return value


def _name(entry: Mapping[str, Any], name: str, place: str) -> str:
    """An id or a title, which other sets than SQuAD have as numbers; it is only told apart by, so it is a text here."""
    value = _member(entry, name, place)
    if type(value) is int:
        return str(value)
    return _text(entry, name, place)


def _some_text(entry: Mapping[str, Any], name: str, place: str) -> str:
    value = _text(entry, name, place)
    if not value.strip():
        raise UserError(f"{place}: {name!r} is empty", _MEND)
    return value
