"""`bertkit migrate`"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.cli.migration.command import Migrated

ORDER = ("differs", "lost", "do")  # what changed, what could not be carried over, what is left to do
MOST_BYTES = 1 << 20  # read of standard input; far above what is taken for a script


def migrate(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="COMMAND …", help="Existing command line, as it is or in quotes; - or none: read stdin."
        ),
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", help="Target backend, in place of the one of the existing command.")
    ] = "",
    same_framework: Annotated[
        bool,
        typer.Option(
            "--same-framework", help="Keep the existing command's framework: TensorFlow's programs get its backend."
        ),
    ] = False,
    json: o.Json = False,
) -> int:
    """Translate an existing command line of NVIDIA's, Habana's, Intel's, Iluvatar's, Google's or Hugging Face's BERT.

    Options without an equivalent are listed, one line each. Supported are demo_bert, launch_benchmark.py, run_squad.sh,
    run_glue.sh, run_pretraining.sh, run.sub, the finetune_…_benchmark.sh scripts, run_glue.py, run_qa.py,
    evaluate-v1.1.py, NVIDIA's triton/ scripts, perf_client, NVIDIA's and TinyBERT's task_distill.py, and their
    launchers: mpirun, srun, torchrun, accelerate, gaudi_spawn.py, docker run. A script of several commands gives
    several. Exit code 1: a program was not understood.

    Examples:

      bertkit migrate ./demo_bert finetuning -d bf16 -m large -t mrpc -b 64 -s 128 -v

      bertkit migrate --backend cpu "python run_squad.py --bert_model=large --fp16 --train_batch_size=8 --do_train"

      cat train.sh | bertkit migrate

      bertkit migrate --same-framework scripts/finetune_train_benchmark.sh large true 8 squad

      bertkit migrate "bash triton/scripts/run_perf_client.sh bert 1 8 100 10 16"
    """
    from bertkit.cli.migration.translate import migrate as translate

    if backend and same_framework:
        raise UserError("--backend and --same-framework exclude each other", "give one of them")
    made = translate(_text(command or []), backend, same_framework)
    _show(made, json)
    for fault in made.faults:
        print(f"bertkit: {fault}", file=sys.stderr)
    return 1 if made.faults else 0


def _text(words: Sequence[str]) -> str:
    """The old command: one word is a text of its own, several are the words of one command."""
    if len(words) == 1 and words[0] != "-":
        return words[0]
    if words and list(words) != ["-"]:
        return " ".join(map(_as_typed, words))
    if not words and sys.stdin.isatty():
        raise UserError("no command line is given", "append it to `bertkit migrate`, or pipe a script into it")
    raw = sys.stdin.buffer.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        raise UserError(f"standard input holds over {MOST_BYTES:,} bytes", "give the command, not its log")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"standard input: not UTF-8 at byte {error.start + 1:,}", "save it as UTF-8") from None


def _as_typed(word: str) -> str:
    """A word that the shell has read once, as it is typed; NAME=VALUE stays one, and so do && and the like."""
    name, equals, value = word.partition("=")
    if word in ("&&", "||", ";", "|", "&", ">", ">>", "<", "2>&1", "…", "..."):
        return word
    return f"{name}={shlex.quote(value)}" if equals and name.isidentifier() else shlex.quote(word)


def _show(made: Migrated, json: bool) -> None:
    from bertkit.files.disk import to_json

    if json:
        commands = [
            {
                "command": str(one),
                "words": list(one.words),
                "environment": dict(one.env),
                "background": one.background,
            }
            for one in made.commands
        ]
        notes = [{"kind": note.kind, "text": note.text} for note in made.notes]
        faults = [{"cause": fault.cause, "cure": fault.cure} for fault in made.faults]
        put_json(to_json({"commands": commands, "notes": notes, "not_understood": faults}, indent=1))
        return
    for one in made.commands:
        put(str(one))
    for fault in made.faults:
        put(f"# not understood: {fault}")
    for note in sorted(made.notes, key=lambda note: ORDER.index(note.kind)):
        put(f"# {note}")
