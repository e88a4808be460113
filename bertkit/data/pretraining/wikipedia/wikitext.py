"""Wikitext as paragraphs of plain text: without templates, tables, references, lists, headings, images and comments.

As BERT's authors had it: "we extract only the text passages and ignore lists, tables, and headers" (Devlin et al. 2018,
arXiv:1810.04805, section 3.1). The parser is mwparserfromhell.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bertkit.errors import UserError

# Tags whose content MediaWiki reads to the next closing tag, whatever stands in between, before it parses anything
RAW = (
    "ref", "nowiki", "gallery", "math", "chem", "ce", "pre", "syntaxhighlight", "source", "score", "timeline",
    "imagemap", "graph", "hiero", "mapframe", "maplink", "inputbox", "templatedata", "templatestyles", "categorytree",
)  # fmt: skip
OPENING = re.compile(rf"<!--|<({'|'.join(RAW)})\b[^<>]{{0,2000}}>", re.IGNORECASE)
CLOSING = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in RAW}
# Other tags whose content is no text of the article
LEFT_OUT = frozenset(
    "includeonly indicator noinclude pagelist phonos references rss script section style table title".split()
)
BLOCKS = frozenset("blockquote center dd div dl dt h1 h2 h3 h4 h5 h6 hr li ol p poem section ul".split())
JOINERS = "\u200c\u200d"  # not printable, and a part of words in Persian and others
LIST, BREAK = "\x00", "\n\n"  # a list's line; XML has no zero byte
# Signs that are text here (from nowiki or an entity) and would be markup in what the parser left
SIGNS = "[]{}|<>'_"
HIDDEN = {ord(sign): chr(number) for number, sign in enumerate(SIGNS, 14)}  # as characters that XML has not
SHOWN = dict(enumerate(SIGNS, 14))
LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{1,12}){0,3}|simple")
LEFT = re.compile(r"\{\{|\}\}|\{\||\|\}|\|\||\[\[|\]\]|^\s*\|")  # markup that is not closed
WORD = re.compile(r"__\w+?__")  # as __NOTOC__
TAG = re.compile(r"</?[A-Za-z][^<>]{0,300}>")
VARIANTS = re.compile(r"-\{([^{}]*)\}-")
# What is left where a template was taken away: "(; 1 May 1900)", "( )", "word , word"
TIDIED = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"([(\uff08])[\s,;:\u060c\u061b\u3001]+"), r"\1"),
    (re.compile(r"[\s,;:\u060c\u061b\u3001]+([)\uff09])"), r"\1"),
    (re.compile(r" ?(\(\)|\uff08\uff09)"), ""),
    (re.compile(r" +([,.])(?!\w)"), r"\1"),
)


@dataclass(frozen=True)
class Plain:
    """An article's text."""

    paragraphs: tuple[str, ...]
    left: int  # paragraphs with markup that is not closed, which are left out


def check_parser() -> str:
    """The parser's version. Raises UserError where it is not installed."""
    try:
        import mwparserfromhell
    except ImportError:
        raise UserError("the text of Wikipedia needs mwparserfromhell", "pip install 'bertkit[wikipedia]'") from None
    return str(mwparserfromhell.__version__)


def plain_text(text: str, media: tuple[str, ...]) -> Plain | None:
    """The article's paragraphs; None where the parser gives up. `media`: words before what a link does not say, as
    `File`, in small letters."""
    import mwparserfromhell
    from mwparserfromhell.parser import ParserError

    try:
        # Bold type that is not closed in a table's cell would hide the table's end from the parser
        nodes = mwparserfromhell.parse(_without_raw(text), skip_style_tags=True).nodes
        drawn = "".join(_drawn(nodes, media))
    except (ParserError, RecursionError):
        return None
    found = [_tidy(paragraph) for paragraph in _paragraphs(drawn)]
    kept = tuple(each.translate(SHOWN) for each in found if each is not None and any(map(str.isalpha, each)))
    return Plain(kept, found.count(None))


def _without_raw(text: str) -> str:
    """The text without comments, references and the like; what stands behind a tag that is not closed stays, as in
    MediaWiki."""
    kept: list[str] = []
    place = 0
    unclosed: set[str] = set()
    while found := OPENING.search(text, place):
        name, end = (found[1] or "").lower(), found.end()
        if not name:
            end = text.find("-->", end) + 3
            end = end if end >= 3 else len(text)
        elif not found[0].endswith("/>"):
            closing = None if name in unclosed else CLOSING[name].search(text, end)
            if closing is None:
                unclosed.add(name)  # not looked for again, and not shown to the parser, which would look for each
                kept.append(text[place : found.start()])
                place = end
                continue
            end = closing.end()
        kept.append(text[place : end if name == "nowiki" else found.start()])
        place = end
    return "".join((*kept, text[place:]))


def _drawn(nodes: list[Any], media: tuple[str, ...]) -> Iterator[str]:
    """The text of the parser's nodes, with LIST before that of a list's line."""
    from mwparserfromhell import nodes as kinds

    for node in nodes:
        if isinstance(node, kinds.Text):
            yield node.value
        elif isinstance(node, kinds.HTMLEntity):
            yield _entity(node).translate(HIDDEN)
        elif isinstance(node, kinds.Wikilink):
            yield from _link(node, media)
        elif isinstance(node, kinds.ExternalLink):
            if node.title is not None:
                yield from _drawn(node.title.nodes, media)
        elif isinstance(node, kinds.Heading):
            yield BREAK
        elif isinstance(node, kinds.Tag):
            yield from _tag(node, media)


def _entity(node: Any) -> str:
    try:
        found = str(node.normalize())
    except (ValueError, OverflowError):
        return ""
    return found if found.isprintable() or found.isspace() or found in JOINERS else ""


def _link(node: Any, media: tuple[str, ...]) -> Iterator[str]:
    title = html.unescape(str(node.title)).strip()
    before, colon, _ = title.partition(":")
    word = before.strip().replace("_", " ").casefold()
    if colon and (word in media or (node.text is None and LANGUAGE.fullmatch(before))):
        return
    if node.text is None:
        yield title.removeprefix(":").partition("#")[0] or title
    else:
        yield from _drawn(node.text.nodes, media)


def _tag(node: Any, media: tuple[str, ...]) -> Iterator[str]:
    name = str(node.tag).strip().lower()
    if node.wiki_markup and name in ("li", "dt", "dd"):
        yield LIST
    elif name == "nowiki":
        yield html.unescape(str(node.contents)).translate(HIDDEN)
    elif name == "br":
        yield " "
    elif name not in LEFT_OUT:
        inside = () if node.contents is None else _drawn(node.contents.nodes, media)
        yield from (BREAK, *inside, BREAK) if name in BLOCKS else inside
    elif name == "table":
        yield BREAK


def _paragraphs(drawn: str) -> Iterator[str]:
    """Lines that follow one another, joined; an empty line, or a list's, ends them."""
    lines: list[str] = []
    for line in [*drawn.split("\n"), ""]:
        if line.strip() and LIST not in line:
            lines.append(line)
        elif lines:
            yield " ".join(lines)
            lines = []


def _tidy(paragraph: str) -> str | None:
    """One line of text; None: it holds markup that is not closed."""
    text = VARIANTS.sub(_variant, paragraph)
    if LEFT.search(text):
        return None
    text = TAG.sub("", WORD.sub(_word, text)).replace("'''", "").replace("''", "")
    for pattern, replacement in TIDIED:
        text = pattern.sub(replacement, text)
    return text.strip()


def _variant(found: re.Match[str]) -> str:
    """The first of the spellings of -{zh-hans:…; zh-hant:…}-, or what has only one."""
    inside = found[1].rpartition("|")[2]
    first = inside.partition(";")[0]
    name, colon, text = first.partition(":")
    return text.strip() if colon and LANGUAGE.fullmatch(name.strip()) else first.strip()


def _word(found: re.Match[str]) -> str:
    return "" if found[0] == found[0].upper() else found[0]
