"""`bertkit embed`"""

from __future__ import annotations

import json as json_format
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json


class PoolingName(StrEnum):
    mean = "mean"
    cls = "cls"
    tokens = "tokens"


def embed(
    model: Annotated[
        str, typer.Argument(help="Run folder, any BERT model, or the name of a published one.", show_default=False)
    ],
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Input file: a table, or .txt with a text a line; - for standard input, a text a line.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Output file: .npy, .parquet or .jsonl; with --pooling tokens .npz or .jsonl. "
            "Default: JSON lines on standard output.",
            show_default=False,
        ),
    ] = None,
    pooling: Annotated[
        PoolingName,
        typer.Option(
            "--pooling",
            help="mean: over a text's tokens, [CLS] and [SEP] included, as sentence-transformers does; "
            "cls: the first token's; tokens: no pooling.",
        ),
    ] = PoolingName.mean,
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            help="Layers to take, comma-separated; several are concatenated. -1: the last, 0: the embeddings, 1: the "
            "first.",
        ),
    ] = "-1",
    normalise: Annotated[
        bool, typer.Option("--normalise", "--normalize", help="Divide each embedding by its L2 norm.")
    ] = False,
    text: o.TextColumn = None,
    data_dir: o.DataDir = None,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Batch size per process.")] = None,
    seq_length: o.SeqLength = None,
    sets: o.Sets = None,
    offline: o.Offline = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Extract embeddings of texts from a BERT's encoder.

    Embeddings are in the order of the input. Any BERT will do, fine-tuned or not: its head is not used.

    Examples:

      bertkit embed models/minilm reviews.csv -o reviews.npy

      bertkit embed models/minilm reviews.csv --pooling cls --layers -1,-2,-3,-4 -o reviews.parquet

      echo "charged twice" | bertkit embed runs/stars - --normalise

      bertkit embed base texts.txt --pooling tokens -o tokens.npz
    """
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.recipes.resolve import resolve
    from bertkit.training.embedding import STDIN, EmbeddingWay, embed_to_file, embed_to_stdout, open_source, plan
    from bertkit.training.embedding_files import check_output
    from bertkit.training.encoder import encoder_settings, open_encoder, start_encoder

    wanted, way = layers_of(layers), EmbeddingWay(pooling.value, normalise)
    if output is not None:
        check_output(output, way.tokens, None if source == STDIN else Path(source).expanduser())
    chosen = o.recipe_options(backend, dtype, model, None, data_dir, None, seq_length, None, None, None, None)
    chosen |= {"evaluation.batch_size": batch_size, "table.text": text, "offline": True if offline else None}
    recipe = resolve(chosen, sets or (), run=encoder_settings(model)).recipe
    world = from_env()
    if not world.is_first:  # embeddings are written once
        return
    display = Display(quiet=quiet)
    found = open_source(source, recipe)
    for note in found.notes:
        display.say(note)
    if dry_run:
        plan(open_encoder(recipe, wanted, display.say, dry_run=True), found, way, display)
        return
    with start_encoder(recipe, wanted, display.say) as encoder:
        if output is None:
            embed_to_stdout(encoder, found, way, display)
        else:
            made = embed_to_file(encoder, found, way, output, display)
            shape = {"file": str(made.path), "texts": made.texts, "width": made.width}
            if json:
                put_json(json_format.dumps(shape))
            else:
                put(f"{made.path}: {made.texts:,} texts, {made.width} values each")
        if encoder.full:
            display.say(
                f"{encoder.full:,} texts fill the maximum sequence length of {encoder.seq_length} tokens; "
                "longer ones are truncated (-s)"
            )


def layers_of(text: str) -> tuple[int, ...]:
    """Raises UserError where one is no whole number."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--layers {text!r} is no list of whole numbers", "write it as -1 or -1,-2,-3,-4") from None
