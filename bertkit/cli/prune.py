"""`bertkit prune`"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json, tell

if TYPE_CHECKING:
    from bertkit.recipes.recipe import Recipe
    from bertkit.training.pruning import Cut, PruneReport

app = typer.Typer(
    help="Make a model smaller without training, and measure its loss of score.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Source = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Run folder, or any BERT model: a folder, a file or a name.", show_default=False
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", help="Output folder.", show_default=False)]
BatchSize = Annotated[int | None, typer.Option("-b", "--batch-size", help="Batch size of the evaluation.")]
Score = Annotated[bool, typer.Option("--score/--no-score", help="Evaluate before and after, where the task is known.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing pruned model.")]


@app.command()
def layers(
    model: Source,
    output: Output,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep", metavar="LAYERS", help="Layers to keep, comma-separated; 0: the first.", show_default=False
        ),
    ] = None,
    number: Annotated[
        int | None,
        typer.Option("--number", help="Number of layers to keep, evenly spaced up to the last.", show_default=False),
    ] = None,
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    dev_file: o.DevFile = None,
    score: Score = True,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: BatchSize = None,
    seq_length: o.SeqLength = None,
    sets: o.Sets = None,
    overwrite: Overwrite = False,
    force: o.Force = False,
    offline: o.Offline = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Keep some of a model's layers.

    The result is a model like any other: train, predict, export and transformers load it. Without its layers a model
    loses much of its score until it is trained again: bertkit train -m OUTPUT.

    Examples:

      bertkit prune layers models/base -o models/base-6 --number 6

      bertkit prune layers runs/mrpc -o runs/mrpc-4 --keep 2,5,8,11 -t mrpc --data-dir data/glue
    """
    from bertkit.training.pruning import layers_cut

    cut = layers_cut(_numbers(keep), number)
    chosen = _chosen(backend, dtype, model, task, data_dir, dev_file, seq_length, batch_size, offline)
    _print(_prune(chosen, sets, output, lambda recipe: cut, score, overwrite, force, quiet), json)


@app.command()
def heads(
    model: Source,
    output: Output,
    number: Annotated[
        int, typer.Option("--number", min=1, help="Number of heads to set to 0, over all layers.", show_default=False)
    ],
    by: Annotated[
        str,
        typer.Option("--by", help="Importance of a head: gradient (of the task's loss) or norm (of its weights)."),
    ] = "gradient",
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Rows of the training set that gradients are taken of.")
    ] = 512,
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    dev_file: o.DevFile = None,
    score: Score = True,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: BatchSize = None,
    seq_length: o.SeqLength = None,
    sets: o.Sets = None,
    overwrite: Overwrite = False,
    force: o.Force = False,
    offline: o.Offline = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Set a model's least important attention heads to 0.

    Shapes and speed stay as they are, so that every program loads the result; later training leaves those heads at 0.

    Examples:

      bertkit prune heads runs/sst2 -o runs/sst2-heads --number 24 --data-dir data/glue

      bertkit prune heads models/base -o models/base-heads --number 36 --by norm
    """
    from bertkit.training.pruning_heads import heads_cut

    if by not in ("gradient", "norm"):
        raise UserError(f"--by {by} is not known", "choose gradient or norm")
    chosen = _chosen(backend, dtype, model, task, data_dir, dev_file, seq_length, batch_size, offline)
    made = _prune(
        chosen, sets, output, lambda recipe: heads_cut(recipe, number, by, rows), score, overwrite, force, quiet
    )
    _print(made, json)


@app.command()
def vocabulary(
    model: Source,
    output: Output,
    corpus: Annotated[
        list[Path],
        typer.Option(
            "--corpus",
            metavar="FILE",
            help="File with texts of the kind that the model is for: text, CSV, JSON, JSON lines, Parquet, Arrow; a "
            "quoted pattern names several. Repeatable.",
            show_default=False,
        ),
    ],
    at_least: Annotated[
        int, typer.Option("--at-least", min=1, help="Keep word pieces that occur as often in the corpus.")
    ] = 1,
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    dev_file: o.DevFile = None,
    score: Score = True,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: BatchSize = None,
    seq_length: o.SeqLength = None,
    sets: o.Sets = None,
    overwrite: Overwrite = False,
    force: o.Force = False,
    offline: o.Offline = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Keep the word pieces that a corpus needs, and their embeddings.

    Texts of the corpus are encoded to the same pieces as before. Special pieces and single characters always stay, so
    that other texts are encoded too, into more and shorter pieces.

    Examples:

      bertkit prune vocabulary runs/sst2 -o runs/sst2-small --corpus data/glue/SST-2/train.tsv

      bertkit prune vocabulary models/base -o models/base-small --corpus "corpus/*.txt" --at-least 5
    """
    from bertkit.training.pruning import vocabulary_cut

    cut = vocabulary_cut(corpus, at_least)
    chosen = _chosen(backend, dtype, model, task, data_dir, dev_file, seq_length, batch_size, offline)
    _print(_prune(chosen, sets, output, lambda recipe: cut, score, overwrite, force, quiet), json)


def _chosen(
    backend: str | None,
    dtype: str | None,
    model: str,
    task: str | None,
    data_dir: str | None,
    dev_file: str | None,
    seq_length: int | None,
    batch_size: int | None,
    offline: bool,
) -> dict[str, str | int | float | bool | None]:
    """The settings that the options of each command name."""
    chosen = o.recipe_options(backend, dtype, model, task, data_dir, None, seq_length, None, None, None, None)
    return chosen | {"evaluation.batch_size": batch_size, "offline": offline or None, "data.dev_file": dev_file}


def _prune(
    chosen: dict[str, str | int | float | bool | None],
    sets: list[str] | None,
    output: Path,
    make: Callable[[Recipe], Cut],
    score: bool,
    overwrite: bool,
    force: bool,
    quiet: bool,
) -> PruneReport:
    from bertkit.console import Display
    from bertkit.recipes.resolve import resolve
    from bertkit.training.pruning import PruneRequest, prune
    from bertkit.training.run_task import run_settings

    named = [name for name in ("task", "data.dir", "data.dev_file") if chosen[name]]
    if named and not score:
        raise UserError("--no-score, but the data of an evaluation is named", "drop the one or the other")
    request = PruneRequest(output, (True if named else None) if score else False, overwrite, force)
    recipe = resolve(chosen, sets or (), run=run_settings(str(chosen["model.name"]))).recipe
    return prune(recipe, request, make(recipe), Display(quiet=quiet))


def _print(report: PruneReport, json: bool) -> None:
    from bertkit.files.disk import to_json

    if json:
        put_json(to_json(asdict(report)))
        return
    before, after = report.before, report.after
    put(f"{report.folder}, of {report.source}")
    for line in report.said:
        put(line)
    put(
        f"parameters (M): {before.parameters / 1e6:.2f} before, {after.parameters / 1e6:.2f} after; "
        f"weights (MB): {before.bytes / 1e6:.1f} before, {after.bytes / 1e6:.1f} after "
        f"({(after.bytes - before.bytes) / before.bytes:+.1%})"
    )
    if report.scores is None:
        tell(f"no score was measured: {report.unmeasured}")
        return
    scores = report.scores
    put(f"{scores['task']} dev, {scores['examples']} examples, {scores['precision']}:")
    for name, value in scores["before"].items():
        now = scores["after"][name]
        put(f"  {name}: {value:.4f} before, {now:.4f} after ({now - value:+.4f})")


def _numbers(text: str | None) -> tuple[int, ...] | None:
    """Of layers, as `--keep` has them."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise UserError(f"--keep {text!r} is no list of layers", "write it as --keep 1,3,5")
    return tuple(map(int, parts))
