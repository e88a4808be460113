"""A server under load for a long time: what it can do, 70 % of that, 150 % of that, and processes that are killed.

    python tests/serve_load.py RUN --texts data/glue/SST-2/dev.tsv --seconds 600 --json load.json

By hand, never in CI. The server has the first CPU, the traffic the second. Requests are sentences alone, or mixed: one
sentence, several joined to a long text, or a list; every answer is compared with what `bertkit predict` says.

Requests of very different sizes wait for one another, so their p99 is far from their p50 in any queue that keeps the
order. How far is printed beside what was seen: of a server without batches whose time goes by a request's words alone.

Exit code 1 where an answer was wrong, memory grew by over 100 MB, nothing was refused above capacity, or p99 is over 4
times p50 at 70 %.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from serve_process import Server
from serve_traffic import Tally, run, summary

BERTKIT = [sys.executable, "-m", "bertkit"]
QUEUE = 64  # sequences that may wait
IN_FLIGHT = 160  # clients, more than the queue holds
SENTENCE = 70  # words; a text of more is several sentences


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="of a task with one text, such as SST-2")
    parser.add_argument("--texts", type=Path, required=True, help="a table with a column `sentence`")
    parser.add_argument("--seconds", type=float, default=600, help="of each part; of the kills a fifth")
    parser.add_argument("--precision", "-d", default="bf16")
    parser.add_argument("--seq-length", default="384")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def requests(texts: Sequence[str], seed: int = 0) -> list[Any]:
    """600 mixed ones: 7 of 10 a sentence, 2 a long text, 1 a list of up to 8."""
    stream, made = random.Random(seed), []  # noqa: S311 - no secret
    for number in range(600):
        if number % 10 < 7:
            made.append(stream.choice(texts))
        elif number % 10 < 9:
            made.append(" ".join(stream.sample(texts, stream.randint(2, 16))))
        else:
            made.append(stream.sample(texts, stream.randint(2, 8)))
    return made


def words(request: Any) -> int:
    """That the server reads: of each text so many as the model takes."""
    return sum(min(384, len(text.split()) + 2) for text in (request if isinstance(request, list) else [request]))


def in_order(sizes: Sequence[int], load: float, count: int = 300_000, seed: int = 0) -> float:
    """p99 over p50 of what requests take that come at random moments and are answered one at a time in their order.

    A request takes as long as its size says, and the server is busy for this share of the time (Lindley 1952, "The
    theory of queues with a single server").
    """
    stream = random.Random(seed)  # noqa: S311 - no secret
    mean = sum(sizes) / len(sizes)
    wait, took = 0.0, []
    for _ in range(count):
        size = stream.choice(sizes)
        took.append(wait + size)
        wait = max(0.0, wait + size - stream.expovariate(load / mean))
    took.sort()
    return took[count * 99 // 100] / took[count // 2]


def expected(o: argparse.Namespace) -> list[Any]:
    """[[request, answer], …], the answers by `bertkit predict`."""
    with o.texts.open(encoding="utf-8", newline="") as file:
        texts = [row["sentence"].strip() for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    asked = requests(texts)
    flat = [text for one in asked for text in (one if isinstance(one, list) else [one])]
    command = [*BERTKIT, "predict", str(o.run), "-", "--json", "--top-k", "2", "-s", o.seq_length, "-d", o.precision]
    done = subprocess.run(command, input="\n".join(flat) + "\n", capture_output=True, text=True, check=True)
    lines = (json.loads(line) for line in done.stdout.splitlines())
    return [
        [
            {"model": "load", "text": one},
            [answer(next(lines)) for _ in one] if isinstance(one, list) else answer(next(lines)),
        ]
        for one in asked
    ]


def answer(said: dict[str, Any]) -> dict[str, Any]:
    """What /predict says where `predict --json` says this."""
    scores = dict(zip(said["labels"], said["probabilities"], strict=True))
    label = max(scores, key=scores.__getitem__)
    return {"label": label, "probability": scores[label], "scores": scores}


def serving(o: argparse.Namespace, folder: Path, cpus: set[int], workers: int) -> Server:
    """`bertkit serve` on these CPUs."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)  # which the process inherits
    try:
        limits = ("--queue", str(QUEUE), "--workers", str(workers), "-s", o.seq_length)
        return Server(folder, f"load={o.run.resolve()}", "-d", o.precision, *limits)
    finally:
        os.sched_setaffinity(0, before)


def below(server: Server) -> list[int]:
    """The processes that it has started, and theirs."""
    found, after = [], [server.process.pid]
    while after:
        children = Path(f"/proc/{after.pop()}/task")
        for task in children.iterdir() if children.exists() else ():
            for child in (task / "children").read_text().split():
                found.append(int(child))
                after.append(int(child))
    return found


def megabytes(server: Server) -> float:
    """In memory, of all its processes."""
    pages = 0
    for pid in (server.process.pid, *below(server)):
        pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def part(server: Server, known: list[Any], seconds: float, rate: float, name: str) -> dict[str, Any]:
    """An open loop beside three vandals; memory is first looked at after a tenth of the time."""
    memory: list[float] = []
    watch = threading.Timer(seconds / 10, lambda: memory.append(megabytes(server)))
    watch.start()
    found = summary(run(server.address, known, seconds, IN_FLIGHT, 3, rate))
    memory.append(megabytes(server))
    found |= {"rate": rate, "answered_a_second": found["statuses"].get("200", 0) / seconds, "memory_mb": memory}
    print(f"{name}: {json.dumps(found, indent=1)}", flush=True)
    return found


def kills(o: argparse.Namespace, folder: Path, known: list[Any], cpus: set[int]) -> dict[str, Any]:
    """Two processes, of which one is killed every 35 seconds; what it was answering is cut, and nothing else.

    A server gives up where a process ends five times within 30 seconds of its start.
    """
    server, killed, end = serving(o, folder, cpus, 2), 0, time.monotonic() + o.seconds / 5
    tally: list[Tally] = []
    traffic = threading.Thread(target=lambda: tally.append(run(server.address, known, o.seconds / 5, 8, 2)))
    traffic.start()
    stream = random.Random(1)  # noqa: S311 - no secret
    while time.monotonic() < end - 35:
        time.sleep(35)
        workers = [pid for pid in below(server) if "serve" in Path(f"/proc/{pid}/cmdline").read_text()]
        if workers:
            os.kill(stream.choice(workers), signal.SIGKILL)
            killed += 1
    traffic.join()
    found = summary(tally[0])
    cut = sum(count for status, count in found["statuses"].items() if not status.isdigit())
    found |= {"killed": killed, "cut": cut, "wrongs": found["wrongs"] - cut, "exit_code": server.end()}
    print(f"kills: {json.dumps(found, indent=1)}", flush=True)
    return found


def faults(found: dict[str, Any]) -> list[str]:
    """What was not as it should be."""
    above = found["at 150 %"]
    grown = {name: one["memory_mb"][-1] - one["memory_mb"][0] for name, one in found.items() if "memory_mb" in one}
    said = [f"{name}: {one['wrongs']} wrong answers" for name, one in found.items() if one.get("wrongs")]
    said += [f"{name}: memory grew by {more:.0f} MB" for name, more in grown.items() if more > 100]
    if not above["statuses"].get("429"):
        said.append("nothing was refused above capacity")
    for name in ("sentences at 70 %", "at 70 %"):
        times = found[name]["p99_ms"] / found[name]["p50_ms"]
        if times > 4:
            said.append(f"{name}: p99 is {times:.1f} times p50; in a queue in order {found[name]['in_order']:.1f}")
    return said


def main() -> int:
    o = options()
    known = expected(o)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(o, Path(folder), known)
    if o.json:
        o.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    said = faults(found)
    print("\n".join(said) or "as it should be")
    return bool(said)


def measured(o: argparse.Namespace, folder: Path, known: list[Any]) -> dict[str, Any]:
    cpus = sorted(os.sched_getaffinity(0))
    server = serving(o, folder, {cpus[0]}, 1)
    os.sched_setaffinity(0, {cpus[-1]})
    run(server.address, known, 10, 16, 0)
    sentences = [one for one in known if isinstance(one[0]["text"], str) and words(one[0]["text"]) < SENTENCE]
    found: dict[str, Any] = {}
    for kind, asked, shares in (("sentences ", sentences, (0.7,)), ("", known, (0.7, 1.5))):
        capacity = run(server.address, asked, 30, 32, 3).statuses["200"] / 30  # beside what breaks the rules, as after
        print(f"{kind}capacity: {capacity:.1f} requests/s", flush=True)
        found[f"{kind}capacity"] = {"requests_per_second": capacity}
        for share in shares:
            name = f"{kind}at {share:.0%}".replace("%", " %")
            found[name] = part(server, asked, o.seconds, share * capacity, name)
            if share < 1:
                found[name]["in_order"] = in_order([words(one[0]["text"]) for one in asked], share)
                print(f"{name}: a queue in order has p99 / p50 {found[name]['in_order']:.1f}", flush=True)
    found["exit_code"] = {"server": server.end()}
    os.sched_setaffinity(0, set(cpus))
    return found | {"kills": kills(o, folder, known, set(cpus))}


if __name__ == "__main__":
    sys.exit(main())
