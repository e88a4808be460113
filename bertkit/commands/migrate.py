"""`bertkit migrate`"""

from __future__ import annotations

from typing import Annotated

import typer

from bertkit.commands import options as o
from bertkit.streams import put, put_json


def migrate(
    command: Annotated[str, typer.Argument(metavar="COMMAND", help="The old command line, in quotes.")],
    backend: Annotated[
        str, typer.Option("--backend", help="Whose chip, in place of the one that the old command is for.")
    ] = "",
    json: o.Json = False,
) -> None:
    """Say a command of NVIDIA's, Habana's, Intel's, Iluvatar's or Google's BERT in bertkit's words.

    What cannot be carried over is said, one line each. It reads demo_bert, launch_benchmark.py, run_squad.sh,
    run_glue.sh, run_pretraining.sh, run.sub, the finetune_…_benchmark.sh scripts, and the programs below them.

    Examples:

      bertkit migrate "./demo_bert finetuning -d bf16 -m large -t mrpc -b 64 -s 128 -v"

      bertkit migrate --backend cpu "python run_squad.py --bert_model=large --fp16 --train_batch_size=8 --do_train"
    """
    from bertkit.disk import to_json
    from bertkit.migrate.translate import migrate as translate

    made = translate(command, backend)
    if json:
        commands = [
            {"command": str(one), "words": list(one.words), "environment": dict(one.env)} for one in made.commands
        ]
        notes = [{"kind": note.kind, "text": note.text} for note in made.notes]
        put_json(to_json({"commands": commands, "not_yet": made.not_yet, "notes": notes}, indent=1))
        return
    for one in made.commands:
        put(str(one))
    for note in made.notes:
        put(f"# {note}")
