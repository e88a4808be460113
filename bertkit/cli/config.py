"""`bertkit config`"""

from __future__ import annotations

import json as json_format
from typing import Annotated

import typer

from bertkit.cli import options as o
from bertkit.files.streams import put, put_json

app = typer.Typer(help="Show the settings, their values and their sources.", no_args_is_help=True)


@app.command("show")
def show(
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
    resolved: Annotated[bool, typer.Option("--resolved", help="Show resolved values with their sources.")] = False,
    json: o.Json = False,
) -> None:
    """Show every setting with its meaning, or with --resolved its value and source.

    Precedence: option, --set, --config, environment (BERTKIT_TRAIN_BATCH_SIZE=16), recipe, default.

    Examples:

      bertkit config show

      bertkit config show --resolved --recipe demo -b 16 --set seed=7
    """
    from bertkit.recipes.recipe import KEYS
    from bertkit.recipes.resolve import resolve

    options = o.recipe_options(
        backend, dtype, model, task, data_dir, batch_size, seq_length, epochs, learning_rate, seed, output
    )
    found = resolve(options, sets or (), config, recipe)
    values = found.flat()
    if json:
        rows = {key: {"value": value, "source": found.sources[key]} for key, value in values.items()}
        put_json(json_format.dumps(rows))
        return
    width = max(len(key) for key in values)
    for key, value in values.items():
        text = found.sources[key] if resolved or key not in KEYS else KEYS[key].description
        put(f"{key:<{width}} = {json_format.dumps(value):<12} # {text}")
