"""`bertkit bench serve`"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.streams import put_json, writing

if TYPE_CHECKING:
    from bertkit.bench.served import ServedCase, Subject
    from bertkit.console import Display
    from bertkit.engine.remote import RemoteModel
    from bertkit.files.http import RemoteServer

SAFE_IDS = 1000  # token ids that every published vocabulary has


def serve(
    target: Annotated[
        str,
        typer.Argument(metavar="URL|RUN", help="Server, or a run to start `bertkit serve` on.", show_default=False),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- OPTIONS]", help="Options of the `bertkit serve` on RUN.", show_default=False),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="Model of token ids; default: the only one there is.")
    ] = "",
    version: Annotated[str, typer.Option("--model-version", metavar="VERSION", help="Version of the model.")] = "",
    concurrency: Annotated[
        str, typer.Option("--concurrency", help="Closed loop: requests in flight; comma-separated.", show_default="1")
    ] = "",
    rate: Annotated[
        str, typer.Option("--rate", help="Open loop: requests per second, at random moments; comma-separated.")
    ] = "",
    batch_size: Annotated[
        str, typer.Option("-b", "--batch-size", help="Sequences per request; comma-separated.")
    ] = "1",
    lengths: Annotated[
        str,
        typer.Option(
            "--lengths",
            help="Length distributions: sst2, mrpc, squad384, mixed, A+B or fixed lengths; comma-separated.",
        ),
    ] = "squad384",
    seq_length: Annotated[
        int | None, typer.Option("-s", "--seq-length", min=3, help="Maximum sequence length in tokens.")
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Seconds per case, warm-up included.")] = 20.0,
    warmup: Annotated[
        float | None, typer.Option("--warmup", min=0, help="Seconds of warm-up.", show_default="a tenth")
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option("--vocab-size", min=1, help="Draw token ids below this.", show_default="of the run, else 1000"),
    ] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, help="Seconds to wait for a response.")] = 60.0,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until the server is ready.")] = 0.0,
    seed: o.Seed = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Record file to write.", show_default="runs/bench/serve-TIME.json"),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing record file.")] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Measure a server: throughput, and latency percentiles from p50 to p99, under a closed or an open loop.

    Works with any server of the Open Inference Protocol. In an open loop requests arrive whatever is in flight, and
    latency counts from the moment a request was due. Exit code 1 if a case failed or a request was not answered.

    Examples:

      bertkit bench serve runs/squad --concurrency 1,4,16 --lengths squad384

      bertkit bench serve http://127.0.0.1:8000 --model bert --rate 50,100 --lengths mixed --seconds 30

      bertkit bench serve runs/mrpc --concurrency 8 --lengths mrpc -- --max-tokens 8192 -d bf16
    """
    import sys

    from bertkit.bench.run import record_file
    from bertkit.bench.served import ServedBench, ServedSettings
    from bertkit.bench.served_table import show_served
    from bertkit.console import Display
    from bertkit.files.disk import to_json

    tenth = seconds / 10 if warmup is None else warmup
    if tenth >= seconds:
        raise UserError(f"--warmup {tenth:g} leaves nothing of --seconds {seconds:g}", "raise --seconds")
    cases = cases_of(concurrency, rate, batch_size, lengths)
    file = record_file("serve", output, overwrite)
    display = Display(quiet=quiet)
    with _opened(ServerTarget(target, tuple(words or ()), model, version, timeout, wait), display) as (remote, subject):
        longest = seq_length or _longest(remote, display)
        how = ServedSettings(seconds, tenth, longest, vocab_size or _vocabulary(target), seed or 1)
        made = ServedBench(remote, subject, how, display).run(cases, file)
    records = made["records"]
    if json:
        put_json(to_json(made))
    else:
        with writing():
            show_served(records, sys.stdout)
    display.say(f"record: {file}")
    failed = [one for one in records if one["status"] != "measured" or one["callbacks"]["serving"]["errors"]]
    return 1 if failed else 0


def _longest(model: RemoteModel, display: Display) -> int:
    """What lengths are cut to where nothing is said: the maximum that `bertkit serve` tells of its model; 0: not."""
    told = model.facts.get("seq_length")
    if type(told) is not int or told < 3:
        return 0
    display.say(f"lengths: cut to {told} tokens, the model's maximum")
    return told


def _vocabulary(target: str) -> int:
    """Token ids that may be drawn: a run's own, else those that every published vocabulary has."""
    from bertkit.files.inputs import is_folder
    from bertkit.model.folder import read_configuration

    folder = Path(target).expanduser()
    return read_configuration(folder).model.vocab_size if is_folder(folder) else SAFE_IDS


@dataclass(frozen=True)
class ServerTarget:
    """Which model of which server."""

    target: str
    words: tuple[str, ...]  # for a server that is started
    model: str
    version: str
    timeout: float
    wait: float


def cases_of(concurrency: str, rate: str, batch_size: str, lengths: str) -> list[ServedCase]:
    """All combinations. Raises UserError for what is no list of numbers or of distributions."""
    from bertkit.bench.plan import split_list, whole_numbers
    from bertkit.bench.requests import parts_of
    from bertkit.bench.served import ServedCase

    if concurrency and rate:
        raise UserError("--concurrency and --rate exclude each other", "give one of them")
    names, sizes = split_list(lengths, "--lengths"), whole_numbers(batch_size, "-b")
    for name in names:
        parts_of(name)
    if rate:
        rates = [_rate(text) for text in split_list(rate, "--rate")]
        return [ServedCase(name, size, None, one) for name in names for size in sizes for one in rates]
    flights = whole_numbers(concurrency or "1", "--concurrency")
    if max(flights) > 1024:
        raise UserError(f"--concurrency {max(flights)} is over 1024", "start several clients")
    return [ServedCase(name, size, one, None) for name in names for size in sizes for one in flights]


def _rate(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise UserError(f"--rate {text} is no number of requests per second", "write it as --rate 50")
    return found


@contextlib.contextmanager
def _opened(wanted: ServerTarget, display: Display) -> Iterator[tuple[RemoteModel, Subject]]:
    """The model at its server, which is started for a run."""
    from bertkit.bench.server_process import own_server
    from bertkit.engine.remote import wait_ready
    from bertkit.files.http import server_at
    from bertkit.files.inputs import is_folder

    if is_folder(Path(wanted.target).expanduser()):
        display.say(f"server: starting bertkit serve {wanted.target}")
        with own_server(wanted.target, wanted.words, wanted.timeout) as server:
            yield _model(server, wanted, display, started=True)
        return
    if wanted.words:
        raise UserError(f"{wanted.words[0]}: {wanted.target} is no run's folder", "options of serve are for a run")
    if "/" in wanted.target.removeprefix("http://").removeprefix("https://").rstrip("/") and "://" not in wanted.target:
        raise UserError(f"there is no folder {wanted.target}", "check the path, or write http:// before an address")
    server = server_at(wanted.target, wanted.timeout)
    if wanted.wait:
        wait_ready(server, wanted.wait)
    yield _model(server, wanted, display, started=False)
    server.close()


def _model(server: RemoteServer, wanted: ServerTarget, display: Display, started: bool) -> tuple[RemoteModel, Subject]:
    from bertkit.bench.served import Subject
    from bertkit.engine.remote import open_model

    found = open_model(server, wanted.model, wanted.version, of_texts=False)
    facts = found.facts
    outputs = {one.name for one in found.outputs}
    task = facts.get("task") or ("squad" if {"start_logits", "end_logits"} <= outputs else None)
    precision = facts.get("precision")
    display.say(f"model: {found.name} at {server.address}, {found.platform or 'platform unknown'}")
    return found, Subject(
        name=wanted.target if started else found.name,
        task=task if isinstance(task, str) else None,
        precision=precision if isinstance(precision, str) and precision else None,
        server="started for this: bertkit serve " + " ".join(wanted.words) if started else str(server.address),
        on_this_cpu=found.platform == "bertkit_cpu" and server.address.host in ("127.0.0.1", "localhost", "::1"),
    )
