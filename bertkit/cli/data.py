"""``bertkit data``: data sets listed, fetched, verified; pre-training data; own tables looked at; files augmented."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli.data_augment import augment
from bertkit.cli.data_inspect import inspect
from bertkit.cli.data_look import look
from bertkit.cli.data_prepare import prepare
from bertkit.cli.data_vocabulary import vocabulary
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.files.downloads import Checked, DownloadSource

app = typer.Typer(
    name="data",
    help="Look at tables of your own; download and verify data sets; augment training files; prepare and inspect "
    "pre-training data.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: bertkit data vocabulary corpus/ -o vocab.txt --size 8192")(vocabulary)
app.command(
    epilog="Example: bertkit data prepare corpus/ -o data/phase1 --vocab vocab.txt -s 128 --bin-size 64",
)(prepare)
app.command(epilog="Example: bertkit data inspect data/phase1 --eval data/eval")(inspect)
app.command()(look)
app.command()(augment)

WIKIPEDIA = "wikipedia"  # brought by its language and date, not by an entry of the table
DataDir = Annotated[Path, typer.Option("--data-dir", help="Data folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


@app.command("list", epilog="Example: bertkit data list --json")
def list_sources(as_json: AsJson = False) -> None:
    """List data sets, checkpoints and installed tasks; with --json also terms of use, files and URLs."""
    from bertkit.data.fetching import size_of
    from bertkit.data.pretraining.wikipedia.getting import entry
    from bertkit.data.tasks import plugin_packages
    from bertkit.files.downloads import load_sources

    sources, plugins = [*load_sources().values(), entry()], plugin_packages()
    if as_json:
        rows = [*(_row(source) for source in sources), *(_plugin_row(*one) for one in plugins.items())]
        put_json(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    for source in sources:
        size = size_of(source).replace("about ", "~") if source.downloads else _kind(source)
        put(f"{source.name:36} {size:>9}  {source.folder:44} {source.title}")
    for row in (_plugin_row(*one) for one in plugins.items()):
        put(f"{row['name']:36} {'plug-in':>9}  {row['folder']:44} {row['title']}")


def _row(source: DownloadSource) -> dict[str, object]:
    return {
        "name": source.name,
        "title": source.title,
        "kind": "download" if source.downloads else _kind(source),
        "folder": source.folder,
        "terms": source.terms,
        "homepage": source.homepage,
        "bytes": source.size,
        "about": source.about,
        "aliases": list(source.aliases),
        "urls": [download.url for download in source.downloads],
        "files": [file.name for file in source.files],
    }


def _kind(source: DownloadSource) -> str:
    """Of an entry without downloads."""
    return "dumps" if source.name == WIKIPEDIA else "generated"


def _plugin_row(name: str, package: str) -> dict[str, object]:
    """A task that is a plug-in; of one that cannot be used, why."""
    from bertkit.data.tasks import find_task

    row: dict[str, object] = {"name": name, "kind": "plug-in", "package": package, "folder": ""}
    try:
        task = find_task(name)
    except UserError as error:
        return row | {"title": str(error)}
    return row | {"title": task.title, "folder": task.folder}


@app.command()
def get(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="Data sets or checkpoints, as in `bertkit data list`.")
    ],
    data_dir: DataDir = Path("data"),
    url_base: Annotated[
        str, typer.Option(help="Mirror with the publishers' paths, as in URL/glue/data/CoLA.zip.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be downloaded without downloading.")
    ] = False,
    language: Annotated[
        str, typer.Option(help="Language of the Wikipedia, as in its address (en, de, simple); for wikipedia alone.")
    ] = "",
    date: Annotated[
        str, typer.Option(help="Date of the dump (YYYYMMDD), or latest; for wikipedia alone.", show_default="latest")
    ] = "",
    workers: Annotated[
        int,
        typer.Option(
            min=0, help="Number of processes that extract the text; for wikipedia alone.", show_default="all cores"
        ),
    ] = 0,
) -> None:
    """Download, verify and unpack what is missing. A broken download is resumed.

    Examples:

      bertkit data get mrpc squad --data-dir data

      bertkit data get wikipedia --language simple
    """
    from bertkit.data.fetching import bring_named, lacking, own_sources
    from bertkit.files.downloads import find_sources

    names = _without_wikipedia(names, language, date, workers, data_dir, url_base, dry_run)
    if not names:
        return
    if not dry_run:
        bring_named(names, data_dir, _say, url_base)
        return
    for line in own_sources(url_base):
        _say(line)
    for source in find_sources(names):
        folder = data_dir / source.folder
        what = ", ".join(file.name for file in lacking(source, data_dir))
        _say(f"{source.name}: {f'would download {what} into {folder}' if what else f'{folder} is complete'}")


def _without_wikipedia(
    names: Sequence[str], language: str, date: str, workers: int, data_dir: Path, url_base: str, dry_run: bool
) -> list[str]:
    """Bring Wikipedia's text where it is named; the other names."""
    from bertkit.files.downloads import find_sources

    others = [name for name in names if name.lower() != WIKIPEDIA]
    find_sources(others)  # an unknown name is refused before anything is fetched
    if len(others) == len(names):
        for option, value in (("--language", language), ("--date", date), ("--workers", workers)):
            if value:
                raise UserError(f"{option} is for {WIKIPEDIA} alone", f"drop it, or name {WIKIPEDIA}")
        return others
    from bertkit.data.pretraining.wikipedia.dump import LATEST
    from bertkit.data.pretraining.wikipedia.getting import bring_wikipedia

    bring_wikipedia(data_dir, language, date or LATEST, workers, _say, url_base, dry_run)
    return others


@app.command(epilog="Example: bertkit data verify mrpc squad --json")
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Data sets or checkpoints; default: all present.")
    ] = None,
    data_dir: DataDir = Path("data"),
    as_json: AsJson = False,
) -> None:
    """Compare files with their published checksums; exit code 1 if one differs or is missing."""
    from bertkit.data.fetching import check
    from bertkit.data.pretraining.wikipedia.getting import found_here
    from bertkit.files import downloads

    tables = [name for name in names or downloads.load_sources() if name.lower() != WIKIPEDIA]
    sources = downloads.find_sources(tables)
    sources += found_here(data_dir) if not names or len(tables) < len(names) else []
    found = {source: check(data_dir / source.folder, source.files) for source in sources}
    if not names:
        found = {source: each for source, each in found.items() if any(file.state != "missing" for file in each)}
    if not found:
        raise UserError(
            f"no known data in {data_dir}", "download some with `bertkit data get NAME`, or name its folder"
        )
    if as_json:
        put_json(json.dumps([_report(source, each) for source, each in found.items()], indent=1))
    else:
        for source, each in found.items():
            for file in each:
                put(f"{file.state:8} {data_dir / source.folder / file.name}")
    if not all(_good(each) for each in found.values()):
        raise typer.Exit(1)


def _report(source: DownloadSource, found: Sequence[Checked]) -> dict[str, object]:
    return {
        "name": source.name,
        "folder": source.folder,
        "ok": _good(found),
        "files": [asdict(each) for each in found],
    }


def _good(found: Sequence[Checked]) -> bool:
    return all(each.state in ("ok", "noted", "unknown") for each in found)


def _say(line: str) -> None:
    typer.echo(line, err=True)
