"""`bertkit predict`"""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json


def predict(
    run: Annotated[str, typer.Argument(help="Run folder, or any fine-tuned BERT model.", show_default=False)],
    task: o.TaskName = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="Input file in the format of the task's test set; default: the test set."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Output folder for the predictions; default: RUN/predictions, if RUN is a folder."
        ),
    ] = None,
    data_dir: o.DataDir = None,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    batch_size: Annotated[int | None, typer.Option("-b", "--batch-size", help="Batch size per process.")] = None,
    seq_length: o.SeqLength = None,
    sets: o.Sets = None,
    force: o.Force = False,
    offline: o.Offline = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run inference on a file; write predictions in the submission format of GLUE or SQuAD.

    Examples:

      bertkit predict runs/mrpc -t mrpc --file data/glue/MRPC/test.tsv -o out

      bertkit predict runs/squad --file data/squad/dev-v1.1.json -o out

      bertkit predict runs/mnli -t ax --data-dir data/glue
    """
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.recipes.resolve import resolve
    from bertkit.training.inference import answers_folder, plan
    from bertkit.training.inference import predict as predict_run
    from bertkit.training.run_task import run_settings

    folder = answers_folder(run, output)
    chosen = o.recipe_options(backend, dtype, run, task, data_dir, None, seq_length, None, None, None, None)
    chosen |= {"evaluation.batch_size": batch_size, "offline": True if offline else None}
    resolved = resolve(chosen, sets or (), run=run_settings(run))
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)
    if dry_run:
        plan(resolved.recipe, "test", file, display, force)
        return
    made = predict_run(resolved.recipe, file, folder, world, display, force)
    if not world.is_first:
        return
    if json:
        put_json(json_format.dumps(made))
        return
    for entry in made:
        scored = "  ".join(f"{name} {value:.4f}" for name, value in entry.get("metrics", {}).items())
        put(f"{entry['predictions']}: {entry['examples']} predictions {scored}".rstrip())
