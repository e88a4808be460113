"""The site's sources: the pages of docs/ with links between them, a home page of their index, pages from the code."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from bertkit.cli.pages import INDEX, Topic, pages, read, with_mentions
from reference import generated

DOCS = Path(__file__).resolve().parents[1]
ROOT = DOCS.parent
MADE = {  # of the index's sections, what stands there beside its own pages
    "Reference": ("reference/commands", "reference/settings", "reference/device-settings", "reference/python-api"),
}
CODE_BLOCKS = re.compile(r"^```.*?^```[^\n]*$", re.DOTALL | re.MULTILINE)


def stage(target: Path) -> None:
    """Write all sources of the site into `target`, anew."""
    shutil.rmtree(target, ignore_errors=True)
    index = read(DOCS, INDEX)
    listed = pages(index)
    titles = {page.file: title_of(read(DOCS, page.file)) for page in listed}
    _write(target / "index.md", home(index, listed, titles))
    for page in listed:
        _write(target / page.file, linked(read(DOCS, page.file), page.file, titles))
    for file, text in generated().items():
        _write(target / file, linked(text, file, titles))
    if (pictures := DOCS / "pictures").is_dir():
        shutil.copytree(pictures, target / "pictures")


def title_of(text: str) -> str:
    """A page's first heading."""
    return text.partition("\n")[0].removeprefix("# ")


def linked(text: str, file: str, titles: dict[str, str]) -> str:
    """A page whose mentions of others, as docs/serve.md, are links with their titles, from where the page stands."""
    folder = Path(file).parent

    def link(other: str) -> str | None:
        if other not in titles or other == file:
            return None
        return f"[{titles[other]}]({Path(os.path.relpath(other, folder)).as_posix()})"

    return with_mentions(text, link)


def home(index: str, listed: tuple[Topic, ...], titles: dict[str, str]) -> str:
    """The home page: the README's first words, and the index with titles in place of files' names."""
    about = read(ROOT, INDEX).split("\n\n", 2)[1]
    made = [f"# bertkit\n\n{about}\n"]
    for heading in re.findall(r"^## (.+)$", index, re.MULTILINE):
        kind = heading.partition(":")[0]
        within = [page for page in listed if page.kind == kind]
        made.append(f"\n## {heading}\n\n")
        made += [f"- [{titles[page.file]}]({page.file}): {page.about}\n" for page in within]
        made += [f"- {{doc}}`{name}`: made from the code\n" for name in MADE.get(kind, ())]
        entries = "\n".join([*(page.file.removesuffix(".md") for page in within), *MADE.get(kind, ())])
        made.append(f"\n```{{toctree}}\n:hidden:\n:caption: {kind}\n\n{entries}\n```\n")
    return "".join(made)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
