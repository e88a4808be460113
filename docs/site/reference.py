"""Pages of reference made from the code: commands, settings, the Python API. Markdown as MyST reads it."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer

import bertkit
from bertkit.cli.main import app
from bertkit.engine.registry import installed
from bertkit.recipes.recipe import Recipe

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def generated() -> dict[str, str]:
    """Each page's text by its file, below the folder of the site's pages."""
    return {
        **command_pages(typer.main.get_command(app)),
        "reference/settings.md": settings_page(),
        "reference/device-settings.md": device_page(),
        "reference/python-api.md": api_page(),
    }


# Commands


def command_pages(group: Any) -> dict[str, str]:
    """A page for each command of the first level, its sub-commands within."""
    commands = group.commands
    pages = {f"reference/commands/{name}.md": command_page(group, name) for name in commands}
    rows = [[f"[`bertkit {name}`](commands/{name}.md)", _prose(_summary(one))] for name, one in commands.items()]
    opening = "# Commands\n\nAfter this page you know which command does what; each has a page with its options.\n\n"
    names = "\n".join(f"commands/{name}" for name in commands)
    toctree = f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    return pages | {"reference/commands.md": opening + _table(("command", "what"), rows) + "\n" + toctree}


def command_page(group: Any, name: str) -> str:
    context = group.context_class(group, info_name="bertkit")
    return "".join(_commands(group.commands[name], context, name, 1))


def _commands(command: Any, above: Any, name: str, level: int) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=above)
    yield f"{'#' * level} bertkit {context.command_path.partition(' ')[2]}\n\n"
    about, *more = re.split(r"\n\s*\n", command.help or "", maxsplit=1)
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"{_prose(about)}\n\n```console\n$ {context.command_path} {usage}\n```\n\n"
    epilog = (command.epilog or "").replace("Example: ", "Example:\n\n  ")
    yield from (_help(text) + "\n\n" for text in (*more, epilog) if text)
    rows = [record for part in command.params if (record := _parameter(part, context))]
    if rows:
        yield _table(("argument or option", "what"), rows) + "\n"
    for inner, one in getattr(command, "commands", {}).items():
        yield from _commands(one, context, inner, level + 1)


def _parameter(part: Any, context: Any) -> list[str] | None:
    """What `-h` shows of an argument or option; None of one that it hides."""
    record = part.get_help_record(context)
    return None if record is None else [f"`{_cell(record[0].strip())}`", _prose(record[1])]


def _summary(command: Any) -> str:
    return str(command.help or "").strip().split("\n\n")[0].replace("\n", " ")


def _help(text: str) -> str:
    """Help text: paragraphs, and examples, whose lines are indented, as code."""
    parts = [part for part in re.split(r"\n\s*\n", text.strip("\n")) if part.strip()]
    made: list[str] = []
    for part in parts:
        if not part.startswith("  "):
            made.append(_prose(part))
        elif made and made[-1].startswith("```console"):
            made[-1] = made[-1].removesuffix("\n```") + f"\n$ {part.strip()}\n```"
        else:
            made.append(f"```console\n$ {part.strip()}\n```")
    return "\n\n".join(made)


# Settings


def settings_page() -> str:
    """Every setting of a recipe, section by section."""
    made = [
        "# Settings\n\nAfter this page you can set anything of a run: by `--set KEY=VALUE`, in a file for `--config`, "
        "as a\nkeyword in Python, or by an environment variable (`train.batch_size` is `BERTKIT_TRAIN_BATCH_SIZE`). "
        "[Configuration](../configuration.md)\nsays which of these wins.\n\n",
    ]
    hints = get_type_hints(Recipe)
    sections: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    made.append("## Of the run as a whole\n\n" + _settings(Recipe, "", set(sections) | {"device"}))
    made.append("\nSettings of one backend, `device.…`, have a [page of their own](device-settings.md).\n")
    for name, section in sections.items():
        about = (section.__doc__ or "").strip()
        own = "" if not about or about.startswith(section.__name__) else about + "\n\n"
        made.append(f"\n## {name}\n\n{own}" + _settings(section, f"{name}."))
    return "".join(made)


def _settings(section: Any, prefix: str, without: set[str] | None = None) -> str:
    fields = {name: one for name, one in section.__pydantic_fields__.items() if name not in (without or ())}
    rows = [
        [
            f"`{prefix}{name}`",
            _prose(kind_of(one)),
            f"`{_cell(json.dumps(one.default))}`",
            _prose(one.description or ""),
        ]
        for name, one in fields.items()
    ]
    return _table(("setting", "values", "default", "what"), rows)


def kind_of(field: Any) -> str:
    """What may stand there, as in: whole number ≥ 1, or null."""
    unset = type(None) in get_args(field.annotation)
    inner = [part for part in get_args(field.annotation) if part is not type(None)] if unset else [field.annotation]
    metadata = [*field.metadata, *getattr(inner[0], "__metadata__", ())]
    plain = getattr(inner[0], "__origin__", inner[0]) if hasattr(inner[0], "__metadata__") else inner[0]
    if get_origin(plain) is Literal:
        shown = ", ".join(f"`{value}`" for value in get_args(plain))
    else:
        bounds = [
            f"{sign} {getattr(part, name):g}"
            for part in (*metadata, *(more for part in metadata for more in getattr(part, "metadata", ())))
            for name, sign in BOUNDS.items()
            if getattr(part, name, None) is not None
        ]
        shown = " ".join([KINDS[plain], " and ".join(bounds)]).strip()
    return f"{shown}, or null" if unset else shown


def device_page() -> str:
    """The settings that one backend alone has."""
    made = [
        "# Settings of the backends\n\n"
        "After this page you can set what one backend alone has: `--set device.NAME=VALUE`.\n"
        "`bertkit backends NAME` lists the same, with what the backend found on your machine.\n"
    ]
    for backend in installed().values():
        if backend.settings:
            rows = [
                [
                    f"`device.{name}`",
                    ", ".join(f"`{value}`" for value in one.choices) or KINDS[type(one.default)],
                    f"`{_cell(json.dumps(one.default))}`",
                    _prose(one.help),
                ]
                for name, one in backend.settings.items()
            ]
            made.append(f"\n## {backend.name}\n\n" + _table(("setting", "values", "default", "what"), rows))
    return "".join(made)


# Python


def api_page() -> str:
    """The public names of `bertkit`, from their docstrings, by Sphinx's autodoc."""
    made = [
        "# Python API\n\nAfter this page you can call any public name of `bertkit`. "
        "[Python](../python.md) is the tutorial;\nwhatever a user can put right raises `bertkit.UserError`.\n",
    ]
    classes = [name for name in bertkit.__all__ if isinstance(getattr(bertkit, name), type)]
    functions = [name for name in bertkit.__all__ if name not in classes]
    for title, kind, names in (("Functions", "function", functions), ("Classes", "class", classes)):
        made.append(f"\n## {title}\n")
        for name in names:
            options = "   :members:\n" if kind == "class" else ""
            made.append(f"\n```{{eval-rst}}\n.. auto{kind}:: bertkit.{name}\n{options}```\n")
    return "".join(made)


def as_rst(lines: list[str]) -> list[str]:
    """A docstring's lines as reStructuredText: `code` is ``code``, and what is indented under a paragraph stays so."""
    made: list[str] = []
    for before, line in zip(["", "", *lines], ["", *lines], strict=False):
        if line.startswith("    ") and not before.strip() and not any(one.startswith("    ") for one in made[-2:]):
            made += ["::", ""]
        made.append(line if line.startswith("    ") else re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", line))
    return made[1:]


# Tables


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _prose(text: str) -> str:
    """Plain text as Markdown: what has a meaning there is escaped, save within `code`."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    escaped = [part if n % 2 else re.sub(r"([\\*_<>\[\]#~])", r"\\\1", part) for n, part in enumerate(parts)]
    return _cell("".join(escaped))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
