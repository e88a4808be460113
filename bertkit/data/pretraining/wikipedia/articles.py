"""Pages of a dump as its XML has them, and which of them are articles.

Source: https://www.mediawiki.org/xml/export-0.11.xsd.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from bertkit.data.pretraining.wikipedia.streams import CURE
from bertkit.errors import UserError
from bertkit.files.packaged import packaged_table

VERSIONS = ("0.10", "0.11")  # of the schema
FILES, CATEGORIES = 6, 14  # namespaces
NAMESPACE = re.compile(r"\{[^}]*\}")
# What a page is; all but the first are left out and counted.
ARTICLE, REDIRECT, OTHER, MODEL, DISAMBIGUATION = (
    "articles", "redirects", "pages of other namespaces", "pages that are no wikitext", "disambiguation pages"
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """What a dump says of its wiki, and what is known of its language."""

    wiki: str  # "simplewiki"
    base: str  # "https://simple.wikipedia.org"
    version: str  # of the schema
    media: tuple[str, ...]  # words before the name of what a link shows in its place or puts elsewhere, small letters
    templates: tuple[str, ...]  # that mark a disambiguation page, small letters
    titles: tuple[str, ...]
    known: bool  # whether the names of the language's templates are known


@dataclass(frozen=True)
class Page:
    """A page of a dump."""

    id: str
    title: str
    namespace: str
    redirect: bool
    model: str
    text: str


def read_site(xml: bytes, language: str, path: Path) -> Site:
    """What the dump's beginning says. Raises UserError where it is not that of a dump."""
    root = _parsed(xml, path)
    info = {element.tag: element for element in root.iter()}
    if "dbname" not in info or "base" not in info:
        raise UserError(f"{path}: does not say of which wiki it is", CURE)
    spaces = {each.get("key"): each.text or "" for each in root.iter("namespace")}
    names, everywhere = packaged_table("data", "pretraining", "wikipedia", "languages.toml"), "any"
    own: Mapping[str, Any] = names.get(language if language != everywhere else "", {})
    media = [spaces.get(str(key), "") for key in (FILES, CATEGORIES)] + [*names[everywhere]["files"], "category"]
    address = urlsplit(info["base"].text or "")
    return Site(
        wiki=info["dbname"].text or "",
        base=f"{address.scheme}://{address.netloc}",
        version=root.get("version") or "",
        media=_small([*media, *own.get("files", ())]),
        templates=_small([*names[everywhere]["templates"], *own.get("templates", ())]),
        titles=_small([*names[everywhere]["titles"], *own.get("titles", ())]),
        known=bool(own),
    )


def _small(names: list[str]) -> tuple[str, ...]:
    return tuple(sorted({name.casefold() for name in names if name}))


def read_page(xml: bytes, path: Path) -> Page:
    """A page; of several revisions the last. Raises UserError where the XML is damaged."""
    root = _parsed(xml, path)
    revisions = root.findall("revision")
    last = revisions[-1] if revisions else root
    return Page(
        id=root.findtext("id") or "",
        title=root.findtext("title") or "",
        namespace=root.findtext("ns") or "",
        redirect=root.find("redirect") is not None,
        model=last.findtext("model") or "wikitext",
        text=last.findtext("text") or "",
    )


def _parsed(xml: bytes, path: Path) -> ElementTree.Element:
    try:
        # Begins with an element, so that it has no room for a DOCTYPE, whose entities could fill the memory
        root = ElementTree.fromstring(xml)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as error:
        begin = xml[:120].decode("utf-8", "replace")
        raise UserError(f"{path}: its XML is damaged: {error}, in {begin!r}", CURE) from None
    for element in root.iter():
        element.tag = NAMESPACE.sub("", element.tag)
    return root


def kind_of(page: Page, site: Site) -> str:
    """What the page is."""
    if page.namespace != "0":
        return OTHER
    if page.redirect:
        return REDIRECT
    if page.model != "wikitext":
        return MODEL
    return DISAMBIGUATION if is_disambiguation(page, site) else ARTICLE


def is_disambiguation(page: Page, site: Site) -> bool:
    """Whether the page only says which articles a name may mean."""
    title = page.title.casefold()
    if any(title.endswith((f" ({word})", f"\uff08{word}\uff09")) for word in site.titles):
        return True
    return "__DISAMBIG__" in page.text or any(name in site.templates for name in _templates(page.text))


def _templates(text: str) -> Iterator[str]:
    """Names of the templates in the text, small letters, without their namespace."""
    for found in re.finditer(r"\{\{\s*([^{}|<>\[\]\n]+?)\s*(?=[|}\n])", text):
        yield found[1].replace("_", " ").casefold().rpartition(":")[2].strip()
