"""`bertkit predict`"""

from __future__ import annotations

import csv as csv_format
import dataclasses
import json as json_format
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json, writing

if TYPE_CHECKING:
    from bertkit.console import Display
    from bertkit.recipes.recipe import Recipe
    from bertkit.training.preparing import Prediction


def predict(
    run: Annotated[str, typer.Argument(help="Run folder, or any fine-tuned BERT model.", show_default=False)],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]",
            help="Input file, or - for standard input: a text or a JSON object a line.",
            show_default=False,
        ),
    ] = None,
    task: o.TaskName = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="The same as FILE; default: the task's test set.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", help="Output folder for the predictions; default: RUN/predictions, if RUN is a folder."
        ),
    ] = None,
    top_k: Annotated[
        int, typer.Option("--top-k", min=1, help="On standard output: the so many most probable labels.")
    ] = 1,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", min=0, max=1, help="On standard output: minimum probability of a label.", show_default=False
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
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
    """Run inference on a file or standard input.

    Of a task of GLUE or SQuAD the predictions go to a folder in its submission format. Of data of your own, and of
    standard input, they go to standard output: text, label, probability.

    Examples:

      bertkit predict runs/mrpc -t mrpc --file data/glue/MRPC/test.tsv -o out

      echo "charged twice" | bertkit predict runs/stars - --json

      bertkit predict runs/stars new.csv --csv --top-k 3

      bertkit predict runs/squad --file data/squad/dev-v1.1.json -o out

      bertkit predict runs/mnli -t ax --data-dir data/glue
    """
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.recipes.resolve import resolve
    from bertkit.training.inference import answers_folder, plan
    from bertkit.training.inference import predict as predict_run
    from bertkit.training.run_task import run_settings
    from bertkit.training.streaming import STDIN, is_streamed

    if source is not None and file is not None:
        raise UserError(f"two files are named, {source} and --file {file}", "name one")
    chosen = o.recipe_options(backend, dtype, run, task, data_dir, None, seq_length, None, None, None, None)
    chosen |= {"evaluation.batch_size": batch_size, "offline": True if offline else None}
    streamed = source is not None and is_streamed(run, source, output is not None)
    folder = None if streamed else answers_folder(run, output)
    resolved = resolve(chosen, sets or (), run=run_settings(run))
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)
    if streamed and not dry_run:
        if not world.is_first:  # answers are printed once
            return
        answer(
            resolved.recipe, str(source), Answers(top_k=top_k, threshold=threshold, csv=csv, json=json), display, force
        )
        return
    if top_k != 1 or threshold is not None or csv:
        raise UserError("--top-k, --threshold and --csv are for answers on standard output", "drop them, or drop -o")
    named = Path(source) if source not in (None, STDIN) else file
    if dry_run or folder is None:
        plan(resolved.recipe, None if source == STDIN else "test", named, display, force)
        return
    made = predict_run(resolved.recipe, named, folder, world, display, force)
    if not world.is_first:
        return
    if json:
        put_json(json_format.dumps(made))
        return
    for entry in made:
        scored = "  ".join(f"{name} {value:.4f}" for name, value in entry.get("metrics", {}).items())
        put(f"{entry['predictions']}: {entry['examples']} predictions {scored}".rstrip())


@dataclass(frozen=True)
class Answers:
    """How answers are printed."""

    top_k: int = 1
    threshold: float | None = None
    csv: bool = False
    json: bool = False


def answer(recipe: Recipe, source: str, how: Answers, display: Display, force: bool) -> None:
    """Print the answers to each row of a table, or of standard input, as they come."""
    from bertkit.training.streaming import open_predictor, stream

    with open_predictor(recipe, display, force) as predictor:
        writer = csv_format.writer(sys.stdout, delimiter="," if how.csv else "\t", lineterminator="\n")
        for number, (texts, found) in enumerate(stream(predictor, source)):
            fields = fields_of(texts, found, how)
            if how.json:
                put_json(json_format.dumps(fields, ensure_ascii=False), flush=True)
                continue
            cells = [_cell(value) for value in fields.values()]
            cells = cells if how.csv else [" ".join(cell.split()) for cell in cells]
            with writing():
                if how.csv and not number:
                    writer.writerow(fields)
                writer.writerow(cells)


def fields_of(texts: Sequence[str], found: Prediction, how: Answers) -> dict[str, Any]:
    """One example's answer by the names of its fields."""
    fields: dict[str, Any] = dict(zip(("text", "text_pair"), texts, strict=False))
    if found.choice is not None:
        return {"text": texts[0], "choice": found.choice, "label": found.label} | {
            "probability": found.scores[str(found.label)]
        }
    if found.label is None and found.value is None:  # of tokens
        spans = [dataclasses.asdict(span) for span in found.spans]
        return fields | {"entities": spans if how.json else [f"{span['text']}/{span['label']}" for span in spans]}
    if found.value is not None:
        return fields | (dict(found.values) or {"value": found.value})
    order = sorted(found.scores, key=lambda label: -found.scores[label])
    applying = found.labels if found.several else order
    if how.threshold is not None:
        applying = [label for label in order if found.scores[label] >= how.threshold]
    most = len(order) if found.several and how.top_k == 1 else how.top_k
    chosen = list(applying[:most])
    if found.several or how.top_k > 1:
        return fields | {"labels": chosen, "probabilities": [found.scores[label] for label in chosen]}
    return fields | {
        "label": chosen[0] if chosen else None,
        "probability": found.scores[order[0]],
    }


def _cell(value: Any) -> str:
    """A value as a cell: several are parted by bars, numbers have six digits."""
    from bertkit.data.tasks.own.rows import cell_text

    return "" if value is None else cell_text(value)
