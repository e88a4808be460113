"""An old command line, or a script of them, in our words: which reader reads which program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace

from bertkit.cli.migration import containers, distillation, hugging_face, pretraining_scripts, python_scripts, triton
from bertkit.cli.migration.command import Command, Draft, Migrated, Note, NotUnderstood, refuse_open
from bertkit.cli.migration.demo_bert import demo_bert, export
from bertkit.cli.migration.fitting import fit
from bertkit.cli.migration.launch_benchmark import launch_benchmark
from bertkit.cli.migration.python_flags import read_flags
from bertkit.cli.migration.shell import Line, State, check_text, read_script
from bertkit.cli.migration.shell_scripts import SCRIPTS
from bertkit.cli.migration.words import PREPARES, Old, take_apart
from bertkit.errors import UserError, nearest

Reader = Callable[[Old, Draft], list[Draft]]
Suit = Callable[[Draft], None]  # fits a command to the backend that is asked for
READERS: Mapping[str, Reader] = {
    **SCRIPTS,
    **python_scripts.PROGRAMS,
    **hugging_face.PROGRAMS,
    **pretraining_scripts.PROGRAMS,
    **triton.PROGRAMS,
    **distillation.PROGRAMS,
    "demo_bert": demo_bert,
    "demo_bert.py": demo_bert,
    "launch_benchmark.py": launch_benchmark,
}
# programs of the same name as another system's, told apart by their flags
OF_HUGGING_FACE: Mapping[str, Reader] = {"run_glue.py": hugging_face.run_glue, "run_squad.py": hugging_face.run_qa}
TOLD_BY_VARIABLES = ("demo_bert", "demo_bert.py", "run.sub")
READ_VARIABLES = ("DATA", "INIT_LOSS_SCALE")
PASSED_ON = ("CUDA_", "NVIDIA_VISIBLE", "HABANA_", "PT_HPU", "NCCL_", "HCCL_", "GLOO_", "HF_", "PYTORCH_")
ALLOCATORS = ("tcmalloc", "jemalloc")
VARIABLES = {
    "OMP_NUM_THREADS": "threads follow from the cores of each process; `launch --threads` has their rules",
    "LD_PRELOAD": "`launch --allocator` chooses",
    "MASTER_ADDR": "`bertkit launch` chooses where ranks meet",
    "MASTER_PORT": "`bertkit launch --port` says where ranks meet",
}
EMPTY = UserError("the existing command is empty", 'give it, as in: bertkit migrate "./demo_bert finetuning …"')


def migrate(text: str, backend: str = "", same_framework: bool = False) -> Migrated:
    """`text` in our words. `backend`: whose chip, in place of the one that the old command is for; `same_framework`:
    the backend that computes with the old program's framework, instead.

    Where it is one command and cannot be said, its fault is raised: a NotUnderstood where none of the known programs
    wrote it or it leaves out what nobody else can know. In a script of several the faults are in what is returned.
    """
    commands: list[Command] = []
    notes: list[Note] = []
    faults: list[UserError] = []
    state, said = State(), Draft()
    suit = functools.partial(fit, asked=backend, same_framework=same_framework)
    found = 0
    for line in read_script(check_text(text), state, said):
        if isinstance(line, UserError):
            faults.append(line)
            continue
        if line.words and line.words[0].rpartition("/")[2] in PREPARES and not _is_run(line):
            said.lost(" ".join(line.words), "it prepares the shell or the machine; keep it where you need it")
            continue
        found += 1
        notes, said.notes = [*notes, *said.notes], []
        _one(line, suit, commands, notes, faults)
    notes += said.notes
    if not found and not faults:
        if notes:
            raise NotUnderstood("the old script starts no program that is known", nearest("", list(READERS)))
        return _only_variables(state, notes)
    if faults and not commands:
        raise faults[0]
    return Migrated(tuple(commands), tuple(dict.fromkeys(notes)), tuple(faults))


def _is_run(line: Line) -> bool:
    return line.words[:2] == ("conda", "run")


def _one(line: Line, suit: Suit, commands: list[Command], notes: list[Note], faults: list[UserError]) -> None:
    """One line of the script: its commands, notes and faults go to the lists."""
    taken = Draft()
    try:
        for old in take_apart(line, taken):
            if old.program in PREPARES:
                taken.lost(old.program, "it prepares the shell or the machine; keep it where you need it")
                continue
            drafts = _say(old, suit)
            new = [note for one in (taken, *drafts) for note in one.notes]
            commands += [command for one in drafts for command in one.as_commands()]
            notes += [note for note in new if note not in notes]
            taken.notes.clear()
    except UserError as error:
        several = f"line {line.number}: " if line.number > 1 or commands else ""
        faults.append(type(error)(f"{several}{error.cause}", error.cure))


def _say(old: Old, suit: Suit) -> list[Draft]:
    """What one program of theirs is in our words. Raises NotUnderstood for one that is not known."""
    draft = Draft(place=old.place)
    if old.program in containers.SCRIPTS:
        containers.SCRIPTS[old.program](old.arguments, draft)
        draft.command = ()
        return [draft]
    read = _reader(old)
    if old.program in SCRIPTS:
        draft.options["--backend"] = "cuda"
    drafts = read(old, draft)
    if not drafts:
        draft.command = ()
        return [draft]
    if old.program not in TOLD_BY_VARIABLES:
        _variables(old, draft, drafts)
    for one in drafts:
        suit(one)
        containers.name_image(one)
        refuse_open(one)
    notes = dict.fromkeys([*draft.notes, *(note for one in drafts for note in one.notes)])
    drafts[0].notes = [note for note in notes if note.unless not in drafts[0].sets]
    return drafts[:1] + [_without_notes(one) for one in drafts[1:]]


def _without_notes(draft: Draft) -> Draft:
    draft.notes = []
    return draft


def _reader(old: Old) -> Reader:
    """By the program's name; a module's last part is its name, too."""
    names = (old.program, f"{old.program.rpartition('.')[2]}.py")
    name = next((name for name in names if name in READERS), "")
    if not name:
        is_script = old.program.endswith((".sh", ".bash", ".sbatch", ".slurm"))
        inside = f"give what is in it: bertkit migrate - < {old.program}"
        cure = inside if is_script else nearest(old.program, list(READERS))
        raise NotUnderstood(f"{old.program} is none of the programs that are known", cure)
    if name in OF_HUGGING_FACE and hugging_face.is_theirs(read_flags(old.arguments)):
        return OF_HUGGING_FACE[name]
    return READERS[name]


def _variables(old: Old, draft: Draft, drafts: list[Draft]) -> None:
    """Variables before the command: those that its framework reads stay, one is a setting, the rest is said."""
    for name, value in old.env.items():
        if name == "INIT_LOSS_SCALE":
            for one in drafts:
                one.sets["loss_scaling.initial"] = value
        elif name.startswith(PASSED_ON):
            for one in drafts:
                one.env[name] = value
        elif name == "LD_PRELOAD" and (preloaded := next((one for one in ALLOCATORS if one in value), "")):
            _preload(preloaded, draft, drafts)
        elif name not in READ_VARIABLES:
            draft.lost(f"{name}={value}", VARIABLES.get(name, "ours reads no such variable"))


def _preload(allocator: str, draft: Draft, drafts: list[Draft]) -> None:
    """`bertkit launch` preloads it; a single process is preloaded by whoever starts it."""
    for one in drafts:
        one.place = replace(one.place, allocator=allocator)
        if not one.place.words():
            draft.lost(f"LD_PRELOAD={allocator}", "`bertkit launch --allocator` preloads it, for several processes")


def _only_variables(state: State, notes: list[Note]) -> Migrated:
    """A script that sets variables and starts nothing."""
    if not state.exported and not state.variables.keys() - {"PWD"}:
        raise EMPTY
    names = sorted(state.exported) or sorted(state.variables)
    draft = Draft()
    (made,) = export(Old("export", (), env={name: state.variables[name] for name in names}), draft)
    return Migrated(tuple(made.as_commands()), (*notes, *draft.notes))
