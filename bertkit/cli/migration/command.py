"""Our command while it is put together, and what could not go into it."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from bertkit.errors import UserError

NoteKind = Literal["lost", "differs", "do"]
LABELS: Mapping[NoteKind, str] = {"lost": "no equivalent, dropped", "differs": "differs", "do": "to do"}  # as shown
LITERAL = "\ue000"  # within an old word: a dollar that the shell leaves alone, as in single quotes
PLAIN = re.compile(r"[\w$@%+=:,./{}~-]+")  # words that a shell leaves alone; $VAR is to be filled in by it
EXPANDED = re.compile(r"\$[\w{(!]")  # what a shell puts in
CONFIGS = ("config.json", "bert_config.json")
CHECKPOINT = re.compile(r"\.(pt|ckpt(-\d+)?)$")  # files and prefixes that -m takes
OPEN_WORD = re.compile(r"<[^<>]*>")
BUCKET = re.compile(r"(gs|s3|hdfs|az|abfs|https?)://")
PLACEHOLDER = re.compile(r"<[^<>]*>|\$\(.*\)|\$(?:[1-9@*]|\{[1-9@*]\})")  # what nobody but the user can fill in


class NotUnderstood(UserError):
    """An old command that names no program that is known, or leaves out what nobody else can know."""

    exit_code = 1


@dataclass(frozen=True)
class Note:
    """What somebody who knows the old command should know of the new one."""

    kind: NoteKind  # lost: not carried over; differs: carried over, but means less or more; do: a step by hand
    text: str  # a line
    unless: str = ""  # a setting that makes it untrue where the command has it

    def __str__(self) -> str:
        return f"{LABELS[self.kind]}: {self.text}"


@dataclass(frozen=True)
class Command:
    """One command of ours."""

    env: tuple[tuple[str, str], ...]
    words: tuple[str, ...]  # the first is bertkit, a command of the shell (export, kill), or a copy (cp, ln)
    background: bool = False  # it runs until it is ended, beside those that follow

    def __str__(self) -> str:
        said = " ".join([*(f"{name}={_quoted(value)}" for name, value in self.env), *map(_quoted, self.words)])
        return f"{said} &" if self.background else said


@dataclass(frozen=True)
class Migrated:
    """An old command, or a script of several, in our words."""

    commands: tuple[Command, ...]
    notes: tuple[Note, ...]
    faults: tuple[UserError, ...] = ()  # of commands of the script that gave none of ours


@dataclass(frozen=True)
class Place:
    """Where the processes of a command run."""

    processes: int | None = None  # per host
    sockets: bool = False  # one for each CPU socket
    per_socket: int = 1
    hosts: str = ""
    ssh_port: int = 0
    nodes: int = 0  # above 0: by Slurm
    container: str = ""
    mounts: tuple[str, ...] = ()
    shm_size: str = ""  # of the container
    allocator: str = ""  # preloaded; "": as launch chooses

    def words(self) -> list[str]:
        """The words of `bertkit launch` up to the command; none for a single process."""
        words = self._many()
        if self.container and not self.nodes:
            words = ["launch", *self._contained(), *(words[1:] or ["-n", "1", "--"])]
        return [*words[:-1], "--allocator", self.allocator, "--"] if words and self.allocator else words

    def _contained(self) -> list[str]:
        words = ["--container", self.container] if self.container else []
        words += [word for mount in self.mounts for word in ("--mount", mount)]
        return [*words, *(["--shm-size", self.shm_size] if self.shm_size else [])]

    def _many(self) -> list[str]:
        if self.nodes:
            words = ["--slurm", "bertkit.sbatch", "--nodes", str(self.nodes), "-n", str(self.processes or 1)]
            return ["launch", *words, *self._contained(), "--"]
        if self.sockets:
            many = ["--per-socket", str(self.per_socket)] if self.per_socket > 1 else []
            hosts = ["--hosts", self.hosts] if self.hosts else []
            return ["launch", "--mpi-sockets", *many, *hosts, "--"]
        if self.hosts:
            port = ["--ssh-port", str(self.ssh_port)] if self.ssh_port else []
            return ["launch", "--hosts", self.hosts, "-n", str(self.processes or 1), *port, "--"]
        return ["launch", "-n", str(self.processes), "--"] if (self.processes or 1) > 1 else []


@dataclass
class Draft:
    """A command under way: options and settings in the order in which they come, and notes."""

    command: tuple[str, ...] = ("train",)
    place: Place = Place()
    options: dict[str, str] = field(default_factory=dict)  # option -> value
    sets: dict[str, str] = field(default_factory=dict)  # setting -> value
    export: dict[str, str] = field(default_factory=dict)  # option of an export's format -> value
    env: dict[str, str] = field(default_factory=dict)
    before: list[tuple[str, ...]] = field(default_factory=list)  # commands that it needs first
    notes: list[Note] = field(default_factory=list)
    framework: Literal["torch", "tensorflow"] = "torch"  # of the old program
    shell: bool = False  # the command is the shell's own, as export
    background: bool = False
    server: str = ""  # address that the command names
    wishes: dict[str, str] = field(default_factory=dict)  # settings for a backend that has them; noted as lost else

    def lost(self, what: str, why: str, unless: str = "") -> None:
        self._note("lost", f"{what}: {why}", unless)

    def wish(self, what: str, why: str, key: str, value: str) -> None:
        """`key`=`value` where the backend has such a setting; else `what` is lost."""
        self.wishes[key] = value
        self.lost(what, why, unless=key)

    def differs(self, text: str) -> None:
        self._note("differs", text)

    def do(self, text: str) -> None:
        self._note("do", text)

    def say(self, words: Sequence[str]) -> None:
        """Take words of `bertkit train`: an option and its value, a switch, or --set and a setting."""
        if words[:1] == ["--set"]:
            key, _, value = words[1].partition("=")
            self.sets[key] = value
        elif words:
            self.options[SHORT.get(words[0], words[0])] = words[1] if len(words) > 1 else ""

    def _note(self, kind: NoteKind, text: str, unless: str = "") -> None:
        if (note := Note(kind, " ".join(text.replace(LITERAL, "$").split()), unless)) not in self.notes:
            self.notes.append(note)

    def as_commands(self) -> list[Command]:
        """None where the old program's step needs no command here."""
        made = [Command((), words) for words in self.before]
        return [*made, self._as_command()] if self.command else made

    def _as_command(self) -> Command:
        words = list(self.command) if self.shell else ["bertkit", *self.place.words(), *self.command]
        for option, value in self.options.items():
            words += [option, value] if value else [option]
        for flag, values in (("--option", self.export), ("--set", self.sets)):
            words += [word for key, value in values.items() for word in (flag, f"{key}={value}")]
        return Command(tuple(self.env.items()), tuple(words), self.background)


# how an option is written in a command that somebody reads
SHORT: Mapping[str, str] = {
    "--model": "-m", "--task": "-t", "--dtype": "-d", "--batch-size": "-b", "--seq-length": "-s", "--epochs": "-e",
    "--learning-rate": "--lr", "--output": "-o",
}  # fmt: skip


def unless_open(draft: Draft, value: str, instead: str) -> str:
    """The value; "" with a note where it is a `<name>` that the document leaves open."""
    if not OPEN_WORD.search(value):
        return value
    draft.differs(f"{value} is left open in the document: {instead}")
    return ""


def set_model(draft: Draft, checkpoint: str, vocab: str = "", config: str = "", usual: str = "large") -> None:
    """-m for a checkpoint of theirs; its configuration is read from beside it.

    `usual`: the published model to start from where the document leaves it open.
    """
    if not unless_open(draft, checkpoint, f"the published {usual} is taken"):
        draft.options["-m"] = usual
        return
    vocab = unless_open(draft, vocab, "the model's own vocabulary is taken")
    config = unless_open(draft, config, "the model's own configuration is taken")
    model = model_name(draft, checkpoint, told=bool(config))
    draft.options["-m"] = model
    folder = _folder(checkpoint) if CHECKPOINT.search(checkpoint) else model
    if vocab and not _is_beside(vocab, folder, ("vocab.txt",)):
        draft.sets["model.vocab"] = vocab
    is_file = CHECKPOINT.search(checkpoint) or checkpoint.endswith(".bin")
    if config and is_file and not _is_beside(config, folder, CONFIGS):
        draft.before.append(("cp", "-n", config, posixpath.join(folder, "bert_config.json")))
        draft.differs("the configuration is read from beside the checkpoint, so it is copied there first")


def model_name(draft: Draft, checkpoint: str, told: bool = False) -> str:
    """What -m or a command takes for a checkpoint of theirs. `told`: the old command names the configuration."""
    if checkpoint.endswith(".bin"):
        folder, name = posixpath.split(checkpoint)
        if name != "pytorch_model.bin":
            draft.before.append(("ln", "-s", name, posixpath.join(folder, "pytorch_model.bin")))
            draft.differs(f"{name} is given the name under which a model's folder has its weights")
        return folder or "."
    if checkpoint.endswith(".pt") and not told:
        draft.do(f"put bert_config.json and vocab.txt of the model beside {checkpoint}, if they are not there")
    return checkpoint


def _folder(path: str) -> str:
    return path.rpartition("/")[0] or "."


def _is_beside(path: str, folder: str, names: Sequence[str]) -> bool:
    """Whether it is the file of one of these names in the model's folder, which is found by itself."""
    return _folder(path) == folder and posixpath.basename(path) in names


def refuse_open(draft: Draft) -> None:
    """Raises NotUnderstood for a word that the old command leaves open and nobody else can know."""
    said = {option: value for option, value in draft.options.items() if option not in ("--question", "--context")}
    words = [*said.values(), *draft.sets.values(), *draft.command, *(word for one in draft.before for word in one)]
    found = dict.fromkeys(match[0] for word in words for match in PLACEHOLDER.finditer(word))
    found |= dict.fromkeys(value for value in draft.options.values() if "$(" in value and value not in found)
    far = next((word for word in words if BUCKET.match(word) and word != draft.server), "")
    if far:
        raise NotUnderstood(f"{far} is no folder or file of this machine", "copy it, and name the copy")
    if found:
        raise NotUnderstood(f"the old command leaves open {', '.join(found)}", "write what stands for it")


def spell_batch(draft: Draft, update: int, at_once: int) -> None:
    """-b is what one update sees on a process; of it `at_once` are computed at once."""
    draft.options["-b"] = str(update)
    if at_once < update:
        draft.sets["train.micro_batch_size"] = str(at_once)


def _quoted(word: str) -> str:
    """The word as a shell takes it; `$VAR` stays for the shell to fill in."""
    if not EXPANDED.search(word):
        word = word.replace(LITERAL, "$")
        return word if PLAIN.fullmatch(word) and not set("${}") & set(word) else shlex.quote(word)
    if PLAIN.fullmatch(word):
        return word
    escaped = re.sub(r'([\\"`])', r"\\\1", word).replace(LITERAL, "\\$")
    return f'"{escaped}"'
