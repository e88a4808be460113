"""``bertkit data``: list, get and verify data sets and checkpoints; prepare and inspect pre-training data."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from bertkit.commands.data_inspect import inspect
from bertkit.commands.data_prepare import prepare
from bertkit.commands.data_vocabulary import vocabulary
from bertkit.errors import UserError
from bertkit.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.downloads import Checked, Download, File, Progress, Source

EVERY_S = 5.0  # between lines of progress where no bar can be drawn

app = typer.Typer(
    name="data",
    help="Get data sets and checkpoints and check them; make and inspect pre-training data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: bertkit data vocabulary corpus/ -o vocab.txt --size 8192")(vocabulary)
app.command(
    epilog="Example: bertkit data prepare corpus/ -o data/phase1 --vocab vocab.txt -s 128 --bin-size 64",
)(prepare)
app.command(epilog="Example: bertkit data inspect data/phase1 --eval data/eval")(inspect)

DataDir = Annotated[Path, typer.Option("--data-dir", help="Folder that holds all data.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog="Example: bertkit data list --json")
def list_sources(as_json: AsJson = False) -> None:
    """List what can be had; with --json also its terms of use, files and URLs."""
    from bertkit.downloads import load_sources

    rows = [_row(source) for source in load_sources().values()]
    if as_json:
        put_json(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for row in rows:
        size = _bytes(row["bytes"]) if row["kind"] == "download" else "generated"
        put(f"{row['name']:30} {size:>9}  {row['folder']:44} {row['title']}")


def _row(source: Source) -> dict[str, object]:
    sizes = [download.size for download in source.downloads]
    return {
        "name": source.name,
        "title": source.title,
        "kind": "download" if source.downloads else "generated",
        "folder": source.folder,
        "terms": source.terms,
        "homepage": source.homepage,
        "bytes": None if not sizes or None in sizes else sum(size or 0 for size in sizes),
        "urls": [download.url for download in source.downloads],
        "files": [file.name for file in source.files],
    }


def _bytes(size: object) -> str:
    if not isinstance(size, int):
        return "?"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


@app.command(epilog="Example: bertkit data get mrpc squad --data-dir data")
def get(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="See `bertkit data list`.")],
    data_dir: DataDir = Path("data"),
    url_base: Annotated[
        str, typer.Option(help="A mirror with the publishers' paths, as in URL/glue/data/CoLA.zip.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be brought; bring nothing.")] = False,
) -> None:
    """Download what is missing, verify it and put it in its folder. A broken download is resumed."""
    from bertkit.downloads import find_sources, verify

    for source in find_sources(names):
        folder = data_dir / source.folder
        found = verify(folder, source.files)
        _refuse_to_overwrite(folder, found)
        missing = [file for file, each in zip(source.files, found, strict=True) if each.state == "missing"]
        if dry_run:
            what = ", ".join(file.name for file in missing)
            _say(f"{source.name}: {f'would bring {what} into {folder}' if missing else f'{folder} is complete'}")
            continue
        for download in source.downloads if missing else ():
            _bring(download, folder, missing, url_base)
        if missing and not source.downloads:
            from bertkit.tasks.sample import write_sample

            write_sample(data_dir)
        done = f"is complete; terms of use: {source.terms}" if missing else "was complete already"
        _say(f"{source.name}: {folder} {done}" + (f" ({source.homepage})" if missing and source.homepage else ""))


def _refuse_to_overwrite(folder: Path, found: Sequence[Checked]) -> None:
    for each in found:
        if each.state == "differs":
            raise UserError(
                f"{folder / each.name} is there but is not the published file"
                f" (its digest is {each.digest}, published is {each.published})",
                "move it away, then run the command again",
            )


def _bring(download: Download, folder: Path, missing: Sequence[File], url_base: str) -> None:
    """Fetch `download` if it brings one of `missing`, and unpack and verify those."""
    from bertkit.downloads import Unreachable, fetch, unpack_zip

    wanted = [file for file in missing if download.unpack or file.name == download.name]
    if not wanted:
        return
    if url_base:
        download = replace(download, url=url_base.rstrip("/") + urlsplit(download.url).path)
    names = [file.name for file in wanted]
    target = folder / download.name
    try:
        with _progress(download.name) as progress:
            checked = fetch(download, target, progress)
    except Unreachable as error:
        known = f"{', '.join(names)}{f' (or {download.name})' if download.unpack else ''}"
        by_hand = f"put {known} into {folder} by hand, or name a mirror with --url-base"
        raise UserError(error.cause, f"{error.cure}, or {by_hand}" if error.cure else by_hand) from None
    if checked.state == "unknown":
        inside = "; the files in it are verified" if all(file.sha256 or file.md5 for file in wanted) else ""
        unverified = f"{download.name} could not be verified, no checksum of it is published: its SHA-256 is"
        _say(f"{unverified} {checked.digest}{inside}")
    if download.unpack:
        unpack_zip(target, folder, download.strip, names)
        target.unlink()
    _demand_published(folder, wanted)


def _demand_published(folder: Path, files: Sequence[File]) -> None:
    """Remove what was brought but is not the published file. Raises UserError where that was so."""
    from bertkit.downloads import verify

    for each in verify(folder, files):
        if each.state == "differs":
            (folder / each.name).unlink()
            raise UserError(
                f"{folder / each.name} has the digest {each.digest}, published is {each.published}",
                "it was removed; run the command again, or name a mirror with --url-base",
            )


@app.command(epilog="Example: bertkit data verify mrpc squad --json")
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Default: all of which a file is there.")
    ] = None,
    data_dir: DataDir = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Compare files with their published checksums; exit with 1 where one differs or is missing."""
    from bertkit import downloads

    sources = downloads.find_sources(names or list(downloads.load_sources()))
    found = {source: downloads.verify(data_dir / source.folder, source.files) for source in sources}
    if not names:
        found = {source: each for source, each in found.items() if any(file.state != "missing" for file in each)}
    if not found:
        raise UserError(f"no known data in {data_dir}", "`bertkit data get NAME` brings some; or name its folder")
    if as_json:
        put_json(json.dumps([_report(source, each) for source, each in found.items()], indent=1))
    else:
        for source, each in found.items():
            for file in each:
                put(f"{file.state:8} {data_dir / source.folder / file.name}")
    if not all(_good(each) for each in found.values()):
        raise typer.Exit(1)


def _report(source: Source, found: Sequence[Checked]) -> dict[str, object]:
    return {
        "name": source.name,
        "folder": source.folder,
        "ok": _good(found),
        "files": [asdict(each) for each in found],
    }


def _good(found: Sequence[Checked]) -> bool:
    return all(each.state in ("ok", "unknown") for each in found)


def _say(line: str) -> None:
    typer.echo(line, err=True)


@contextlib.contextmanager
def _progress(label: str) -> Iterator[Progress]:
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(label, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
    else:
        yield _lines(label)


def _lines(label: str) -> Callable[[int, int | None], None]:
    """A line every few seconds."""
    said = time.monotonic()

    def tell(done: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY_S:
            said = time.monotonic()
            _say(f"{label}: {_bytes(done)}" + (f" of {_bytes(total)}" if total else ""))

    return tell
