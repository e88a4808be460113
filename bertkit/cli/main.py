"""The command `bertkit`: adds up the commands, and turns every error a user can cause into one line."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from bertkit.cli import (
    ask,
    backends,
    bench,
    check,
    client,
    compare,
    config,
    convert,
    data,
    distill,
    embed,
    evaluate,
    export,
    launch,
    migrate,
    models,
    predict,
    prune,
    push,
    recipes,
    report,
    score,
    serve,
    train,
    tune,
)
from bertkit.cli.help import help_page
from bertkit.cli.hf_flags import translate
from bertkit.errors import CAUSE_LIMIT, Stopped, UserError, one_line, visible
from bertkit.files import streams
from bertkit.launch.children import keep_working_folder_out
from bertkit.version import __version__

# What the file system answers to a path or a size that it does not bear: nothing that the program could put right.
OF_THE_SYSTEM = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG, errno.ENOENT,
    errno.ENOSPC, errno.ENOTDIR, errno.ENXIO, errno.EPERM, errno.EROFS, errno.ESTALE,
}  # fmt: skip


class _Commands(TyperGroup):
    """Typer makes a silent exit of Ctrl-C and an exit code of 1 of a closed pipe; here both come before it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            code = super().invoke(ctx)
            streams.finish()
            return code
        except KeyboardInterrupt:
            raise Stopped("stopped") from None
        except BrokenPipeError:  # `bertkit … | head` has seen enough
            streams.forget(sys.stdout)
            return 0


app = typer.Typer(
    cls=_Commands,
    name="bertkit",
    help="One BERT trainer for every vendor's chip.",
    epilog="Start with: bertkit help first-run, or bertkit data get sample && bertkit train --recipe demo",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("distill")(distill.distill)
app.command("tune")(tune.tune)
# what follows the command to be started is that command's, with or without `--`
app.command("launch", context_settings={"allow_interspersed_args": False})(launch.launch)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("embed")(embed.embed)
app.command("ask")(ask.ask)
app.command("score")(score.score)
app.command("serve")(serve.serve)
app.add_typer(bench.app, name="bench")
app.add_typer(client.app, name="client")
app.command("export")(export.export)
app.command("convert")(convert.convert)
app.add_typer(prune.app, name="prune")
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("push")(push.push)
app.command("migrate", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(
    migrate.migrate
)
app.command("backends")(backends.backends)
app.command("check")(check.check)
app.command("models")(models.models)
app.add_typer(config.app, name="config")
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")
app.command("help")(help_page)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bertkit {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Show the version and exit."
    ),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrongly used, 130 and 143 stopped by a signal."""
    streams.prepare()
    keep_working_folder_out()
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
    except OSError as error:
        code = fail(_of_the_system(error), 2) if error.errno in OF_THE_SYSTEM else _unexpected(error)
    except Exception as error:
        # typer's own errors for a wrong command line can format themselves
        code = fail(_usage(error), 2) if hasattr(error, "format_message") else _unexpected(error)
    sys.exit(code if isinstance(code, int) else 0)


class _Plain(logging.Formatter):
    """Warnings say that they are; what the engine reports of its work (`Display` lets it) stands as it is."""

    def format(self, record: logging.LogRecord) -> str:
        said = visible(super().format(record))
        return f"warning: {said}" if record.levelno >= logging.WARNING else said


def fail(message: str, code: int) -> int:
    try:
        print(f"bertkit: {message}", file=sys.stderr)
    except OSError:  # a full disk, or nobody reads: the exit code still tells
        streams.forget(sys.stderr)
    return code


def _of_the_system(error: OSError) -> str:
    """What the system refused, and of which file."""
    files = ", ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return str(UserError(": ".join(part for part in (files, error.strerror or "") if part), "check the path"))


def _unexpected(error: Exception) -> int:
    """A fault of the program: what and where in two lines, the traceback in a file of its own."""
    try:
        handle, name = tempfile.mkstemp(prefix="bertkit-traceback-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"bertkit {__version__}, Python {sys.version}\n")
            traceback.print_exception(error, file=file)
    except OSError:  # no place for it: better seen here than lost
        with contextlib.suppress(OSError):
            traceback.print_exception(error)
        name = "the lines above"
    what = one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, CAUSE_LIMIT)
    code = fail(f"unexpected error, a fault of bertkit itself: {what}", 1)
    return fail(f"the traceback is in {name}; please report it", code)


def _usage(error: Exception) -> str:
    message = one_line(str(error.format_message()), CAUSE_LIMIT) or "no command is named"  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "bertkit"
    return f"{message.rstrip('.')}; `{command} -h` lists what there is"
