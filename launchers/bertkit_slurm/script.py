"""The text of the batch script.

`--signal=B:USR1`: Slurm tells only the batch shell that the end is near. It passes the signal on to srun, which gives
it to every rank, and it knows then that the stop was Slurm's and not `scancel`'s; without `B:` the ranks would hear it
directly, but a script that sees only their exit status 143 could not tell one from the other and would queue a job
again that its owner has cancelled. A preemption where the cluster does not send the user's signal shows as a
PreemptTime of the job.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bertkit.plugin import Request, UserError, rank_command
from bertkit.plugin import resumed_command as resumed
from bertkit_slurm.options import CPUS, sets_threads, split

PORTS = (10000, 20000)  # first, how many: below those that Linux gives away (32768 on)
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

BODY = """
set -euo pipefail

{exports}

# A job that was queued again goes on where it stopped.
if (( ${{SLURM_RESTART_COUNT:-0}} > 0 )); then
  command={again}
else
  command={command}
fi
rank_env={rank_env}
{preload}
step='' stopping='' woken='' code=0
stop() {{
  stopping=1 woken=1
  if [[ -n $step ]]; then kill -USR1 "$step" 2>/dev/null || true; fi
}}
trap stop USR1

srun {srun} \\
  env "${{rank_env[@]}}" "${{command[@]}}" &
step=$!
if [[ -n $stopping ]]; then kill -USR1 "$step" 2>/dev/null || true; fi
while true; do  # a trapped signal ends bash's `wait`, not srun
  woken='' code=0
  wait "$step" || code=$?
  if [[ -z $woken ]]; then break; fi
done
{requeue}
exit "$code"
"""

REQUEUE = """
if (( code == 143 )) && [[ -z $stopping ]]; then  # ended by SIGTERM: preempted, or cancelled by its owner
  job=$(scontrol show job "$SLURM_JOB_ID") || job=''
  if [[ $job == *PreemptTime=[0-9]* ]]; then stopping=1; fi
fi
if [[ -n $stopping ]] && (( code != 0 )); then
  echo "bertkit: stopped before its end; job $SLURM_JOB_ID is queued again" >&2
  scontrol requeue "$SLURM_JOB_ID" || echo 'bertkit: Slurm does not queue it again; submit it with --resume' >&2
fi
"""


@dataclass(frozen=True)
class Step:
    """What runs on each node."""

    processes: int
    cpus: int  # of each process
    env: Mapping[str, str]  # of each process
    request: Request


def script(step: Step) -> str:
    """The whole script. Raises UserError for a word that no command line can hold."""
    request, batch = step.request, step.request.batch
    command = rank_command(request)
    again = rank_command(replace(request, command=resumed(request.command)))
    body = BODY.format(
        exports="\n".join(_exports(request)),
        command=_array(command),
        again=_array(again),
        rank_env=_array(f"{name}={value}" for name, value in sorted(step.env.items()) if name != "LD_PRELOAD"),
        preload=_preload(step.env.get("LD_PRELOAD", "")),
        srun=" ".join(_srun(step)),
        requeue=REQUEUE if batch.requeue else "",
    )
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {line}" for line in _header(step))]) + re.sub(r"\n{3,}", "\n\n", body)


def _header(step: Step) -> Iterable[str]:
    """sbatch reads these up to the first command; a later one of the same name wins."""
    batch = step.request.batch
    yield f"--job-name={batch.name}"
    yield f"--nodes={batch.nodes}"
    yield f"--ntasks-per-node={step.processes}"
    if not any(split(option)[0] in CPUS for option in batch.options):
        yield f"--cpus-per-task={step.cpus}"
    if not sets_threads(batch.options):
        yield "--threads-per-core=1"  # a CPU is a core then, on nodes with hyper-threads too
    yield f"--signal=B:USR1@{batch.signal_seconds}"
    yield "--requeue" if batch.requeue else "--no-requeue"
    yield "--open-mode=append"  # the next turn goes on in the same file
    if batch.output:
        yield f'--output="{batch.output}"'
    yield from batch.options


def _exports(request: Request) -> Iterable[str]:
    first, count = PORTS
    port = str(request.port) if request.port else f"$(( {first} + SLURM_JOB_ID % {count} ))"
    yield 'hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")'
    yield "export MASTER_ADDR=${hosts%%$'\\n'*}  # the first line"
    yield f"export MASTER_PORT={port}"
    if request.batch.apptainer:  # /tmp is the node's in there: a folder of one's own in it
        yield 'export APPTAINERENV_XDG_CACHE_HOME="/tmp/bertkit-$UID"'
    if request.interface:
        yield f"export GLOO_SOCKET_IFNAME={quote(request.interface)}"


def _srun(step: Step) -> Iterable[str]:
    batch = step.request.batch
    # since Slurm 22.05 srun does not inherit --cpus-per-task
    yield '--cpus-per-task="$SLURM_CPUS_PER_TASK" --cpu-bind=cores --kill-on-bad-exit=1'
    if batch.container and batch.apptainer:
        binds = ("\\\n  --bind=" + quote(mount) for mount in batch.mounts)
        yield '\\\n  apptainer exec --no-home --pwd="$SLURM_SUBMIT_DIR" --bind="$SLURM_SUBMIT_DIR"'
        yield from (*binds, *map(quote, batch.container_options), "\\\n  " + quote(batch.container))
    elif batch.container:
        mounts = "".join("," + quote(mount) for mount in batch.mounts)
        yield f"\\\n  --container-image={quote(batch.container)}"
        yield f'\\\n  --container-mounts="$SLURM_SUBMIT_DIR:$SLURM_SUBMIT_DIR"{mounts}'
        yield '\\\n  --container-workdir="$SLURM_SUBMIT_DIR"'


def _preload(path: str) -> str:
    return f"if [[ -e {quote(path)} ]]; then rank_env+=({quote('LD_PRELOAD=' + path)}); fi\n" if path else ""


def _array(words: Iterable[str]) -> str:
    return "(" + " ".join(map(quote, words)) + ")"


def quote(word: str) -> str:
    """`word` for bash, on one line: sbatch refuses a script with carriage returns before line feeds.

    Raises UserError for a zero byte, which no command line can hold.
    """
    if "\0" in word:
        raise UserError(f"the word {word!r} holds a zero byte", "remove it")
    if not CONTROL.search(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + CONTROL.sub(lambda found: f"\\{ord(found[0]):03o}", escaped) + "'"
