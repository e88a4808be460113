"""`bertkit help`"""

from __future__ import annotations

import dataclasses
import json as json_format
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bertkit.cli.options import Json
from bertkit.cli.pages import INDEX, Topic, folder, pages, read, with_mentions
from bertkit.errors import UserError, nearest
from bertkit.files.streams import put, put_json, writing

WIDEST = 110  # characters of a line of prose on a wide terminal


def help_page(
    context: typer.Context,
    topic: Annotated[
        str | None, typer.Argument(help="Topic to show; without it, the pages are listed.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Show a page of the documentation, or list the pages.

    On a terminal the page is formatted; into a file or a pipe it is Markdown. For the options of a command:
    bertkit COMMAND -h.

    Examples:

      bertkit help

      bertkit help first-run

      bertkit help serve > serve.md
    """
    place = folder()
    known = {page.topic: page for page in pages(read(place, INDEX))}
    if topic is None:
        _list(list(known.values()), json)
        return
    if topic not in known:
        raise _no_page(topic, known, _commands(context))
    text = read(place, known[topic].file)
    if json:
        put_json(json_format.dumps(dataclasses.asdict(known[topic]) | {"text": text}, ensure_ascii=False))
    elif sys.stdout.isatty():
        _draw(text, known)
    else:
        put(text.rstrip("\n"))


def _list(found: list[Topic], json: bool) -> None:
    if json:
        put_json(json_format.dumps([dataclasses.asdict(page) for page in found], ensure_ascii=False))
        return
    width = max(len(page.topic) for page in found)
    for kind in dict.fromkeys(page.kind for page in found):
        put(kind)
        for page in found:
            if page.kind == kind:
                put(f"  {page.topic:<{width}}  {page.about}")
        put()
    put("bertkit help TOPIC shows a page, bertkit COMMAND -h the options of a command.")


def _commands(context: Any) -> list[str]:
    return list(getattr(context.find_root().command, "commands", {}))


def _no_page(topic: str, known: dict[str, Topic], commands: list[str]) -> UserError:
    if topic in commands:
        return UserError(f"there is no page {topic!r}", f"`bertkit {topic} -h` shows the command's options")
    return UserError(f"there is no page {topic!r}", f"{nearest(topic, known)} `bertkit help` lists the pages")


def _draw(text: str, known: dict[str, Topic]) -> None:
    """The page as rich formats Markdown; other pages are named by the command that shows them."""
    from rich.console import Console
    from rich.markdown import Markdown

    def shown(file: str) -> str | None:
        stem = Path(file).stem
        return f"`bertkit help {stem}`" if stem in known else None

    console = Console(file=sys.stdout, highlight=False)
    with writing():
        console.print(Markdown(with_mentions(text, shown), hyperlinks=False), width=min(console.width, WIDEST))
