"""Help texts, settings and documents use the words of docs/style.md, and not the ones that it drops."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from bertkit.cli.main import app
from bertkit.engine.registry import installed
from bertkit.recipes.recipe import KEYS
from conftest import ROOT

DROPPED = {
    r"box(es)?": "host",
    r"legs?": "session",
    r"learnt": "trained on",
    r"(held|hold|holds|holding) \w+( \w+)? against|held against": "compare",
    r"unfair": "not comparable",
    r"hand(s|ed|ing)? in": "submit",
    r"whose chip": "backend",
    r"(go|goes|went) on (from|with)": "resume",
    r"leave (it|them|\S+) away": "drop",
    r"in bertkit's words": "translate a command",
    r"is said|are said|was said|be said": "reported, logged",
    r"is told|are told|was told": "reported",
    r"cards?": "device, GPU, capabilities",
}
# (document, the line's beginning): where a dropped word is meant
ALLOWED_IN_DOCS = {
    "docs/style.md": r"\| ",  # the word list itself
    "docs/adding-a-backend.md": r"",  # about the code's own names, and written elsewhere
    "docs/architecture.md": r"",
}
NOT_AN_ORDER = re.compile(r"^(Say|Says|Of|Whose|What|Where|How|Which|So|Fixes)\b")


def dropped(text: str) -> list[str]:
    """The dropped words in a text, each with what to write."""
    plain = re.sub(r"`[^`]*`|https?://\S+", "", text)  # code keeps its names
    return [
        f"{found[0]!r}: write {instead}"
        for word, instead in DROPPED.items()
        for found in re.finditer(rf"\b({word})\b", plain, re.IGNORECASE)
    ]


def commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}")


COMMANDS = dict(commands(typer.main.get_command(app), "bertkit"))


def help_texts() -> dict[str, str]:
    """Place -> text, of all commands and options, settings, and backends' settings."""
    found = {path: f"{command.help or ''}\n{command.epilog or ''}" for path, command in COMMANDS.items()}
    for path, command in COMMANDS.items():
        found |= {f"{path} {part.name}": getattr(part, "help", None) or "" for part in command.params}
    found |= {key: entry.description for key, entry in KEYS.items()}
    for backend in installed().values():
        found |= {f"{backend.name} device.{key}": setting.help for key, setting in backend.settings.items()}
    return found


def test_help_texts_have_no_dropped_word() -> None:
    texts = help_texts()
    assert len(texts) > 300  # they were found at all
    assert {place: found for place, text in texts.items() if (found := dropped(text))} == {}


@pytest.mark.parametrize("path", [path for path, command in COMMANDS.items() if command.params])
def test_every_option_is_described_in_one_sentence(path: str) -> None:
    command = COMMANDS[path]
    summary = (command.help or "").strip().partition("\n")[0]
    texts = {part.name: getattr(part, "help", None) or "" for part in command.params if not part.name.startswith("_")}
    assert summary.endswith("."), summary
    assert [text for text in (summary, *texts.values()) if NOT_AN_ORDER.match(text)] == []
    assert {name: text for name, text in texts.items() if name != "help" and not text.endswith(".")} == {}


@pytest.mark.parametrize(
    "page", ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
)
def test_documents_have_no_dropped_word(page: str) -> None:
    allowed = ALLOWED_IN_DOCS.get(page)
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    found = {
        number: words
        for number, line in enumerate(lines, 1)
        if not (allowed is not None and re.match(allowed, line)) and (words := dropped(line))
    }
    assert found == {}


def messages() -> Iterator[tuple[str, str]]:
    """(file:line, text) of what is raised or logged in the core and the plug-ins."""
    for folder in ("bertkit", "backends", "deployment", "launchers"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.Call):
                    continue
                name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                if name in ("UserError", "NotUnderstood", "Stopped", "Probe", "say", "warn", "warning", "info"):
                    for part in ast.walk(node):
                        if isinstance(part, ast.Constant) and isinstance(part.value, str):
                            yield f"{path.relative_to(ROOT)}:{part.lineno}", part.value


def test_messages_have_no_dropped_word() -> None:
    found = list(messages())
    assert len(found) > 1000  # they were found at all
    assert [(place, words) for place, text in found if (words := dropped(text))] == []


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^- \[(.*?)\]\((.*?)\): ", index, re.MULTILINE)
    assert sorted(target for _, target in listed) == sorted(
        path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md") if path.name != "README.md"
    )
    assert [name for name, target in listed if name != target] == []


def test_every_document_opens_with_what_its_reader_can_do_after_it() -> None:
    openings = {
        path.name: path.read_text(encoding="utf-8").split("\n\n")[1]
        for path in (ROOT / "docs").rglob("*.md")
        if path.name != "README.md"
    }
    assert {name: text for name, text in openings.items() if not text.startswith("After this page ")} == {}


@pytest.mark.parametrize(
    ("planted", "seen"),
    [
        ("Slurm: boxes.", ["'boxes': write host"]),
        ("Hand the script in with sbatch. It was learnt.", ["'learnt': write trained on"]),
        ("Afterwards hold the losses against another's.", ["'hold the losses against': write compare"]),
        ("`box` and `hold_against` are names in the code.", []),
    ],
)
def test_a_planted_word_is_found(planted: str, seen: list[str]) -> None:
    assert dropped(planted) == seen
