"""Text -> sentences by rules, for languages written with spaces and for Chinese and Japanese full stops.

A full stop, exclamation or question mark ends a sentence where white space and then a capital, a digit or a letter
without case follows, unless it belongs to an abbreviation or an initial. A wrong cut costs little here: sentences are
only the places at which a sequence may be divided.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# with a capital behind them these still end no sentence
ABBREVIATIONS = frozenset(
    """mr mrs ms dr prof rev hon st messrs mme mlle sr jr gen col lt capt cmdr sgt maj adm gov sen rep pres
    vs viz cf ca al approx ed eds trans e.g i.e jan feb mar apr jun jul aug sept sep oct nov dec
    univ dept corp inc ltd co bros mt ft op""".split()
)
BEFORE_NUMBERS = frozenset("no nos vol vols p pp fig figs ch chap sec art v nr para".split())
OPENING = "\"'“‘«([{¿¡—-"
END = re.compile(r"[.!?…]+[\"'”’»)\]}]*\s+|[。！？]+[」』”’）]*\s*")
WORD_BEFORE = re.compile(r"[^\s(\[\"'“‘]*$")


def split_sentences(paragraph: str) -> Iterator[str]:
    """The sentences of a paragraph, white space made single."""
    text = " ".join(paragraph.split())
    start = 0
    for end in END.finditer(text):
        if _ends(text, start, end):
            yield text[start : end.end()].rstrip()
            start = end.end()
    if start < len(text):
        yield text[start:]


def _ends(text: str, start: int, end: re.Match[str]) -> bool:
    mark = text[end.start()]
    if mark in "。！？":
        return True
    follows = text[end.end() : end.end() + 4].lstrip(OPENING)[:1]
    if not follows or follows.islower():
        return not follows
    if mark != "." or text[end.start() + 1] != " ":  # a quote or a bracket behind the stop: no abbreviation
        return True
    found = WORD_BEFORE.search(text, max(start, end.start() - 24), end.start())
    word = found[0] if found else ""
    if len(word) == 1 and word.isalpha():  # an initial
        return False
    lower = word.lower()
    if "." in word and all(len(part) == 1 for part in word.split(".")):  # U.S
        return False
    return not (lower in ABBREVIATIONS or (lower in BEFORE_NUMBERS and follows.isdigit()))
