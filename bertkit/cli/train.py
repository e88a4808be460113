"""`bertkit train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o


def train(
    backend: o.BackendName = None,
    model: o.Model = None,
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    dtype: o.Dtype = None,
    batch_size: o.BatchSize = None,
    seq_length: o.SeqLength = None,
    epochs: o.Epochs = None,
    learning_rate: o.LearningRate = None,
    seed: o.Seed = None,
    output: o.Output = None,
    recipe: o.RecipeName = None,
    config: o.Config = None,
    sets: o.Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in the output folder.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and say the plan; train nothing.")
    ] = False,
    offline: o.Offline = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="An answer that does not stand in its paragraph is an error.")
    ] = False,
    sync_gradients: Annotated[
        bool | None,
        typer.Option(
            "--sync-gradients/--no-sync-gradients",
            help="Several processes learn one model, or each its own and the best is the result.",
            show_default=False,
        ),
    ] = None,
    shard_data: Annotated[
        bool | None,
        typer.Option(
            "--shard-data/--no-shard-data",
            help="Without synchronising: each process learns from its own share of the data, or from all.",
            show_default=False,
        ),
    ] = None,
    phases: Annotated[
        str | None,
        typer.Option("--phases", help="Of pre-training: 1, 2, or 1,2 one after the other.", show_default=False),
    ] = None,
    eval_dir: Annotated[
        str | None, typer.Option("--eval-dir", help="Pre-training's evaluation set.", show_default=False)
    ] = None,
    target_mlm_accuracy: Annotated[
        float | None,
        typer.Option("--target-mlm-accuracy", help="Pre-training ends where it is reached.", show_default=False),
    ] = None,
    steps_this_run: Annotated[
        int | None,
        typer.Option(
            "--steps-this-run", help="End this job after so many updates; --resume goes on.", show_default=False
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile", metavar="STEPS", help="Updates of this job to profile, as 20-22.", show_default=False
        ),
    ] = None,
    parity_with: Annotated[
        Path | None,
        typer.Option(
            "--parity-with",
            metavar="RECORD",
            help="Afterwards hold the losses against another run's; exit code 1 where they part.",
            show_default=False,
        ),
    ] = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Fine-tune or pre-train a BERT and evaluate it.

    Examples:

      bertkit train -m large -t mrpc

      bertkit train -m models/minilm -t mrpc --data-dir data/glue -d bf16 -o runs/mrpc

      bertkit train -m models/minilm -t squad --data-dir data -o runs/squad

      bertkit train --recipe demo --set optimizer.learning_rate=1e-3

      bertkit train -m base -t cola --resume -o runs/cola

      bertkit train --recipe pretrain-tiny --data-dir prepared -o runs/tiny

      bertkit launch -n 2 -- train -m base -t mrpc --no-sync-gradients -o runs/best

    Hugging Face's spellings (--model_name_or_path, --per_device_train_batch_size, …) are understood too.
    """
    from bertkit.cli.training import run_training

    chosen = o.recipe_options(
        backend, dtype, model, task, data_dir, batch_size, seq_length, epochs, learning_rate, seed, output
    )
    chosen |= {
        "data.strict": True if strict else None,
        "offline": True if offline else None,
        "ranks.synchronise": sync_gradients,
        "ranks.shard_data": shard_data,
        "train.phases": phases,
        "train.steps_this_run": steps_this_run,
        "data.eval_dir": eval_dir,
        "evaluation.target_mlm_accuracy": target_mlm_accuracy,
        "log.profile": profile,
    }
    return run_training(chosen, sets, config, recipe, resume, overwrite, dry_run, parity_with, json_, quiet)
