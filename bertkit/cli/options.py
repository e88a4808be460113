"""Options that several commands share, and how those of `train` become a recipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import completion
from bertkit.errors import UserError

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
Profile = Annotated[
    str,
    typer.Option(
        "--profile", metavar="BATCHES", help="Write a Chrome trace of these batches, as 2-3.", show_default=False
    ),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print errors only.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Validate inputs and print the plan without computing.")]
Force = Annotated[
    bool, typer.Option("--force", help="Allow another task than the run was trained on.", show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help="Never download models or data.")]
BackendName = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="Backend to run on: a name, an alias or auto.",
        autocompletion=completion.backends,
        show_default=False,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "-d", "--dtype", help="Precision: fp32, tf32, bf16, fp16 or auto; int8 for inference.", show_default=False
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="Model: a published name (tiny … large), a folder, a file or a hub name.",
        autocompletion=completion.models,
        show_default=False,
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "-t",
        "--task",
        help="Task: pretrain, squad, one of GLUE or a plug-in; with --train: the kind of task.",
        autocompletion=completion.tasks,
        show_default=False,
    ),
]
DataDir = Annotated[
    str | None, typer.Option("--data-dir", help="Data folder, with one folder per task.", show_default=False)
]
TrainFile = Annotated[
    str | None,
    typer.Option(
        "--train",
        metavar="FILE",
        help="Training file of your own: CSV, TSV, JSON, JSON lines, Parquet, Arrow; - for standard input.",
        show_default=False,
    ),
]
DevFile = Annotated[
    str | None,
    typer.Option("--dev", metavar="FILE", help="File to evaluate on; default: held-out rows.", show_default=False),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text",
        metavar="COLUMN",
        help="Column with the text, or a template of several: '{title}: {body}'.",
        show_default=False,
    ),
]
PairColumn = Annotated[
    str | None,
    typer.Option("--text-pair", metavar="COLUMN", help="Column with the second text of a pair.", show_default=False),
]
ChoiceColumns = Annotated[
    str | None,
    typer.Option(
        "--choices",
        metavar="COLUMNS",
        help="Multiple choice: columns with the choices, comma-separated, or one with lists.",
        show_default=False,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label", metavar="COLUMN", help="Column with the label; several, comma-separated.", show_default=False
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", help="Batch size per process.", show_default=False),
]
SeqLength = Annotated[
    int | None, typer.Option("-s", "--seq-length", help="Maximum sequence length in tokens.", show_default=False)
]
Epochs = Annotated[float | None, typer.Option("-e", "--epochs", help="Number of training epochs.", show_default=False)]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", "--lr", help="Peak learning rate.", show_default=False)
]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Random seed (initialization, shuffling, dropout).", show_default=False)
]
Output = Annotated[str | None, typer.Option("-o", "--output", help="Output folder of the run.", show_default=False)]
RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Recipe: a name (`bertkit recipes`) or a TOML file.",
        autocompletion=completion.recipes,
        show_default=False,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file (TOML); overrides the recipe.", show_default=False),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override any setting of `bertkit config show`.", show_default=False
    ),
]


def from_stdin(name: str | None, quiet: bool = False) -> str | None:
    """The file that is named; of `-` the one that standard input is kept in, which is shown."""
    if name != "-":
        return name
    from bertkit.console import Display
    from bertkit.data.tables.in_memory import kept_stream
    from bertkit.distributed.world import from_env
    from bertkit.training.recipe_parts import user_cache

    if from_env().size > 1:
        raise not_shared()
    path = kept_stream(sys.stdin.buffer, user_cache() / "tables")
    Display(quiet=quiet).say(f"data: standard input is kept as {path}")
    return str(path)


def not_shared() -> UserError:
    return UserError("standard input cannot be read by several processes", "name a file with --train")


def own_data(
    train: str | None, dev: str | None, text: str | None, pair: str | None, label: str | None, choices: str | None
) -> dict[str, str | int | float | bool | None]:
    """The options for data of one's own by the recipe's keys."""
    return {
        "data.train_file": train,
        "data.dev_file": dev,
        "table.text": text,
        "table.text_pair": pair,
        "table.label": label,
        "table.choices": choices,
    }


def recipe_options(
    backend: str | None,
    dtype: str | None,
    model: str | None,
    task: str | None,
    data_dir: str | None,
    batch_size: int | None,
    seq_length: int | None,
    epochs: float | None,
    learning_rate: float | None,
    seed: int | None,
    output: str | None,
) -> dict[str, str | int | float | bool | None]:
    """Options by the recipe's keys; None where one was not given."""
    return {
        "backend": backend,
        "precision": dtype,
        "model.name": model,
        "task": task,
        "data.dir": data_dir,
        "train.batch_size": batch_size,
        "data.seq_length": seq_length,
        "train.epochs": epochs,
        "optimizer.learning_rate": learning_rate,
        "seed": seed,
        "output": output,
    }
