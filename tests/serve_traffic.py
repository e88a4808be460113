"""Traffic for a server under test: clients whose every answer is compared, and vandals that each break a rule.

`python tests/serve_traffic.py URL EXPECTED SECONDS CLIENTS VANDALS [RATE]` prints what came of it as JSON; EXPECTED is
a JSON file: [[request to /predict, answer], …]. With a RATE so many requests a second are due, at random moments
whatever was answered, and a latency counts from then; without, each client asks anew when it was answered.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TOLERANCE = 0.02  # of a probability, in bf16; another batch may sum in another order
PATIENCE = 60.0  # seconds


@dataclass
class Tally:
    """What came of it."""

    statuses: Counter[str] = field(default_factory=Counter)
    vandals: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)  # of each answer
    largest: float = 0.0  # difference of a probability
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def asked(address: str, path: str, body: Any = None, timeout: float = PATIENCE) -> tuple[int, Any]:
    """(status, what the JSON says; None where nothing is said) of one request on a connection of its own.

    A GET without a body; bytes are sent as they are, anything else as JSON.
    """
    where = urlsplit(address)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=timeout)
    try:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {} if content is body else {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", f"/{path.lstrip('/')}", content, headers)
        found = connection.getresponse()
        said = found.read()
        return found.status, json.loads(said) if said else None
    finally:
        connection.close()


def difference(found: Any, wants: Any) -> float:
    """The largest of a probability; infinity where the forms differ."""
    if isinstance(wants, list):
        if not isinstance(found, list) or len(found) != len(wants):
            return float("inf")
        return max((difference(one, other) for one, other in zip(found, wants, strict=True)), default=0.0)
    if found.keys() != wants.keys() or found["scores"].keys() != wants["scores"].keys():
        return float("inf")
    return max(abs(found["scores"][name] - score) for name, score in wants["scores"].items())


class Arrivals:
    """The moments at which requests are due, shared by the clients: a Poisson process."""

    def __init__(self, rate: float, seed: int = 0) -> None:
        self.rate, self.random, self.lock = rate, random.Random(seed), threading.Lock()  # noqa: S311 - no secret
        self.due = time.monotonic()

    def wait(self) -> float:
        """When the next one was due, after waiting for it."""
        with self.lock:
            self.due += self.random.expovariate(self.rate)
            due = self.due
        time.sleep(max(0.0, due - time.monotonic()))
        return due


def client(
    address: str, expected: list[Any], until: float, tally: Tally, seed: int, arrivals: Arrivals | None = None
) -> None:
    """Ask one after the other on one connection, and compare each answer."""
    random_ = random.Random(seed)  # noqa: S311 - no secret
    where = urlsplit(address)
    connection = http.client.HTTPConnection(str(where.hostname), where.port, timeout=PATIENCE)
    while time.monotonic() < until:
        asked, wants = random_.choice(expected)
        began = arrivals.wait() if arrivals else time.monotonic()
        try:
            connection.request("POST", "/predict", json.dumps(asked).encode())
            response = connection.getresponse()
            found = json.loads(response.read())
            status = str(response.status)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            status, found = type(error).__name__, None
        took = time.monotonic() - began
        with tally.lock:
            tally.statuses[status] += 1
            if status == "200":
                tally.seconds.append(took)
                far = difference(found, wants)
                tally.largest = max(tally.largest, far)
                if far > TOLERANCE:
                    tally.wrong.append(f"{asked} gave {found}, not {wants}"[:500])
            elif status != "429":
                tally.wrong.append(f"{status}: {found}"[:500])
        if status == "429" and not arrivals:
            time.sleep(0.05)
    connection.close()


def raw(address: str, data: bytes, wait: float = 0.0, read: bool = True) -> bytes:
    """What the server sends back to these bytes; the connection is cut after `wait` seconds where nothing is read."""
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(data)
        if not read:
            time.sleep(wait)
            return b""
        found = b""
        with contextlib.suppress(OSError):
            while part := connection.recv(1 << 16):
                found += part
        return found


def request(path: str, body: bytes, headers: str = "Connection: close\r\n") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def vandalize(address: str, model: str, random_: random.Random) -> tuple[str, str]:
    """One bad deed: (its name, the status that came back). None may be answered with a 500."""
    text = json.dumps({"model": model, "text": "a", "text_pair": "b"}).encode()
    infer = f"/v2/models/{model}/infer"
    ids = {"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]}
    deeds: dict[str, tuple[bytes, bool]] = {
        "goes away": (request("/predict", text), False),
        "goes away within the body": (request("/predict", text)[:-5], False),
        "goes away within the headers": (request("/predict", text)[:30], False),
        "huge body": (request("/predict", b"", "Content-Length: 99999999999\r\n").replace(b"Content-Length: 0\r\n", b"")
        + b"x" * 10_000, True),
        "large body": (request("/predict", b"[" * (5 << 20)), True),
        "long header": (request("/predict", text, f"X-Long: {'a' * 200_000}\r\n"), True),
        "nested": (request("/predict", b"[" * 100_000), True),
        "no JSON": (request("/predict", random_.randbytes(200)), True),
        "no HTTP": (random_.randbytes(200) + b"\r\n\r\n", True),
        "wrong type": (request(infer, json.dumps({"inputs": [ids | {"datatype": "FP32"}]}).encode()), True),
        "wrong shape": (request(infer, json.dumps({"inputs": [ids | {"shape": [1, 9]}]}).encode()), True),
        "wrong id": (request(infer, json.dumps({"inputs": [ids | {"data": [1, 1 << 40]}]}).encode()), True),
        "wrong length": (
            request(infer, b"{}", "Inference-Header-Content-Length: 7\r\nConnection: close\r\n"), True,
        ),
        "unknown model": (request("/v2/models/none/infer", b"{}"), True),
        "slow reader": (request("/predict", text, "") * 50, False),
        "long text": (request("/predict", text.replace(b'"a"', b'"' + b"word " * 200_000 + b'"')), True),
    }  # fmt: skip
    name = random_.choice([*deeds])
    data, read = deeds[name]
    said = raw(address, data, random_.random() * 0.2, read)
    status = said.split(b" ", 2)[1].decode("ascii", "replace") if said.startswith(b"HTTP/") else "cut"
    return name, status


def vandal(address: str, model: str, until: float, tally: Tally, seed: int) -> None:
    random_ = random.Random(seed)  # noqa: S311 - no secret
    while time.monotonic() < until:
        try:
            name, status = vandalize(address, model, random_)
        except OSError as error:
            name, status = "connecting", type(error).__name__
        with tally.lock:
            tally.vandals[f"{name}: {status}"] += 1
            if status.startswith("5"):
                tally.wrong.append(f"{name}: {status}")
        time.sleep(0.05)


def run(
    address: str, expected: list[Any], seconds: float, clients: int, vandals: int, rate: float | None = None
) -> Tally:
    """`clients` and `vandals` at once, for so long."""
    tally, until = Tally(), time.monotonic() + seconds
    model = expected[0][0]["model"]
    arrivals = Arrivals(rate) if rate else None
    threads = [
        threading.Thread(target=client, args=(address, expected, until, tally, number, arrivals))
        for number in range(clients)
    ] + [threading.Thread(target=vandal, args=(address, model, until, tally, number)) for number in range(vandals)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally


def summary(tally: Tally) -> dict[str, Any]:
    times = sorted(tally.seconds)
    return {
        "statuses": dict(tally.statuses),
        "vandals": dict(sorted(tally.vandals.items())),
        "p50_ms": round(1000 * times[len(times) // 2], 1),
        "p99_ms": round(1000 * times[len(times) * 99 // 100], 1),
        "largest_difference": tally.largest,
        "wrong": tally.wrong[:5],
        "wrongs": len(tally.wrong),
    }


def main() -> None:
    address, expected, seconds, clients, vandals, *rate = sys.argv[1:]
    known = json.loads(Path(expected).read_text(encoding="utf-8"))
    tally = run(address, known, float(seconds), int(clients), int(vandals), float(rate[0]) if rate else None)
    print(json.dumps(summary(tally), indent=1))


if __name__ == "__main__":
    main()
