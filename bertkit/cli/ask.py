"""`bertkit ask`"""

from __future__ import annotations

import json as json_format
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.inputs import read_text
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.data.tasks.squad.decoding import Found


def ask(
    run: Annotated[str, typer.Argument(help="Run folder, or any BERT model fine-tuned on SQuAD.", show_default=False)],
    question: Annotated[
        str | None, typer.Option("--question", help="Question; default: read from stdin, one per line.")
    ] = None,
    context: Annotated[str | None, typer.Option("--context", help="Paragraph that holds the answer.")] = None,
    context_file: Annotated[Path | None, typer.Option("--context-file", help="Text file with the paragraph.")] = None,
    task: o.TaskName = None,
    backend: o.BackendName = None,
    dtype: o.Dtype = None,
    seq_length: o.SeqLength = None,
    best: Annotated[int, typer.Option("-n", "--n-best", min=1, help="Number of answers to show.")] = 1,
    sets: o.Sets = None,
    force: o.Force = False,
    offline: o.Offline = False,
    dry_run: o.DryRun = False,
    json: o.Json = False,
) -> None:
    """Ask a model fine-tuned on SQuAD a question. A long context is split into windows, not truncated.

    Without --question, questions are read from stdin, one per line; without --context, the first line is the context.
    An empty line starts a new context.

    Examples:

      bertkit ask runs/squad --question "Who wrote it?" --context "The play was written by a clerk." -n 3

      bertkit ask runs/squad --context-file article.txt
    """
    from bertkit.console import Display
    from bertkit.distributed.world import World
    from bertkit.recipes.resolve import resolve
    from bertkit.training.answering import ask as ask_model
    from bertkit.training.answering import check_context, check_question, has_null
    from bertkit.training.inference import load, plan
    from bertkit.training.run_task import run_settings

    given = given_context(context, context_file)
    if question is not None:
        check_question(question)
    if given is not None:
        check_context(given)
    if question is not None and given is None:
        raise UserError("a question needs a context", "give it with --context or --context-file")
    settings = run_settings(run)
    chosen = o.recipe_options(backend, dtype, run, task, None, None, seq_length, None, None, None, None)
    chosen["offline"] = True if offline else None
    chosen["task"] = task or settings.get("task") or "squad"
    recipe = resolve(chosen, sets or (), run=settings).recipe
    if dry_run:
        plan(recipe, None, None, Display(), force)
        return
    loaded = load(recipe, World(), Display(), force)
    has_null(loaded)
    pairs = [(question, given or "")] if question is not None else _read(given)
    for asked, text in pairs:
        start = time.perf_counter()
        found = ask_model(loaded, recipe, asked, text)
        seconds = time.perf_counter() - start
        show_found(found, asked, best, json, seconds)
        if question is None and not json and sys.stdin.isatty():
            print(f"({seconds * 1000:.0f} ms)", file=sys.stderr)
    loaded.engine.close()


def given_context(context: str | None, file: Path | None) -> str | None:
    if context is not None and file is not None:
        raise UserError("--context and --context-file are both given", "give one of them")
    if file is None:
        return context
    return read_text(file, "check --context-file")


def _read(context: str | None) -> Iterator[tuple[str, str]]:
    """(question, context) from standard input; prompts only where somebody sits before it."""
    while True:
        line = _line("question> " if context else "context> ")
        if line is None:
            return
        if not line.strip():
            context = None
        elif context is None:
            context = line
        else:
            yield line, context


def _line(prompt: str) -> str | None:
    if sys.stdin.isatty():
        print(prompt, end="", file=sys.stderr, flush=True)
    line = sys.stdin.buffer.readline()
    try:
        return line.decode("utf-8").rstrip("\r\n") if line else None
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: not UTF-8 at byte {error.start + 1:,} of a line", "write UTF-8") from None


def show_found(found: Found, question: str, best: int, json: bool, seconds: float | None = None) -> None:
    """Print the best answers. `seconds`: that they took, where that is known."""
    if json:
        put_json(json_format.dumps(_as_json(found, question, best, seconds)), flush=True)
        return
    for span in found.n_best[:best] if best > 1 else ():
        put(f"{span.probability:6.1%}  {span.text or '(no answer)'}")
    if best == 1:
        put(found.best or "(no answer)", flush=True)


def _as_json(found: Found, question: str, best: int, seconds: float | None) -> dict[str, Any]:
    return {
        "question": question,
        "answer": found.best,
        "null_odds": found.null_odds,
        **({} if seconds is None else {"milliseconds": round(seconds * 1000, 1)}),
        "n_best": [
            {
                "text": one.text,
                "probability": one.probability,
                "score": one.score,
                "start": one.start,
                "end": one.end,
            }
            for one in found.n_best[:best]
        ],
    }
