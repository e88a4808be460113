"""Options that several commands share, and how those of `train` become a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say the plan; compute nothing.")]
Force = Annotated[
    bool, typer.Option("--force", help="Answer another task than the run was trained on.", show_default=False)
]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch neither a model nor data.")]
BackendName = Annotated[
    str | None,
    typer.Option("--backend", help="Whose chip: a backend's name or alias, or auto.", show_default=False),
]
Dtype = Annotated[
    str | None,
    typer.Option("-d", "--dtype", help="fp32, tf32, bf16, fp16 or auto; int8 to answer.", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        help="A published model (tiny … large), a model's folder or file, or a hub name.",
        show_default=False,
    ),
]
TaskName = Annotated[str | None, typer.Option("-t", "--task", help="What to learn.", show_default=False)]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Folder with the tasks' folders.", show_default=False)]
BatchSize = Annotated[
    int | None,
    typer.Option("-b", "--batch-size", help="Sequences of one update on each process.", show_default=False),
]
SeqLength = Annotated[
    int | None, typer.Option("-s", "--seq-length", help="Most tokens of an example.", show_default=False)
]
Epochs = Annotated[float | None, typer.Option("-e", "--epochs", help="Passes over the data.", show_default=False)]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", "--lr", help="Peak learning rate.", show_default=False)
]
Seed = Annotated[int | None, typer.Option("--seed", help="Fixes start, order and dropout.", show_default=False)]
Output = Annotated[str | None, typer.Option("-o", "--output", help="The run's folder.", show_default=False)]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", help="A recipe's name (`bertkit recipes`) or TOML file.", show_default=False),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="TOML file with settings; beats the recipe.", show_default=False),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of `bertkit config show`.", show_default=False),
]


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
