"""`bertkit distill`"""

from __future__ import annotations

from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put_json


def distill(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Trained model to learn from: a run or a folder.")],
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", help="Student: a folder, or a size started at random.", show_default=False),
    ] = None,
    layers: Annotated[
        str,
        typer.Option(
            "--layers",
            help="Start from layers of the teacher: how many, evenly spaced, or their numbers from 0, as 1,3,5.",
            show_default=False,
        ),
    ] = "",
    stages: Annotated[
        str,
        typer.Option(
            "--stages",
            help="Stages: relations, tinybert or last_layer, then logits; default: relations,logits, on pre-training "
            "data relations.",
            show_default=False,
        ),
    ] = "",
    task: o.TaskName = None,
    data_dir: o.DataDir = None,
    train_file: o.TrainFile = None,
    dev_file: o.DevFile = None,
    transfer: Annotated[
        str | None,
        typer.Option(
            "--transfer", metavar="FILE", help="Learn from these unlabelled texts as well.", show_default=False
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option("--temperature", help="Temperature of the logits; default: 2.", show_default=False),
    ] = None,
    hard: Annotated[
        float | None,
        typer.Option("--hard", help="Weight of the loss by labels beside it; default: 0.", show_default=False),
    ] = None,
    state_epochs: Annotated[float, typer.Option("--state-epochs", help="Epochs of each stage before the last.")] = 1.0,
    state_rate: Annotated[
        float, typer.Option("--state-lr", help="Peak learning rate of each stage before the last.")
    ] = 1e-4,
    backend: o.BackendName = None,
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
    resume: Annotated[bool, typer.Option("--resume", help="Resume from the latest checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing runs in the output folders.")
    ] = False,
    dry_run: o.DryRun = False,
    offline: o.Offline = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Train a small model to answer as a trained one does.

    Task, data, length and precision are the teacher's where they are not given.

    Examples:

      bertkit distill runs/sst2 --layers 3 -o runs/small

      bertkit distill models/base -m 4l-312d -t pretrain --data-dir shards -o runs/general

      bertkit distill runs/sst2 -m runs/general -o runs/small

      bertkit distill runs/sst2 -m 4l-312d --transfer wikipedia.txt --state-epochs 5 -o runs/small

      bertkit distill runs/squad --layers 1,3,5 --stages logits --hard 0.5 -o runs/small

      bertkit launch -n 2 -- distill runs/mrpc --layers 3 -o runs/small
    """
    from bertkit.cli.train import show
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.files.disk import to_json
    from bertkit.training.stages import Course, make_stages, run_stages

    chosen = o.recipe_options(
        backend, dtype, model, task, data_dir, batch_size, seq_length, epochs, learning_rate, seed, output
    )
    chosen |= o.own_data(o.from_stdin(train_file, quiet), dev_file, None, None, None, None)
    chosen |= {
        "offline": True if offline else None,
        "distill.transfer": transfer,
        "distill.temperature": temperature,
        "distill.hard": hard,
    }
    named = tuple(part.strip() for part in stages.split(",") if part.strip())
    course = Course(teacher, layers, named, state_epochs, state_rate)
    made = make_stages(course, chosen, sets or (), config, recipe)
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)
    run = run_stages(made, world, display, resume=resume, overwrite=overwrite, dry_run=dry_run)
    if run.record is not None and world.is_first:
        show(run, display)
        told = run.record["callbacks"].get("distillation", {})
        for line in compared(told):
            display.say(line)
        if json_:
            put_json(to_json(run.record))
    return run.exit_code


def compared(told: dict[str, object]) -> list[str]:
    """Teacher and student side by side, in lines."""
    sizes, layers = told.get("parameters"), told.get("layers")
    if not isinstance(sizes, dict) or not isinstance(layers, dict):
        return []
    said = [
        f"layers: {layers['teacher']} of the teacher, {layers['student']} of the student; parameters (million): "
        f"{sizes['teacher'] / 1e6:.1f}, {sizes['student'] / 1e6:.1f}"
    ]
    metrics, slow, fast = told.get("teacher_metrics"), told.get("teacher_dev_seconds"), told.get("dev_seconds")
    if isinstance(metrics, dict):
        said.append("teacher on the dev set: " + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
    if isinstance(slow, float) and isinstance(fast, float) and fast:
        said.append(f"the student answers the dev set {slow / fast:.2f} times as fast as the teacher did")
    return said
