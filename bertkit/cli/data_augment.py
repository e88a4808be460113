"""``bertkit data augment``"""

from __future__ import annotations

import dataclasses
import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json


def augment(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="Training file: of a task, with -t; else a table of your own (CSV, TSV, JSON lines, Parquet …).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            "-m",
            "--model",
            help="Pre-trained BERT with its masked-word head: a published name, a folder or a run.",
            show_default=False,
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option("-t", "--task", help="Task whose file it is: one of GLUE, squad, squad2.", show_default=False),
    ] = None,
    text: o.TextColumn = None,
    text_pair: o.PairColumn = None,
    copies: Annotated[
        int | None,
        typer.Option("--copies", help="Maximum copies of an example.", show_default="by the task, else 20"),
    ] = None,
    share: Annotated[float, typer.Option("--share", help="Probability that a word is replaced in a copy.")] = 0.4,
    candidates: Annotated[int, typer.Option("--candidates", help="Candidates of a word.")] = 15,
    masks: Annotated[
        int,
        typer.Option("--masks", help="Words masked in one sequence; more is faster, and some candidates differ."),
    ] = 1,
    vectors: Annotated[
        Path | None,
        typer.Option(
            "--vectors",
            metavar="FILE",
            help="Word vectors (GloVe's text format), to replace words of several word pieces by near ones.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed; the same seed gives the same file.")] = 1,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Masked sequences at a time.")] = None,
    seq_length: Annotated[
        int | None,
        typer.Option(
            "-s",
            "--seq-length",
            help="Maximum sequence length in tokens; a sequence holds the text twice.",
            show_default="the model's",
        ),
    ] = None,
    sets: o.Sets = None,
    data_dir: o.DataDir = None,
    offline: o.Offline = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")] = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Augment a training file: copies of its examples with words replaced by a masked language model.

    Repeat the command to resume an interrupted run.

    Examples:

      bertkit data augment data/glue/SST-2/train.tsv -t sst2 -m base -o sst2-augmented.tsv

      bertkit data augment reviews.csv --text review -m base --copies 5 -o more.csv

      bertkit data augment data/squad/train-v1.1.json -t squad -m base --masks 4 -s 256 -o augmented.json
    """
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.recipes.resolve import resolve
    from bertkit.training.augmenting import augment_file, augmentation_settings
    from bertkit.training.augmenting_work import Augmentation, prepare_work

    chosen = o.recipe_options(backend, dtype, model, None, data_dir, None, seq_length, None, None, None, None)
    chosen |= {"evaluation.batch_size": batch_size, "table.text": text, "table.text_pair": text_pair}
    told = augmentation_settings(model)
    resolved = resolve(chosen | {"offline": True if offline else None}, sets or (), run=told)
    if not from_env().is_first:  # the file is written once
        return
    display = Display(quiet=quiet)
    way = Augmentation(
        file=file,
        output=output,
        task=task,
        copies=copies,
        share=share,
        candidates=candidates,
        masks=masks,
        seed=seed,
        vectors=vectors,
        overwrite=overwrite,
    )
    work = prepare_work(resolved, way, display, dry_run)
    if dry_run:
        return
    made = augment_file(work, display)
    if json:
        put_json(json_format.dumps(dataclasses.asdict(made)))
    else:
        put(f"{made.file}: {made.examples:,} examples and {made.copies:,} copies")
