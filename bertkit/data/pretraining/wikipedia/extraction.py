"""A dump becomes text: each piece of it a file, by several processes, the same bytes whatever their number.

What is done of it is noted in `.unfinished/`, a sealed note for each piece, so that a run that was killed goes on at a
piece's boundary; `text/` is there when all of it is, and manifest.json, which tells its SHA-256s, last.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import quoteattr

from bertkit.data.fetching import follow
from bertkit.data.pretraining.wikipedia.articles import ARTICLE, VERSIONS, Site, kind_of, read_page, read_site
from bertkit.data.pretraining.wikipedia.dump import HOMEPAGE, TERMS, Dump, Say
from bertkit.data.pretraining.wikipedia.streams import PIECE, head, pages, plan
from bertkit.data.pretraining.wikipedia.wikitext import check_parser, plain_text
from bertkit.distributed.process_pool import Processes
from bertkit.distributed.workers import GO_ON, Done
from bertkit.errors import Stopped, UserError
from bertkit.files.disk import read_sealed, replace_folder, sha256_file, write_atomically, write_sealed
from bertkit.files.inputs import exists, inside, is_file
from bertkit.version import __version__

VERSION = 1  # of what is made of the same dump; part of the key that unfinished work is taken up by
UNFINISHED, TEXT, WORK, MANIFEST = ".unfinished", "text", "work.json", "manifest.json"
START_ANEW = "remove the folder .unfinished there"
NO_TEXT, UNREAD, LEFT = "articles without text", "articles that the parser gave up", "paragraphs with unclosed markup"


@dataclass(frozen=True)
class Extraction:
    """Everything that a worker needs to know."""

    dump: Path
    desk: Path
    site: Site
    pieces: tuple[tuple[int, int], ...]


def extract(dump: Dump, folder: Path, workers: int, say: Say, piece: int = PIECE) -> dict[str, Any]:
    """Make `text/` and its manifest, or what an earlier run left to make; returns the manifest.

    Raises UserError where the dump is damaged or the disk is full; what is finished is kept.
    """
    parser, path = check_parser(), folder / dump.name
    planned = plan(path, piece)
    say(f"{folder.name}: {path.name} has the published SHA-1; its SHA-256 is {planned.sha256}")
    site = read_site(head(path), dump.language, path)
    _check_site(site, dump, path, say)
    made_of = {"sha256": planned.sha256, "version": VERSION, "parser": parser, "piece": piece, "site": asdict(site)}
    desk = folder / UNFINISHED
    _open_desk(desk, folder, {"made_of": made_of, "dump": dump.name, "pieces": planned.pieces}, say)
    work = load_work(folder)
    _warn_of_space(folder, planned.bytes, say)
    notes = _do(work, folder, workers, planned.bytes, say)
    for path in {*inside(desk / TEXT)} - {desk / TEXT / note["file"]["name"] for note in notes}:
        path.unlink()  # of a text that was here before
    source = {**asdict(dump), "url": dump.url, "sha256": planned.sha256, "bytes": planned.bytes}
    manifest = {
        "schema": 1,
        "source": source,
        "terms": TERMS,
        "homepage": HOMEPAGE,
        "made_by": {"bertkit": __version__, "mwparserfromhell": parser, "version": VERSION},
        "counts": dict(sum((Counter(note["counts"]) for note in notes), Counter())),
        "files": [note["file"] for note in notes],
    }
    replace_folder(desk / TEXT, folder / TEXT)
    write_sealed(folder / MANIFEST, manifest)
    shutil.rmtree(desk, ignore_errors=True)
    return manifest


def _check_site(site: Site, dump: Dump, path: Path, say: Say) -> None:
    if site.wiki != dump.wiki:
        raise UserError(f"{path}: is a dump of {site.wiki}, not of {dump.wiki}", "fetch the right one")
    if site.version not in VERSIONS:
        say(f"warning: the dump is of export schema {site.version!r}, which is not known, and read as {VERSIONS[-1]}")
    if not site.known:
        say(
            f"warning: of the templates that mark disambiguation pages in {dump.language} none is known by name: such "
            "pages may stay in the text"
        )


def _open_desk(desk: Path, folder: Path, wanted: Mapping[str, Any], say: Say) -> None:
    """Take up what an earlier run left, where it is of the same dump and the same way of making text."""
    note = desk / WORK
    try:
        same = is_file(note) and read_sealed(note)["made_of"] == _as_json(wanted)["made_of"]
    except (UserError, KeyError):
        same = False
    if same:
        if exists(folder / TEXT) and not exists(desk / TEXT):  # a kill between the last two steps
            (folder / TEXT).rename(desk / TEXT)
        say(f"{folder.name}: resuming the extraction of an earlier run")
        return
    if exists(desk):
        say(f"warning: {desk} is of another dump or another version, and is made anew")
        shutil.rmtree(desk)
    write_sealed(note, wanted)


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """As it is read again: tuples are lists."""
    return dict(json.loads(json.dumps(value)))


def load_work(folder: Path) -> Extraction:
    """What the workers are to do, from its note."""
    desk = folder / UNFINISHED
    found = read_sealed(desk / WORK, START_ANEW)
    site: dict[str, Any] = found["made_of"]["site"]
    site = {key: tuple(value) if isinstance(value, list) else value for key, value in site.items()}
    pieces = tuple((int(start), int(stop)) for start, stop in found["pieces"])
    return Extraction(dump=folder / found["dump"], desk=desk, site=Site(**site), pieces=pieces)


def _warn_of_space(folder: Path, size: int, say: Say) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        say(f"warning: {free / 1e9:.1f} GB are free; the text may need as much as the dump, {size / 1e9:.1f} GB")


def _do(work: Extraction, folder: Path, workers: int, size: int, say: Say) -> list[dict[str, Any]]:
    """What every piece noted, in their order."""
    numbers = range(len(work.pieces))
    left = [number for number in numbers if not _is_done(work, number, say)]
    sizes = [stop - start for start, stop in work.pieces]
    done = size - sum(sizes[number] for number in left)
    with follow(f"{folder.name}: extracting", say) as progress:
        progress(done, size)
        try:
            for number, found in Processes(workers).run(folder.name, PieceTask(folder, work), left):
                write_sealed(_note(work, number), found)
                done += sizes[number]
                progress(done, size)
        except KeyboardInterrupt:
            raise Stopped("stopped", GO_ON) from None
    return [read_sealed(_note(work, number), START_ANEW) for number in numbers]


def _note(work: Extraction, number: int) -> Path:
    return work.desk / f"piece-{number:05d}.json"


def _is_done(work: Extraction, number: int, say: Say) -> bool:
    """Whether a piece's note is there, and true: what is damaged is made again, with a warning."""
    note = _note(work, number)
    if not is_file(note):
        return False
    try:
        file = read_sealed(note)["file"]
        if sha256_file(work.desk / TEXT / file["name"]) == file["sha256"]:
            return True
    except (UserError, OSError, KeyError):
        pass
    say(f"warning: {note.name} and its text are not as they were written, and are made again")
    note.unlink()
    return False


class PieceTask:
    """`extract_piece` as a function of the number. Another process reads the work in its folder, once."""

    def __init__(self, folder: Path, work: Extraction) -> None:
        self.folder, self._work = folder, work

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_work": None}

    def __call__(self, number: int) -> Done:
        return extract_piece(self._work or _opened(self.folder), number)


@functools.lru_cache(maxsize=1)
def _opened(folder: Path) -> Extraction:
    return load_work(folder)


def extract_piece(work: Extraction, number: int) -> Done:
    """Write a piece's text; what is noted of it: how many pages of each kind, and the file's SHA-256."""
    counts: Counter[str] = Counter()
    path = work.desk / TEXT / f"wiki_{number:05d}.txt"

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for xml in pages(work.dump, *work.pieces[number]):
                _write_page(xml, work, file, counts)

    write_atomically(path, write)
    entry = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path), "articles": counts[ARTICLE]}
    return {"counts": dict(sorted(counts.items())), "file": entry}


def _write_page(xml: bytes, work: Extraction, file: IO[str], counts: Counter[str]) -> None:
    """The page as WikiExtractor has it, where it is an article with text."""
    page = read_page(xml, work.dump)
    kind = kind_of(page, work.site)
    if kind != ARTICLE:
        counts[kind] += 1
        return
    plain = plain_text(page.text, work.site.media)
    if plain is None:
        counts[UNREAD] += 1
        return
    counts[LEFT] += plain.left
    if not plain.paragraphs:
        counts[NO_TEXT] += 1
        return
    counts[ARTICLE] += 1
    url = f"{work.site.base}/wiki?curid={page.id}"
    lines = [line if not line.startswith(("<doc ", "</doc>")) else f" {line}" for line in plain.paragraphs]
    file.write(f"<doc id={quoteattr(page.id)} url={quoteattr(url)} title={quoteattr(page.title)}>\n{page.title}\n\n")
    file.write("\n".join(lines) + "\n</doc>\n")
