"""Servers of one run beside each other: requests and tokens a second under a closed loop. By hand, on a machine that
does nothing else.

    python benchmarks/servers.py runs/sst2 --lengths sst2 --concurrency 64 \\
        int8="-d int8" padded="-d int8 --engine onnxruntime --set device.length_groups=false" --json servers.json

Every server is a `bertkit serve RUN` with the options behind its name. All are up; they take turns, A B C A B C …,
under the same requests. Ratios are of the first, within a round: median, smallest and largest over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.bench.load import closed_loop, measured
from bertkit.bench.requests import Requests, make_requests
from bertkit.bench.served import asker, probe
from bertkit.bench.server_process import own_server
from bertkit.engine.remote import RemoteModel, input_specs, open_model
from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_text
from bertkit.model.folder import read_configuration
from bertkit.records.collect import percentiles

TIMEOUT = 60.0  # seconds for a response
WARM_UP = 0.2  # of a turn


@dataclass(frozen=True)
class Load:
    """What each server gets in its turn."""

    concurrency: int
    seconds: float


def turn(model: RemoteModel, requests: Requests, load: Load) -> dict[str, float]:
    """Raises UserError where a request is not answered."""
    made = closed_loop(asker(model, requests), load.concurrency, load.seconds, lambda: None)
    found = measured(made, WARM_UP * load.seconds, load.seconds, is_open=False)
    if found.errors or not found.within:
        raise UserError(f"{model.name}: {found.errors or 'nothing was answered'}", "look at the server by itself")
    latencies = percentiles([one.latency for one in found.counted], (50, 99))
    return {
        "requests_per_second": len(found.within) / found.seconds,
        "tokens_per_second": sum(requests.tokens(one.number) for one in found.within) / found.seconds,
    } | {f"{name}_ms": 1e3 * seconds for name, seconds in latencies.items() if seconds is not None}


def summary(rounds: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Of each server, by name: medians, and how its rate compares with the first one's in the same round."""
    first = next(iter(rounds.values()))
    found = {}
    for name, turns in rounds.items():
        ratios = [
            one["tokens_per_second"] / other["tokens_per_second"] for one, other in zip(turns, first, strict=True)
        ]
        found[name] = {key: statistics.median(one[key] for one in turns) for key in turns[0]} | {
            "ratio": statistics.median(ratios), "ratio_smallest": min(ratios), "ratio_largest": max(ratios),
        }  # fmt: skip
    return found


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        f"{'server':24} {'requests/s':>10} {'tokens/s':>9} {'p50 ms':>7} {'p99 ms':>7}  ratio (smallest to largest)"
    ]
    lines += [
        f"{name:24} {one['requests_per_second']:10.1f} {one['tokens_per_second']:9,.0f} {one['p50_ms']:7.0f}"
        f" {one['p99_ms']:7.0f}  {one['ratio']:.2f} ({one['ratio_smallest']:.2f} to {one['ratio_largest']:.2f})"
        for name, one in found.items()
    ]
    return "\n".join(lines)


def options_by_name(texts: Sequence[str]) -> dict[str, list[str]]:
    """`NAME=OPTIONS` each. Raises UserError."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, sign, words = text.partition("=")
        if not name or not sign or name.startswith("-"):
            raise UserError(f"{text} has no name", 'write it as NAME="OPTIONS", such as int8="-d int8"')
        if name in found:
            raise UserError(f"two servers are called {name}", "give each a name of its own")
        found[name] = shlex.split(words)
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    words = options_by_name(options.servers)
    vocabulary = read_configuration(options.run).model.vocab_size
    load, rounds = Load(options.concurrency, options.seconds), {name: list[dict[str, float]]() for name in words}
    with contextlib.ExitStack() as stack:
        models = {
            name: open_model(stack.enter_context(own_server(str(options.run), given, TIMEOUT)), "", "", of_texts=False)
            for name, given in words.items()
        }
        first = next(iter(models.values()))  # all take the same: they serve one run
        requests = make_requests(
            first, input_specs(first), options.lengths, 1, options.seq_length, vocabulary, options.seed
        )
        for name, model in models.items():
            if fault := probe(model, requests):
                raise UserError(f"{name}: {fault}", "look at the server by itself")
        for number in range(options.rounds):
            for name, model in models.items():
                rounds[name].append(turn(model, requests, load))
                rate = rounds[name][-1]["requests_per_second"]
                print(f"round {number + 1} of {options.rounds}: {name} {rate:.1f} requests/s", file=sys.stderr)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    return {"servers": words, "settings": settings, "rounds": rounds}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("servers", nargs="+", metavar="NAME=OPTIONS", help="options of bertkit serve")
    parser.add_argument("--lengths", default="sst2", help="as bertkit bench serve has them")
    parser.add_argument("--seq-length", type=int, default=384, help="maximum in tokens")
    parser.add_argument("--concurrency", type=int, default=64, help="requests in flight")
    parser.add_argument("--seconds", type=float, default=3.0, help="of a turn; a fifth of it is warm-up")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for every round's figures")
    return parser


def main() -> int:
    options = arguments().parse_args()
    try:
        made = run(options)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    found = summary(made["rounds"])
    print(table(found))
    if options.json:
        write_text(options.json, to_json(made | {"summary": found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
