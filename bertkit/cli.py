"""The command `bertkit`: adds up the commands, and turns every error a user can cause into one line."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

import bertkit
from bertkit.commands import (
    ask,
    backends,
    bench,
    check,
    compare,
    config,
    convert,
    data,
    evaluate,
    launch,
    migrate,
    models,
    predict,
    recipes,
    score,
    train,
)
from bertkit.errors import Stopped, UserError
from bertkit.spellings import translate


class _Commands(TyperGroup):
    """Typer makes a silent exit of Ctrl-C and an exit code of 1 of a closed pipe; here both come before it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            raise Stopped("stopped") from None
        except BrokenPipeError:  # `bertkit … | head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0


app = typer.Typer(
    cls=_Commands,
    name="bertkit",
    help="One BERT trainer for every vendor's chip.",
    epilog="Start with: bertkit data get sample && bertkit train --recipe demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
# what follows the command to be started is that command's, with or without `--`
app.command("launch", context_settings={"allow_interspersed_args": False})(launch.launch)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("ask")(ask.ask)
app.command("score")(score.score)
app.add_typer(bench.app, name="bench")
app.command("convert")(convert.convert)
app.command("compare")(compare.compare)
app.command("migrate", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    migrate.migrate
)
app.command("backends")(backends.backends)
app.command("check")(check.check)
app.command("models")(models.models)
app.add_typer(config.app, name="config")
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bertkit {bertkit.__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrongly used, 130 and 143 stopped by a signal."""
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger().handlers[0].setFormatter(_Plain())
    try:
        words, notes = translate(sys.argv[1:] if arguments is None else arguments)
        for note in notes:
            print(f"understood: {note}", file=sys.stderr)
        code = app(words, standalone_mode=False)
    except UserError as error:
        code = fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):  # before or after the command itself
        code = fail("stopped", 130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # typer's own errors for a wrong command line have it
            raise
        code = fail(_usage(error), 2)
    sys.exit(code if isinstance(code, int) else 0)


class _Plain(logging.Formatter):
    """Warnings say that they are; what the engine reports of its work (`Display` lets it) stands as it is."""

    def format(self, record: logging.LogRecord) -> str:
        said = super().format(record)
        return f"warning: {said}" if record.levelno >= logging.WARNING else said


def fail(message: str, code: int) -> int:
    print(f"bertkit: {message}", file=sys.stderr)
    return code


def _usage(error: Exception) -> str:
    message = " ".join(str(error.format_message()).split())  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "bertkit"
    return f"{message.rstrip('.')}; `{command} -h` lists what there is"
