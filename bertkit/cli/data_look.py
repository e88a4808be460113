"""``bertkit data look``"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.data.tasks.own.looking import Look
    from bertkit.recipes.recipe import Value

BAR = 30  # characters of the longest bar
MOST_LABELS = 20  # that are shown
OPTIONS = {
    "--train": "data.train_file", "--dev": "data.dev_file", "--text": "table.text", "--text-pair": "table.text_pair",
    "--label": "table.label", "-t": "task",
}  # fmt: skip


def look(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, TSV, JSON, JSON lines, Parquet, Arrow, or a saved data set.")
    ],
    dev: Annotated[
        Path | None, typer.Option("--dev", metavar="FILE", help="Second file, to detect overlap.", show_default=False)
    ] = None,
    text: o.TextColumn = None,
    text_pair: o.PairColumn = None,
    label: o.LabelColumn = None,
    task: Annotated[
        str | None,
        typer.Option("-t", "--task", help="classification, multilabel or regression.", show_default=False),
    ] = None,
    vocab: Annotated[
        Path | None,
        typer.Option(
            "--vocab", metavar="FILE", help="vocab.txt, or a model's folder: lengths in tokens.", show_default=False
        ),
    ] = None,
    write: Annotated[
        Path | None,
        typer.Option(
            "--write", metavar="FILE", help="Write what was found as settings (TOML), for --config.", show_default=False
        ),
    ] = None,
    sets: o.Sets = None,
    as_json: o.Json = False,
) -> None:
    """Inspect your own table: columns, lengths, labels, duplicates, overlap; propose the command that trains on it.

    Examples:

      bertkit data look reviews.csv

      bertkit data look reviews.csv --dev dev.csv --vocab models/minilm --label stars

      bertkit data look reviews.csv --write stars.toml && bertkit train --config stars.toml --train reviews.csv
    """
    from bertkit.console import Display
    from bertkit.data.tables.hub_tables import table_path
    from bertkit.data.tasks.own.looking import look as look_at
    from bertkit.errors import UserError
    from bertkit.files.disk import to_json, write_text
    from bertkit.files.inputs import exists
    from bertkit.model.tokenizer_files import read_vocabulary
    from bertkit.recipes.resolve import resolve
    from bertkit.training.recipe_parts import own_data
    from bertkit.training.run_folder import to_toml

    file = Path(o.from_stdin(str(file), quiet=True) or file)
    given = o.own_data(str(file), str(dev) if dev else None, text, text_pair, label, None) | {"task": task}
    recipe = resolve(given, sets or ()).recipe
    path, other = table_path(file, "train"), table_path(dev, "dev") if dev else None
    vocabulary = read_vocabulary(vocab / "vocab.txt" if vocab.is_dir() else vocab) if vocab else None
    follow = Display().follow()
    found = look_at(path, own_data(recipe), other, vocabulary, lambda rows: follow(f"reading {file.name}", rows, rows))
    words = command(found, given)
    if write is not None:
        if exists(write):
            raise UserError(f"{write} is already there", "name another file with --write")
        write_text(write, to_toml(settings(found, recipe.table.group)))
    if as_json:
        put_json(to_json(asdict(found) | {"path": str(found.path), "command": words}, indent=1))
    else:
        put("\n".join([*lines(found), "", f"train on it: {words}"]))


def settings(found: Look, group: str) -> dict[str, Value]:
    """What the table was found to be, by the recipe's keys: to be shared, and to train on other rows of its kind."""
    made: dict[str, Value] = {
        "task": found.facts.kind,
        "table.text": found.chosen.text,
        "table.text_pair": found.chosen.pair,
        "table.label": ",".join(found.chosen.labels),
        "table.separator": found.facts.separator or None,
        "table.group": group or None,
        "data.seq_length": found.seq_length,
    }
    return {key: value for key, value in made.items() if value is not None}


def command(found: Look, given: Mapping[str, Any]) -> str:
    """The command that trains on the table; what the file tells by itself is left out."""
    said = {option: given[key] for option, key in OPTIONS.items()} | {"-s": found.seq_length}
    words = [word for name, value in said.items() if value is not None for word in (name, str(value))]
    from bertkit.training.run_folder import plain_name

    output = f"runs/{plain_name(found.path)}"
    return shlex.join(["bertkit", "train", "-m", "base", *words, "-o", output])


def lines(found: Look) -> list[str]:
    """The table in words."""
    from bertkit.data.tasks.own.templates import columns_of

    said = [f"{found.path}: {found.rows:,} rows, {found.form}", "", "columns"]
    wide = max(len(name) for name in found.columns)
    marks = dict.fromkeys(columns_of(found.chosen.pair or ""), "second text")
    marks |= dict.fromkeys(columns_of(found.chosen.text), "text") | dict.fromkeys(found.chosen.labels, "label")
    for name, kind in found.columns.items():
        said.append(f"  {name:{wide}}  {kind}" + (f"   <- {marks[name]}" if name in marks else ""))
    said += ["", f"task: {found.facts.kind}"]
    if found.target:
        said.append(f"  target: from {found.target[0]:g} to {found.target[2]:g}, mean {found.target[1]:g}")
    said += _labels(found)
    shares = ", ".join(f"{name} {value}" for name, value in found.lengths.items())
    said += ["", f"lengths in {found.unit}: {shares}"]
    about = "" if found.unit == "tokens" else ", estimated from words (name --vocab to count tokens)"
    said.append(f"  -s {found.seq_length} cuts {found.cut:.1%} of the rows{about}")
    if found.empty:
        said.append(f"empty: {found.empty:,} rows lack a text or a label; --set table.empty=skip leaves them out")
    if found.duplicates:
        other = f", {found.contradicting:,} of them with another label" if found.contradicting else ""
        said.append(f"duplicates: {found.duplicates:,} rows repeat the text of an earlier one{other}")
    if found.overlap is not None:
        said.append(f"overlap: {found.overlap:,} rows of the dev file have a text of this file")
    return said + [f"note: {guess}" for guess in found.guesses]


def _labels(found: Look) -> list[str]:
    most = max(found.labels.values(), default=0)
    order = sorted(found.labels, key=lambda label: -found.labels[label])
    wide = max((len(label[:40]) for label in order), default=0)
    said = [
        f"  {label[:40]:{wide}}  {found.labels[label]:>8,}  {'#' * round(BAR * found.labels[label] / most)}"
        for label in order[:MOST_LABELS]
    ]
    return said + ([f"  and {len(order) - MOST_LABELS:,} more"] if len(order) > MOST_LABELS else [])
