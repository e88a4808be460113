"""A shell's script read into simple commands: quotes, comments, `cd`, variables that the script itself sets, documents.

Documents write for people: `[--flag]` may be left out, `--a|--b` is a choice, `<name>` is to be filled in, `…` stands
for more. All of that is understood here, and noted. Nothing is ever run: what only a shell could know (`$(nproc)`, the
turns of a loop) stays as it is written, and whoever needs its value asks for it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from bertkit.cli.migration.command import LITERAL, Draft, NotUnderstood
from bertkit.cli.migration.python_flags import ELIDED
from bertkit.errors import UserError, visible

MOST_CHARACTERS = 64 << 10  # of a script of commands
ASSIGNED = re.compile(r"[A-Za-z_]\w*=")
PRESET = re.compile(r"\s*source\s+(\S+)\s*&&\s*([\w.-]+)\s*")
OPTIONAL = re.compile(r"\[(?!\s)([^\]\n]{1,400})\](?!\S)")
EITHER = re.compile(r"(--\w+)\|(--\w+)(?!\S)")
OPEN = re.compile(r"<([^<>\s](?:[^<>\n]{0,200}[^<>\s])?)>")
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^{}$`]*))?\})")
CONTINUED = re.compile(r"\\[ \t]*\n")
OPERATOR = re.compile(r"&&|\|\||\|&|;;|[;|&\n]")
REDIRECT = re.compile(r"(?:\d*|&)(?:<<-?|>>|>\||>&|<&|[<>])")
LOOPS = {"for": "done", "while": "done", "until": "done", "select": "done", "if": "fi", "case": "esac"}


@dataclass(frozen=True)
class Line:
    """One simple command of a script."""

    number: int  # of its line in the text, from 1
    words: tuple[str, ...]  # the first is the program
    env: dict[str, str]  # set for it, or exported before
    folder: str = ""  # where it runs; "": where the script was started
    presets: tuple[tuple[str, str], ...] = ()  # (file, function) of `$(source FILE && FUNCTION)`
    directives: tuple[str, ...] = ()  # words of #SBATCH lines before it


@dataclass
class State:
    """What a script has set so far."""

    folder: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    exported: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)  # variables whose values stand in words that were read
    directives: list[str] = field(default_factory=list)

    def copy(self) -> State:
        return replace(self, variables=dict(self.variables), exported=set(self.exported))  # `used` stays shared


def check_text(text: str) -> str:
    """The text, where it can be a script. Raises UserError for one too large, not UTF-8, or with what is not seen."""
    if len(text) > MOST_CHARACTERS:
        raise UserError(
            f"the old command has {len(text):,} characters, at most {MOST_CHARACTERS:,} are read", "give the command"
        )
    if "\0" in text:
        raise UserError("the old command holds a NUL", "give it as text")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError("the old command is not UTF-8", "give it in that encoding")
    text = text.replace("\r\n", "\n")
    unseen = next((character for character in text if character == LITERAL or visible(character) != character), "")
    if unseen:
        raise UserError(f"the old command holds the character U+{ord(unseen):04X}, which is not seen", "remove it")
    return CONTINUED.sub(" ", text)


def join(folder: str, path: str) -> str:
    """The path seen from where the script was started."""
    if not folder or path.startswith(("/", "~", "$")):
        return path
    return posixpath.normpath(posixpath.join(folder, path))


def read_script(text: str, state: State, draft: Draft) -> Iterator[Line | NotUnderstood]:
    """Its simple commands, one by one, and what was passed over. Raises UserError for a quote that is not closed."""
    source = Source(text, state, draft)
    while (line := source.next_line()) is not None:
        yield line


class Source:
    """Reads one script from its start to its end."""

    def __init__(self, text: str, state: State, draft: Draft) -> None:
        self.text, self.state, self.draft = text, state, draft
        self.at = self.began = 0  # where the reader stands, where the command began
        self.outer: list[State] = []  # of the subshells that are open
        self.ends: list[str] = []  # of here-documents that begin with the next line
        self.presets: list[tuple[str, str]] = []

    def next_line(self) -> Line | NotUnderstood | None:
        """None at the end. The state is that behind the line: `cd` and assignments have been followed."""
        while self.at < len(self.text):
            words, prefix, piped = self._simple()
            number = self.text.count("\n", 0, self.began) + 1
            if words and words[0] in LOOPS:
                self._skip_to(LOOPS[words[0]])
                return NotUnderstood(
                    f"line {number}: a shell's `{words[0]}` is not followed", "give the commands in it"
                )
            if piped:
                self.draft.lost(piped, "pipes and redirections are not carried; put them behind the new command")
            if words[:2] == ["cd", "-"]:
                return NotUnderstood(f"line {number}: `cd -` is not followed", "name the folder")
            if self._followed(words, prefix):
                continue
            env = {name: self.state.variables[name] for name in sorted(self.state.exported)} | prefix
            env = {name: value for name, value in env.items() if name in prefix or name not in self.state.used}
            presets, self.presets = tuple(self.presets), []
            return Line(number, tuple(words), env, self.state.folder, presets, tuple(self.state.directives))
        return None

    # ---- commands ----

    def _simple(self) -> tuple[list[str], dict[str, str], str]:
        """(words, assignments before them, the text of pipes and redirections behind them)."""
        words: list[str] = []
        prefix: dict[str, str] = {}
        lost_from = -1
        while self.at < len(self.text):
            start = self.at
            operator = self._operator(first=not words and not prefix)
            if operator in ("|", "|&", "redirect"):
                lost_from = start if lost_from < 0 else lost_from
            elif operator:
                if words or prefix:
                    lost = self.text[lost_from:start].strip() if lost_from >= 0 else ""
                    return words, prefix, lost
                lost_from = -1
            elif not self._blank():
                raw = self.at
                self.began = self.began if words or prefix else raw
                word = self._word()
                if lost_from >= 0:
                    continue  # of the pipe
                assigned = ASSIGNED.match(self.text, raw) if not words else None
                if assigned:
                    name, _, value = word.partition("=")
                    prefix[name] = value
                elif word and not (word in ("$", "do", "then", "else", "{", "}", "!") and not words):
                    words.append(word)
        lost = self.text[lost_from:].strip() if lost_from >= 0 else ""
        return words, prefix, lost

    def _followed(self, words: list[str], prefix: dict[str, str]) -> bool:
        """Whether it was a command that changes what the script knows, and nothing else."""
        state = self.state
        if not words:
            state.variables |= prefix
            return True
        if words[0] in ("cd", "pushd"):
            target = words[-1] if len(words) > 1 else "~"
            state.folder = join(state.folder, target)
            state.variables["PWD"] = state.folder if state.folder[:1] in "/~$" else f"$PWD/{state.folder}"
            return True
        if words[0] in ("export", "declare", "local", "readonly", "set", "unset"):
            for word in words[1:]:
                name, equals, value = word.partition("=")
                if equals and ASSIGNED.match(word):
                    state.variables[name] = value
                if words[0] == "export" and re.fullmatch(r"\w+", name) and name in state.variables:
                    state.exported.add(name)
            return True
        return False

    def _skip_to(self, end: str) -> None:
        """Go on behind the end of a loop, past those within it."""
        deep = 1
        starts = "|".join(start for start, its in LOOPS.items() if its == end)
        for found in re.compile(rf"(?<![\w$-])({starts}|{end})(?![\w-])").finditer(self.text, self.at):
            deep += -1 if found[1] == end else 1
            if not deep:
                self.at = found.end()
                return
        self.at = len(self.text)

    # ---- operators and blanks ----

    def _operator(self, first: bool) -> str:
        """What ends a command, "redirect" for a redirection (read with its file), "" for none here."""
        text, at = self.text, self.at
        if found := REDIRECT.match(text, at):
            if not OPEN.match(text, at):
                self.at = found.end()
                self._target("<<" in found[0])
                return "redirect"
        elif found := OPERATOR.match(text, at):
            self.at = found.end()
            if found[0] == "\n":
                self._skip_documents()
            return found[0]
        if first and text[at] == "(":
            self.at += 1
            self.outer.append(self.state)
            self.state = self.state.copy()
            return "("
        if text[at] == ")" and self.outer:
            self.at += 1
            self.state = self.outer.pop()
            return ")"
        return ""

    def _target(self, is_document: bool) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1
        end = self._word()
        if is_document:
            self.ends.append(end)

    def _skip_documents(self) -> None:
        for end in self.ends:
            found = re.compile(rf"^\t*{re.escape(end)}[ \t]*$", re.MULTILINE).search(self.text, self.at)
            self.at = found.end() if found else len(self.text)
        self.ends.clear()

    def _blank(self) -> bool:
        """Past one blank, a comment, or what a document writes for people; whether there was one."""
        text, at = self.text, self.at
        if text[at].isspace():  # a no-break space of a web page, too
            self.at += 1
        elif text[at] == "#":
            self.at = text.find("\n", at) if "\n" in text[at:] else len(text)
            if text.startswith("#SBATCH", at):
                self.state.directives += text[at + 7 : self.at].split("#")[0].split()
        elif found := OPTIONAL.match(text, at):
            self._instead(found, _choice(found[1], self.draft))
        elif found := EITHER.match(text, at):
            self._instead(found, _choice(f"{found[1]} | {found[2]}", self.draft))
        else:
            return False
        return True

    def _instead(self, found: re.Match[str], words: str) -> None:
        self.text = f"{self.text[: found.start()]} {words} {self.text[found.end() :]}"

    # ---- words ----

    def _word(self) -> str:
        """The word that begins here, its quotes taken off and its variables put in."""
        parts: list[str] = []
        text = self.text
        while self.at < len(text) and not text[self.at].isspace() and text[self.at] not in ";&|":
            character = text[self.at]
            if character in "<>":
                found = OPEN.match(text, self.at)
                if not found:
                    break
                parts.append(f"<{'_'.join(found[1].split())}>")
                self.at = found.end()
            elif character == ")" and self.outer:
                break
            else:
                parts.append(READ.get(character, Source._plain)(self))
        return "".join(parts)

    def _plain(self) -> str:
        self.at += 1
        return self.text[self.at - 1]

    def _single(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            raise UserError("the old command cannot be read: a quote (') is not closed", "check its quotes")
        inside, self.at = self.text[self.at + 1 : end], end + 1
        return inside.replace("$", LITERAL)

    def _double(self) -> str:
        parts: list[str] = []
        self.at += 1
        while self.at < len(self.text) and self.text[self.at] != '"':
            if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2] not in ('"', "$", "`", "\\"):
                parts.append(self._plain())
            else:
                read = READ.get(self.text[self.at], Source._plain) if self.text[self.at] in "\\$`" else Source._plain
                parts.append(read(self))
        if self.at >= len(self.text):
            raise UserError('the old command cannot be read: a quote (") is not closed', "check its quotes")
        self.at += 1
        return "".join(parts)

    def _escaped(self) -> str:
        character = self.text[self.at + 1 : self.at + 2]
        self.at += 2
        return LITERAL if character == "$" else character

    def _dollar(self) -> str:
        text = self.text
        if text.startswith("$(", self.at):
            return self._substituted()
        found = VARIABLE.match(text, self.at)
        if not found:
            return self._plain()
        self.at = found.end()
        name = found[1] or found[2]
        if name in self.state.variables:
            self.state.used.add(name)
            return self.state.variables[name]
        if found[3]:
            self.draft.differs(f"{found[0]} is taken as {found[3]}")
            return found[3]
        return f"${name}" if found[1] else f"${{{name}}}"

    def _substituted(self) -> str:
        """`$(…)`: the working folder, a preset, or as it is written."""
        start, deep, at = self.at, 0, self.at + 1
        while at < len(self.text):
            deep += {"(": 1, ")": -1}.get(self.text[at], 0)
            at += 1
            if not deep:
                break
        inside, self.at = self.text[start + 2 : at - 1], at
        if found := PRESET.fullmatch(inside):
            self.presets.append((found[1], found[2]))
            return ""
        return self.state.variables.get("PWD", "$PWD") if inside.strip() == "pwd" else self.text[start:at]

    def _backtick(self) -> str:
        end = self.text.find("`", self.at + 1)
        end = len(self.text) if end < 0 else end
        inside, self.at = self.text[self.at + 1 : end], end + 1
        return self.state.variables.get("PWD", "$PWD") if inside.strip() == "pwd" else f"$({inside})"


READ: dict[str, Callable[[Source], str]] = {
    "'": Source._single,
    '"': Source._double,
    "\\": Source._escaped,
    "$": Source._dollar,
    "`": Source._backtick,
}


def _choice(inside: str, draft: Draft) -> str:
    """What stands in brackets: the first of its alternatives."""
    first, *others = (part.strip() for part in inside.split(" | "))
    if others:
        draft.differs(f"of [{inside}] the first is taken: {first}")
    elif first not in ELIDED:
        draft.differs(f"[{inside}] may be left out in the document; it is taken as given")
    return first
