"""An old command line in our words: which reader reads which program."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bertkit.errors import UserError, nearest
from bertkit.migrate import pretraining_scripts, python_scripts
from bertkit.migrate.demo_bert import demo_bert, export
from bertkit.migrate.launch_benchmark import launch_benchmark
from bertkit.migrate.ours import Draft, Migrated, fill_in
from bertkit.migrate.shell_scripts import SCRIPTS
from bertkit.migrate.words import Old, take_apart

READERS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    **SCRIPTS,
    **python_scripts.PROGRAMS,
    **pretraining_scripts.PROGRAMS,
    "demo_bert": demo_bert,
    "demo_bert.py": demo_bert,
    "launch_benchmark.py": launch_benchmark,
    "export": export,
}
TOLD_BY_VARIABLES = ("demo_bert", "demo_bert.py", "export", "run.sub")
VARIABLES = {
    "OMP_NUM_THREADS": "threads follow from the cores of each process; `launch --threads` has their rules",
    "LD_PRELOAD": "`launch --allocator` chooses",
    "MASTER_ADDR": "`bertkit launch` chooses where ranks meet",
    "MASTER_PORT": "`bertkit launch --port` says where ranks meet",
}
COMPUTES = ("train", "evaluate", "predict", "ask", "bench")


def migrate(text: str, backend: str = "") -> Migrated:
    """`text` in our words. `backend`: whose chip, in place of the one that the old command is for.

    Raises UserError for a line that none of the known programs wrote.
    """
    draft = Draft()
    old = take_apart(text, draft)
    if old.program not in READERS:
        raise UserError(f"{old.program} is none of the programs that are known", nearest(old.program, list(READERS)))
    draft.place = old.place
    if old.program in SCRIPTS:
        draft.options["--backend"] = "cuda"
    drafts = READERS[old.program](old, draft)
    if old.program not in TOLD_BY_VARIABLES:
        for name in (name for name in old.env if name != "DATA"):
            draft.lost(f"{name}={old.env[name]}", VARIABLES.get(name, "ours reads no such variable"))
    notes = list(dict.fromkeys(note for one in (draft, *drafts) for note in one.notes))
    for one in drafts:
        _backend(one, backend)
        one.notes = []
        fill_in(one)
        notes += [note for note in one.notes if note not in notes]
    return Migrated(tuple(one.as_command() for one in drafts), tuple(notes))


def _backend(draft: Draft, asked: str) -> None:
    """The option stands first, and only where something is computed."""
    named = draft.options.pop("--backend", "")
    if draft.command and draft.command[0] in COMPUTES and "-h" not in draft.command and (asked or named):
        draft.options = {"--backend": asked or named, **draft.options}
