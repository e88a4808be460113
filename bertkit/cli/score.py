"""`bertkit score`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli.options import Json
from bertkit.files.streams import put, put_json, tell


def score(
    predictions: Annotated[Path, typer.Argument(help="Predictions file to score.", show_default=False)],
    task: Annotated[
        str, typer.Option("-t", "--task", help="Task: squad, squad2 or a task of GLUE.", show_default=False)
    ],
    file: Annotated[Path, typer.Option("--file", help="Reference answers, in the task's format.", show_default=False)],
    null_odds: Annotated[
        Path | None,
        typer.Option("--null-odds", help="No-answer probabilities by id (squad2).", show_default=False),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="No-answer threshold (squad2); official default: 1.0.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on missing or unknown ids.")] = False,
    json: Json = False,
) -> None:
    """Score a predictions file with the task's official metrics.

    SQuAD: a JSON object, {"ID": "answer", …}; a missing answer scores 0.
    GLUE: the submission format, a table with the columns index and prediction.

    Examples:

      bertkit score predictions.json -t squad --file data/squad/dev-v1.1.json

      bertkit score predictions.json -t squad2 --file data/squad/dev-v2.0.json --null-odds null_odds.json

      bertkit score MRPC.tsv -t mrpc --file data/glue/MRPC/dev.tsv --json
    """
    from bertkit.data.tasks.scoring import notes, score_file
    from bertkit.files.disk import to_json

    found = score_file(predictions, task, file, null_odds, threshold, strict)
    for note in notes(found):
        tell(f"note: {note}")
    if json:
        result = {
            "task": found.task,
            "file": str(file),
            "predictions": str(predictions),
            "examples": found.examples,
            "missing": len(found.missing),
            "unknown": len(found.unknown),
            "metrics": found.metrics,
        }
        put_json(to_json(result))
        return
    put(f"{found.task}, {found.examples} examples")
    width = max(map(len, found.metrics))
    for name, value in found.metrics.items():
        put(f"  {name:<{width}}  {value if isinstance(value, int) else f'{value:.4f}'}")
