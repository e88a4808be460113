"""`bertkit bench serve`: a server under load, case by case, each a record of its own."""

from __future__ import annotations

import dataclasses
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.bench.load import Measurement, Sent, Timed, arrivals, closed_loop, measured, open_loop
from bertkit.bench.requests import Requests, make_requests
from bertkit.bench.server_stats import PARTS, ServerTimes, between, server_times
from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.engine.inference_protocol import HEADER_LENGTH, decode_response
from bertkit.engine.remote import OUTPUT_NAMES, RemoteModel, input_specs, refused, send
from bertkit.errors import UserError
from bertkit.files.http import Unanswered
from bertkit.records import collect
from bertkit.records.files import collection, sealed, write_all
from bertkit.records.schema import blank
from bertkit.training.comparability import whole

RULES = {
    "warm-up": "the first --warmup seconds of a case count nowhere",
    "latency": "client's clock, to the last byte of the response; in a closed loop from the moment a request is sent, "
    "in an open loop from the moment it was due (no coordinated omission)",
    "rate": "requests answered after the warm-up and before the end; in a closed loop the latencies are theirs, in an "
    "open loop those of all that were due meanwhile, however late they were answered",
    "errors": "counted beside; no latency is theirs, and no rate",
    "tokens": "without padding; token ids are random",
    "server": "the server's own statistics, mean of a request after the warm-up",
    "client": "Client Send: until the request was written; Client Recv: from the response's head to its last byte",
}
OF_THE_MACHINE = ("cpu_model", "cpu_mhz", "cpu_mhz_most", "sockets", "cores", "logical_cpus", "memory_bytes")
TIME_BASIS = "client's wall clock, to the last byte of the response"


@dataclass(frozen=True)
class ServedCase:
    """One row of the table."""

    lengths: str
    batch_size: int
    concurrency: int | None  # requests in flight, of a closed loop
    rate: float | None  # requests due each second, of an open loop

    def __str__(self) -> str:
        load = f"{self.concurrency} in flight" if self.rate is None else f"{self.rate:g} requests/s"
        return f"{self.lengths}, batch {self.batch_size}, {load}"


@dataclass(frozen=True)
class ServedSettings:
    """What all cases share."""

    seconds: float  # of a case, its warm-up in it
    warmup: float
    longest: int  # lengths are cut to it; 0: not
    vocab_size: int
    seed: int


@dataclass(frozen=True)
class Subject:
    """What is measured, for the record."""

    name: str  # the run's folder, or the model's name at the server
    task: str | None
    precision: str | None
    server: str  # its address, or that it was started for this
    on_this_cpu: bool  # whether it computes on this machine's CPU; else nothing is known of what it computes on


@dataclass
class ServedBench:
    """A measurement under way."""

    model: RemoteModel
    subject: Subject
    settings: ServedSettings
    display: Display
    records: list[dict[str, Any]] = field(default_factory=list)
    _requests: tuple[tuple[str, int], Requests] | None = None

    def run(self, cases: list[ServedCase], output: Path) -> dict[str, Any]:
        """Measure all cases, keep their records in `output`, return what it holds."""
        write_all(output, self.records)  # a place that cannot be written is known before the work
        for number, case in enumerate(cases, 1):
            self.display.say(f"case {number} of {len(cases)}: {case}")
            self.records.append(sealed(self._case(case)))
            write_all(output, self.records)
        return collection(self.records)

    def _case(self, case: ServedCase) -> dict[str, Any]:
        requests = self._made(case)
        entry = self._entry(case, requests)
        fault = probe(self.model, requests)
        if fault:
            self.display.warn(f"{case}: {fault}")
            return entry | {"status": "failed", "reason": fault}
        before: list[ServerTimes | None] = []
        warm = threading.Timer(self.settings.warmup, lambda: before.append(server_times(self.model)))
        warm.start()
        made = self._loaded(case, requests)
        warm.join()
        found = measured(made, self.settings.warmup, self.settings.seconds, case.rate is not None)
        inside = between(before[0] if before else None, server_times(self.model))
        told = figures(found, requests, case, inside, entry["hardware"]["device"]["count"])
        if not found.counted:
            reason = next(iter(found.errors), "") or f"no response within {self.settings.seconds:g} s; raise --seconds"
            self.display.warn(f"{case}: {reason}")
            return entry | {"status": "failed", "reason": reason, "callbacks": told["callbacks"]}
        if found.failed:
            self.display.warn(f"{case}: {len(found.failed)} requests failed: {said(found.errors)}")
        return entry | told

    def _made(self, case: ServedCase) -> Requests:
        key = (case.lengths, case.batch_size)
        if self._requests is None or self._requests[0] != key:
            how = self.settings
            self._requests = (
                key,
                make_requests(self.model, input_specs(self.model), *key, how.longest, how.vocab_size, how.seed),
            )
        return self._requests[1]

    def _loaded(self, case: ServedCase, requests: Requests) -> list[Timed]:
        seconds = self.settings.seconds
        due = arrivals(case.rate, seconds, self.settings.seed) if case.rate is not None else np.empty(0)
        begin, lock, last = time.monotonic(), threading.Lock(), 0
        with self.display.progress("seconds", int(seconds)) as bar:

            def tell() -> None:
                nonlocal last
                with lock:
                    if (now := min(int(time.monotonic() - begin), int(seconds))) > last:
                        last = now
                        bar.to(now)

            ask = asker(self.model, requests)
            if case.concurrency is not None:
                return closed_loop(ask, case.concurrency, seconds, tell)
            return open_loop(ask, due, tell)

    def _entry(self, case: ServedCase, requests: Requests) -> dict[str, Any]:
        """The record before anything was measured."""
        how, subject, model = self.settings, self.subject, self.model
        size = requests.lengths.shape[1]
        known = {
            "measures": "infer", "task": subject.task, "lengths": requests.title, "sequence_length": requests.longest,
            "global_batch": size, "warmup_rule": RULES["warm-up"], "time_basis": TIME_BASIS,
        }  # fmt: skip
        data = {
            "name": requests.title, "file": None, "sha256": None, "features_sha256": None, "examples": None,
            "sequences": requests.lengths.size, **collect.lengths(requests.lengths.reshape(-1)), "faults": [],
            "mean_masked": None,
        }  # fmt: skip
        made = blank("bench") | collect.environment(World())
        device = dict.fromkeys(made["hardware"]["device"])
        if subject.on_this_cpu:
            made["hardware"]["device"] = device | {"kind": "cpu", "count": 1}
        else:  # the machine of the client, which computes nothing
            made["hardware"] |= dict.fromkeys(OF_THE_MACHINE) | {"device": device}
        made["hardware"]["engine"] = {"server": subject.server, "model": model.name, "platform": model.platform}
        return made | {
            "config": {
                "seed": how.seed, "lengths": case.lengths, "cut_to": how.longest or None, "seconds": how.seconds,
                "warmup_seconds": how.warmup, "batch_size": size, "concurrency": case.concurrency,
                "request_rate": case.rate, "server": subject.server, "model": model.name,
                "vocab_size": how.vocab_size, "binary": model.binary,
            },
            "backend": {"name": model.platform or "server", "reason": subject.server},
            "precision": {"name": subject.precision, "reason": None} if subject.precision else None,
            "model": made["model"] | {"name": subject.name},
            "data": {"task": subject.task, "train": data, "evaluation": []},
            "fairness": dataclasses.asdict(whole(known)),
            "method": {"warmup_rule": RULES["warm-up"], "warmup_updates": None, "rules": RULES},
            "case": {"model": subject.name, "lengths": case.lengths, "batch_size": size, "loss": None},
        }  # fmt: skip


def asker(model: RemoteModel, requests: Requests) -> Callable[[int], Sent]:
    """What sends the request of a number, and says what became of it."""

    def ask(number: int) -> Sent:
        content, headers = requests.bodies[number % len(requests.bodies)]
        try:
            reply = send(model, content, headers)
        except Unanswered as error:
            return Sent(error.cause)
        if not reply.ok:
            return Sent(f"HTTP {reply.status}", reply.send_seconds, reply.receive_seconds)
        return Sent("", reply.send_seconds, reply.receive_seconds)

    return ask


def probe(model: RemoteModel, requests: Requests) -> str:
    """What is wrong with the server's answer to the longest request; "" where it is one of a BERT's."""
    number = int(requests.lengths.max(1).argmax())
    try:
        reply = send(model, *requests.bodies[number])
        if not reply.ok:
            return refused(reply, "the server refuses the longest request").cause
        found = decode_response(reply.content, reply.headers.get(HEADER_LENGTH.lower()))
    except UserError as error:
        return str(error)
    known = {name for names in OUTPUT_NAMES.values() for name in names}
    rows = requests.lengths.shape[1] // input_specs(model).each
    if not any(one.name in known and one.shape[:1] == (rows,) for one in found.outputs):
        return f"the server's model {model.name} answers with none of {', '.join(sorted(known))} of {rows} sequences"
    return ""


def figures(
    found: Measurement, requests: Requests, case: ServedCase, server: Mapping[str, float | None], devices: int | None
) -> dict[str, Any]:
    """The measured parts of a record."""
    number, size = collect.number, requests.lengths.shape[1]
    sequences = size * len(found.within)
    tokens = sum(requests.tokens(one.number) for one in found.within)
    latencies = [one.latency for one in found.counted]
    made = blank("bench")
    rates = {"sequences_per_second": number(sequences / found.seconds)}
    rates |= {"tokens_per_second": number(tokens / found.seconds), "seconds": number(found.seconds)}
    if devices == 1:
        rates |= {f"{name}_per_device": rates[name] for name in ("sequences_per_second", "tokens_per_second")}
    counted = made["throughput"]["counted"] | {"updates": len(found.within), "sequences": sequences, "tokens": tokens}
    serving: dict[str, Any] = {
        "requests": len(found.counted) + len(found.failed),
        "errors": found.errors,
        "requests_per_second": number(len(found.within) / found.seconds),
        "requests_due_per_second": case.rate,
        "latency_mean_ms": milliseconds(latencies),
        "client_send_ms": milliseconds([one.sent.send_seconds for one in found.counted]),
        "client_receive_ms": milliseconds([one.sent.receive_seconds for one in found.counted]),
        "client_late_p99_ms": late(found) if case.rate is not None else None,
        **{f"server_{name}": None if value is None else number(value) for name, value in server.items()},
    }
    serving["network_ms"] = network(serving)
    return {
        "updates": len(found.counted),
        "throughput": made["throughput"] | rates | {"counted": counted},
        "time": made["time"]
        | {"training_seconds": number(found.seconds), "step_of": "a request", "steps_timed": len(latencies)}
        | {"step_seconds": collect.percentiles(latencies) if latencies else {}},
        "callbacks": {"serving": serving},
    }


def milliseconds(seconds: list[float]) -> float | None:
    """Their mean; None of none."""
    return collect.number(1e3 * statistics.fmean(seconds)) if seconds else None


def late(found: Measurement) -> float | None:
    """How long after it was due the client sent a request: 99 of 100 sooner, in milliseconds."""
    waited = [one.start - one.due for one in found.counted]
    return collect.number(1e3 * float(np.quantile(waited, 0.99))) if waited else None


def network(serving: Mapping[str, Any]) -> float | None:
    """What of the mean latency neither side accounts for: the network, the server's reading and writing."""
    whole_ms = serving["latency_mean_ms"]
    known = [serving[f"server_{name}_ms"] for name in PARTS if name != "success"]
    inside = sum(one for one in known if one is not None) if any(one is not None for one in known) else None
    if whole_ms is None or inside is None:
        return None
    rest = whole_ms - inside - (serving["client_send_ms"] or 0.0) - (serving["client_receive_ms"] or 0.0)
    return collect.number(rest) if rest >= 0 else None  # the two means are of requests that are not quite the same


def said(errors: Mapping[str, int]) -> str:
    return ", ".join(f"{count} x {error}" for error, count in errors.items())
