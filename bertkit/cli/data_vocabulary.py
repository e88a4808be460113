"""``bertkit data vocabulary``"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.cli.data_prepare import Inputs, Sources, input_format_of
from bertkit.errors import UserError
from bertkit.files.streams import put_json

GOOGLES = 30522  # pieces of Google's English uncased vocabulary


def vocabulary(
    sources: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="Vocabulary file to write.", show_default=False)],
    size: Annotated[int, typer.Option("--size", min=6, help="Maximum number of word pieces.")] = GOOGLES,
    cased: Annotated[bool, typer.Option("--cased", help="Keep capitals and accents.")] = False,
    min_frequency: Annotated[
        int, typer.Option("--min-frequency", min=1, help="Minimum frequency of a pair to merge.")
    ] = 2,
    input_format: Inputs = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train a WordPiece vocabulary on text, for `bertkit data prepare`."""
    from bertkit.console import Display
    from bertkit.data.pretraining.prepare.sources import find_sources, text_bytes
    from bertkit.data.pretraining.prepare.vocabulary import PASSES, learn
    from bertkit.files.inputs import exists, is_folder
    from bertkit.model.tokenizer_files import write_vocabulary
    from bertkit.model.vocabulary import Vocabulary

    if is_folder(output):
        raise UserError(f"{output} is a folder", "name the file, as in -o vocab.txt")
    if exists(output) and not overwrite:
        raise UserError(f"{output} is there already", "name another file, or --overwrite it")
    found = find_sources(sources, input_format_of(input_format))
    started = time.monotonic()
    with Display(quiet).progress("bytes", PASSES * text_bytes(found)) as counter:
        pieces = learn(found, size, not cased, min_frequency, counter.add)
    made = Vocabulary(output, pieces, not cased)
    write_vocabulary(output, made)
    seconds = time.monotonic() - started
    if as_json:
        said = {"file": str(output), "pieces": len(pieces), "cased": cased, "sha256": made.digest, "seconds": seconds}
        put_json(json.dumps(said, indent=1))
    if not quiet:
        few = f", not {size:,}: the text has no more pairs met {min_frequency} times" if len(pieces) < size else ""
        typer.echo(f"{len(pieces):,} word pieces in {output}{few} ({seconds:.1f} s)", err=True)
