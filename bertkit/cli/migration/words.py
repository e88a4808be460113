"""One simple command of an old script taken apart: what starts its processes, the program and its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from bertkit.cli.migration.command import CHECKPOINT, Draft, NotUnderstood, Place
from bertkit.cli.migration.containers import ENGINES, OURS, SHELLS, Where, enter, enter_launch_sh
from bertkit.cli.migration.python_flags import ELIDED
from bertkit.cli.migration.shell import ASSIGNED, Line, State, read_script
from bertkit.cli.migration.starters import PREFIXES, STARTERS, read_options
from bertkit.errors import UserError

PYTHON = re.compile(r"(python[\d.]*|\$\{?PYTHON[\w.]*\}?|\$\(which python[\d.]*\))$")
OPEN_PROGRAMS = ("script",)  # what documents write for any program
# what prepares a shell or a machine; nothing of it is needed for the new command
PREPARES = frozenset(
    "echo mkdir source . conda pip pip3 module ulimit nvidia-smi hl-smi ixsmi git wget curl tar unzip ls cat rm cp mv"
    " touch date sleep wait exit true false pwd which hostname [ [[ test popd trap shopt apt apt-get yum tee grep sed"
    " eval read return chmod ln du df free top tail head unset alias printf kill".split()
)


@dataclass(frozen=True)
class Old:
    """A command of another system."""

    program: str  # its last part, as run_squad.py; "" where the line names none
    arguments: tuple[str, ...]
    presets: tuple[tuple[str, str], ...] = ()  # (file, function) of `$(source FILE && FUNCTION)`
    env: dict[str, str] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    elided: bool = False  # the document left arguments out
    starters: tuple[str, ...] = ()  # mpirun, srun, numactl …, from the outside in
    where: Where = field(default_factory=Where)


def take_apart(line: Line, draft: Draft) -> Iterator[Old]:
    """The program that a line starts; several for `bash -c` with a script. Raises UserError for a line that is none."""
    start = Old("", line.words, line.presets, line.env, elided=bool(set(line.words) & set(ELIDED)))
    yield from _peel(replace(start, where=Where(line.folder)), list(line.directives), draft)


def _peel(old: Old, directives: list[str], draft: Draft) -> Iterator[Old]:
    """Take off what starts the program, from the outside in."""
    words = list(old.arguments)
    while words:
        name = words[0].rpartition("/")[2]
        if ASSIGNED.match(words[0]):
            key, _, value = words.pop(0).partition("=")
            old = replace(old, env=old.env | {key: value})
        elif name in ("bash", "sh") and (script := _script_of(words)):
            yield from _inner(script, old, directives, draft)
            return
        elif name in PREFIXES:
            _, words = read_options(words[1:], PREFIXES[name])
        elif name == "timeout":
            _, words = read_options(words[1:], frozenset({"foreground", "preserve-status"}))
            words = words[1:]
        elif PYTHON.fullmatch(name):
            words = _behind_python(words[1:])
        elif name == "conda" and words[1:2] == ["run"]:
            _, words = read_options(words[2:], frozenset({"live-stream", "no-capture-output", "v"}))
        elif name in ENGINES:
            words, where, env = enter(name, words[1:], old.where, draft)
            old = replace(old, where=where, env=old.env | env)
        elif name == "launch.sh" and [*words, ""][1] not in SHELLS:
            script, where, env = enter_launch_sh(words[1:], old.where, draft)
            place = replace(old.place, container=OURS)
            yield from _inner(script, replace(old, where=where, env=old.env | env, place=place), directives, draft)
            return
        elif name in STARTERS and not (name == "accelerate" and words[1:2] != ["launch"]):
            old, words, directives = _started(name, words, old, directives, draft)
        else:
            break
    yield _program(old, words, draft)


# flags whose value is a file or a folder, in all programs that are known; MADE: written; NAMES: or a model's name
PATHS = frozenset(
    "init_checkpoint vocab_file config_file bert_config_file bert_config_path data_dir train_file validation_file"
    " test_file predict_file input_dir input_file eval_dir data_location checkpoint cache_dir indir wikipedia books"
    " common_crawl open_webtext dataset_path checkpoint_folder init_checkpoint_path bert_config_dir"
    " na_prob_file teacher_model student_model distill_config glue_dir glove_embs pretrained_bert_model".split()
)
MADE = frozenset("output_dir output_file sink json_summary out_file out_image_dir logging_dir".split())
SEVERAL = frozenset({"input_file", "output_file"})  # files with commas between
NAMES = frozenset("model_name_or_path bert_model tokenizer_name config_name gaudi_config_name".split())


def called_from_outside(old: Old, draft: Draft) -> Old:
    """The command with its files named as they are called from where the script was started."""
    if old.where == Where():
        return old
    made: list[str] = []
    words = list(old.arguments)
    at = 0
    while at < len(words):
        name, equals, value = words[at].partition("=")
        flag = name.lstrip("-").replace("-", "_")
        spread = 1
        is_file = flag in PATHS | MADE | NAMES and (equals or name.startswith("-"))
        if is_file and not equals and at + 1 < len(words) and not words[at + 1].startswith("-"):
            value, spread = words[at + 1], 2
        if is_file and value and not (flag in NAMES and not looks_like_path(value)):
            try:
                outside = (old.where.outside(one) for one in (value.split(",") if flag in SEVERAL else [value]))
                made.append(f"{name}={','.join(outside)}")
            except NotUnderstood:
                if flag not in MADE:
                    raise
                draft.lost(f"{name} {value}", "it lies in the container only; -o names a folder outside")
        else:
            made += words[at : at + spread]
        at += spread
    return replace(old, arguments=tuple(made))


def looks_like_path(value: str) -> bool:
    """Whether it is a file or a folder, and no name of a published model."""
    return value.startswith((".", "/", "~", "$")) or value.count("/") > 1 or bool(CHECKPOINT.search(value))


def _script_of(words: list[str]) -> str:
    """The script of `bash -c SCRIPT`; "" for a file."""
    for at, word in enumerate(words[1:], 1):
        if not word.startswith("-"):
            return ""
        if "c" in word.lstrip("-") and not word.startswith("--"):
            return words[at + 1] if at + 1 < len(words) else ""
    return ""


def _inner(script: str, old: Old, directives: list[str], draft: Draft) -> Iterator[Old]:
    """The commands of a script within the line, run as the line says."""
    state = State(folder=old.where.folder, variables=dict(old.env))
    for line in read_script(script, state, draft):
        if isinstance(line, UserError):
            raise line
        where = replace(old.where, folder=line.folder)
        inner = replace(old, arguments=line.words, env=old.env | line.env, where=where, presets=line.presets)
        yield from _peel(inner, directives, draft)


def _behind_python(words: list[str]) -> list[str]:
    """Past Python's own options, to the file or the module."""
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-m" or option in ("-", "--"):
            break
        if option == "-c":
            return ["-c"]
        if option in ("-W", "-X"):
            words = words[1:]
    return words


def _started(
    name: str, words: list[str], old: Old, directives: list[str], draft: Draft
) -> tuple[Old, list[str], list[str]]:
    """One starter taken off: the command with what it says of the place, the words behind it."""
    read, switches = STARTERS[name]
    given = words[2:] if name == "accelerate" else words[1:]
    taken, rest = read_options(given, switches)
    if name in ("srun", "sbatch"):
        more, _ = read_options(directives, switches)
        taken, directives = replace(taken, pairs=more.pairs + taken.pairs), []
        if script := taken.get("wrap"):
            rest = ["bash", "-c", script]
    if name == "taskset":
        rest = rest[1:] if not taken.has("c") and not taken.has("cpu-list") else rest
    place = read(old.place, taken, rest, draft)
    env = old.env | taken.environment()
    precision = taken.get("mixed-precision")
    if precision and precision != "no":
        rest = [*rest, f"--{precision}"]
    return replace(old, place=place, env=env, starters=(*old.starters, name)), rest, directives


def _program(old: Old, words: list[str], draft: Draft) -> Old:
    words = words[: words.index(":")] if ":" in words else words
    program = words[0].rpartition("/")[2] if words else ""
    if program.startswith("-") or program in OPEN_PROGRAMS or program in ELIDED:
        program = ""
    elided = old.elided or bool(set(words) & set(ELIDED))
    arguments = tuple(word for word in words[1:] if word not in ELIDED)
    if not program:
        raise NotUnderstood("the old command names no program", "give it with the program that it starts")
    return called_from_outside(replace(old, program=program, arguments=arguments, elided=elided), draft)
