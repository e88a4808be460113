"""What may stand in a script's `#SBATCH` lines: nothing that ends the line, nothing that bertkit sets itself."""

from __future__ import annotations

import re

from bertkit.plugin import SlurmOptions, UserError

NAME = re.compile(r"[\w.+-]+", re.ASCII)
OPTION = re.compile(r"(?P<name>--[a-z][a-z0-9-]*|-[A-Za-z])(?:(?<=-[A-Za-z])| |=|$)(?P<value>.*)", re.ASCII)
# option -> what of bertkit's says it
OURS = {
    **dict.fromkeys(("-N", "--nodes"), "nodes"),
    **dict.fromkeys(("-n", "--ntasks", "--ntasks-per-node"), "processes"),
    **dict.fromkeys(("-J", "--job-name"), "name"),
    **dict.fromkeys(("-o", "--output"), "output"),
    **dict.fromkeys(("--requeue", "--no-requeue"), "requeue"),
    "--signal": "signal_seconds",
}
ARRAY = ("-a", "--array")
CPUS = ("-c", "--cpus-per-task")
THREADS = ("--threads-per-core", "--hint", "--ntasks-per-core", "-B", "--extra-node-info")


def check_batch(batch: SlurmOptions) -> None:
    """Raises UserError for what Slurm would refuse or take for something else."""
    if batch.nodes < 1:
        raise UserError(f"{batch.nodes} nodes", "ask for 1 or more")
    if not 0 < batch.signal_seconds <= 65535:
        raise UserError(f"a signal {batch.signal_seconds} s before the end", "take 1 to 65535 seconds")
    if not NAME.fullmatch(batch.name):
        raise UserError(f"{batch.name!r} is no name for a job", "use letters, digits and . _ + -")
    if not batch.output.isprintable() or '"' in batch.output or "\\" in batch.output:
        raise UserError(f"{batch.output!r} cannot stand in a script's #SBATCH line", 'leave out ", \\ and line breaks')
    for option in batch.options:
        _check_option(option)
    for mount in batch.mounts:
        if mount.count(":") not in (1, 2) or "," in mount or not mount.isprintable():
            raise UserError(f"the mount {mount!r} is none", "write source:target or source:target:flag+flag")
    if batch.mounts and not batch.container:
        raise UserError("mounts without a container", "name the container's image too")
    if batch.container_options and not batch.apptainer:
        raise UserError("options of apptainer for a container that Slurm starts", "drop them, or choose apptainer")


def _check_option(option: str) -> None:
    if not option.isprintable():
        raise UserError(f"the batch option {option!r} holds a line break or another control character", "remove it")
    found = OPTION.fullmatch(option)
    if not found:
        raise UserError(f"the batch option {option!r} does not begin with an option's name", "as --time=02:00:00")
    name = found["name"]
    if name in OURS:
        raise UserError(f"the batch option {name} is bertkit's to write", f"use {OURS[name]} instead")
    if name in ARRAY:
        raise UserError("a job array would train several times into one folder", "submit one job per folder")


def cpus_asked(options: tuple[str, ...]) -> int:
    """CPUs of each process that the options ask for; 0: they do not say. Raises UserError for no number."""
    found = 0
    for option in options:
        name, value = split(option)
        if name in CPUS:
            if not re.fullmatch(r"0*[1-9][0-9]{0,8}", value):
                raise UserError(f"the batch option {option!r} gives no number of CPUs", "as --cpus-per-task=8")
            found = int(value)
    return found


def sets_threads(options: tuple[str, ...]) -> bool:
    """Whether the options say themselves which hardware threads of a core count."""
    return any(split(option)[0] in THREADS for option in options)


def split(option: str) -> tuple[str, str]:
    """("--cpus-per-task", "8") of `--cpus-per-task=8`, ("-c", "8") of `-c8` and `-c 8`."""
    found = OPTION.fullmatch(option)
    return (found["name"], found["value"].strip()) if found else ("", "")
