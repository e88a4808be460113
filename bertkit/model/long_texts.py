"""Texts of megabytes for the `tokenizers` library, which takes some 160 bytes of memory for each of their characters.

They are cut where a cut changes no piece: behind white space, or behind a full stop or comma of Chinese and Japanese,
which is a piece of its own whatever stands around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

LONG = 1 << 14  # characters that are encoded at once
AT_ONCE = 1 << 21  # characters of the texts that are encoded together
_GAP = re.compile("[ \t\n\r\u3000。，、！？；]")


def parts(text: str, size: int = LONG) -> Iterator[tuple[int, str]]:
    """(where it starts, part) of the text's parts, of about `size` characters where it has gaps."""
    start = 0
    while len(text) - start > size:
        end = max((text.rfind(gap, start, start + size) + 1 for gap in " \n\t\u3000。，、"), default=0)
        if end <= start:
            found = _GAP.search(text, start + size)
            end = found.end() if found else len(text)
        yield start, text[start:end]
        start = end
    yield start, text[start:]


def encode_long(made: Tokenizer, text: str, size: int = LONG) -> tuple[np.ndarray, np.ndarray]:
    """(P,) ids and (P, 2) character offsets of a text's pieces, without special tokens around them."""
    ids, offsets = [], []
    for start, part in parts(text, size):
        found, places = of_encoding(made.encode(part, add_special_tokens=False))
        ids.append(found)
        offsets.append(places + start)
    return np.concatenate(ids), np.concatenate(offsets)


def of_encoding(encoding: Encoding) -> tuple[np.ndarray, np.ndarray]:
    """As `encode_long`."""
    return np.array(encoding.ids, np.int32), np.array(encoding.offsets, np.int32).reshape(-1, 2)


def shortened(
    made: Tokenizer, first: Sequence[str], second: Sequence[str] | None, limit: int, size: int = LONG
) -> tuple[Sequence[str], Sequence[str] | None]:
    """The texts with the ends of long ones cut off, so that truncation to `limit` pieces gives what it gave before.

    Of a pair, which of the two is the longer stays as it was: truncation depends on it. `made` must not truncate.
    """
    long = [
        number
        for number, text in enumerate(first)
        if len(text) > size or (second is not None and len(second[number]) > size)
    ]
    if not long:
        return first, second
    first, second = list(first), None if second is None else list(second)
    for number in long:
        if second is None:
            first[number] = _start(made, first[number], limit, size)[0]
        else:
            first[number], second[number] = _pair(made, first[number], second[number], limit, size)
    return first, second


def _pair(made: Tokenizer, first: str, second: str, limit: int, size: int) -> tuple[str, str]:
    one, one_count = _start(made, first, limit + 1, size)
    other, other_count = _start(made, second, limit + 1, size)
    if min(one_count, other_count) > limit:  # neither fits: which is the longer is told by their ends alone
        if _count(made, first, size) > _count(made, second, size):
            one = _start(made, first, other_count + 1, size)[0]
        else:
            other = _start(made, second, one_count, size)[0]
    return one, other


def _start(made: Tokenizer, text: str, least: int, size: int) -> tuple[str, int]:
    """The text's start that has at least so many pieces, or the text, and how many it has."""
    count = 0
    for start, part in parts(text, size):
        count += len(made.encode(part, add_special_tokens=False).ids)
        if count >= least:
            return text[: start + len(part)], count
    return text, count


def _count(made: Tokenizer, text: str, size: int) -> int:
    return sum(len(made.encode(part, add_special_tokens=False).ids) for _, part in parts(text, size))


def batches(inputs: Sequence[Any], most: int, characters: int = AT_ONCE) -> Iterator[Sequence[Any]]:
    """Neighbouring texts, or pairs of them, that are encoded together."""
    start = size = 0
    for number, text in enumerate(inputs):
        size += len(text) if isinstance(text, str) else sum(map(len, text))
        if number - start + 1 == most or size >= characters:
            yield inputs[start : number + 1]
            start, size = number + 1, 0
    if start < len(inputs):
        yield inputs[start:]
