"""NVIDIA's load generators for a Triton server: perf_client, perf_analyzer and the scripts around them.

Here too is what they share with the clients: a server's address, positional arguments, and flags without a counterpart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bertkit.cli.migration.command import Draft, NotUnderstood
from bertkit.cli.migration.python_flags import read_flags, table
from bertkit.cli.migration.shell_scripts import left_open
from bertkit.cli.migration.starters import whole
from bertkit.cli.migration.words import Old
from bertkit.errors import UserError

LOCAL = "http://127.0.0.1:8000"
PORTS = {"8001": "8000"}  # gRPC -> HTTP
LENGTH = "384"  # of every request of theirs: the length is fixed by the export
PRECISIONS = ("fp16", "fp32", "tf32")


def arguments(script: str, old: Old, draft: Draft) -> dict[str, str]:
    order: list[list[str]] = table("scripts.toml")[script]["arguments"]
    given, words = dict(order), list(old.arguments)
    if script == "run_perf_client" and len(words) > 2 and words[2] in PRECISIONS:
        draft.lost(words.pop(2), "an older script's precision of the server; `bertkit serve -d` says it")
    for (name, _), word in zip(order, words, strict=False):
        if word and not word.startswith("<"):
            given[name] = word
    left_open(words, [bool(own) for _, own in order], draft)
    if not given.get("checkpoint", "known"):
        raise NotUnderstood("the old command names no trained model", "give it as the first argument")
    given["rest"] = "\0".join(words[len(order) :])
    return given


def note_lost(
    draft: Draft, flags: Mapping[str, str], read: Sequence[str], why: Mapping[str, str], dash: str = "-"
) -> None:
    """Note the flags that none of ours stands for; `why`: of those that are known; `dash`: as theirs are written."""
    for name, value in flags.items():
        if name not in read:
            said = f"--{name.replace('_', dash)} {value}".strip()
            draft.lost(said, why.get(name, "there is nothing like it here"))


def address(given: str, draft: Draft) -> str:
    """http://HOST:PORT of a server; theirs is by itself that of gRPC on this machine."""
    if not given:
        return LOCAL
    host, _, port = given.removeprefix("http://").removeprefix("grpc://").partition(":")
    if port in PORTS:
        draft.differs("theirs speaks gRPC on port 8001; here it is HTTP with binary tensors, on port 8000")
    return f"http://{host}:{PORTS.get(port, port or '8000')}"


def run_perf_client(old: Old, draft: Draft) -> list[Draft]:
    """triton/scripts/run_perf_client.sh: 7 positional arguments."""
    given = arguments("run_perf_client", old, draft)
    words = ["-m", given["name"], "-x", given["version"], "-b", given["batch"], "-l", given["latency"], "-d", "-p",
             "200000", "-v", "-z", "-i", "gRPC", "-u", f"{given['host']}:8001", "-c", given["concurrency"],
             "--max-threads", given["threads"]]  # fmt: skip
    return perf_client(replace(old, arguments=tuple(words)), draft)


LONG = {
    "m": "model_name", "x": "model_version", "b": "batch_size", "u": "url", "i": "protocol", "l": "latency_threshold",
    "p": "measurement_interval", "f": "csv", "c": "concurrency", "z": "zero_input", "v": "verbose",
}  # fmt: skip
PERF_LOST = {
    "latency_threshold": "every number of requests in flight is measured; theirs stops at this latency (ms)",
    "measurement_interval": "--seconds says how long a case is measured",
    "max_threads": "each request in flight has a thread of its own",
    "csv": "`bertkit compare RECORD --csv FILE` writes one",
    "zero_input": "token ids are random; a BERT's speed does not depend on them",
    "verbose": "progress is shown; -q silences it",
    "shared_memory": "tensors travel in the request",
    "shape": "--lengths says how long sequences are",
    "input_data": "--lengths says how long sequences are",
    "percentile": "p50, p90, p95 and p99 are all shown",
    "async": "each request in flight has a thread of its own",
    "streaming": "there is no stream",
}
PERF_READ = ("model_name", "model_version", "batch_size", "url", "protocol", "concurrency", "concurrency_range",
             "request_rate_range", "d")  # fmt: skip


def perf_client(old: Old, draft: Draft) -> list[Draft]:
    """perf_client and perf_analyzer, its later name."""
    flags = read_flags(old.arguments, LONG)
    if not flags.get("model_name"):
        raise NotUnderstood("the old command names no model", "add its -m")
    grpc = flags.get("protocol", "").lower() == "grpc"
    url = flags.get("url") or f"127.0.0.1:{'8001' if grpc else '8000'}"
    _bench_serve(draft, address(url, draft), flags["model_name"], flags.get("batch_size") or "1")
    if version := flags.get("model_version"):
        draft.options["--model-version"] = version
    if rates := flags.get("request_rate_range"):
        draft.options["--rate"] = ",".join(_range(rates, "--request-rate-range"))
    elif "d" in flags and flags.get("concurrency"):
        draft.options["--concurrency"] = ",".join(_doubled(whole(flags["concurrency"], "the number of requests")))
    else:
        draft.options["--concurrency"] = ",".join(
            _range(flags.get("concurrency_range") or flags.get("concurrency") or "1", "--concurrency-range")
        )
    note_lost(draft, flags, PERF_READ, PERF_LOST)
    return [draft]


def performance_on_triton(old: Old, draft: Draft) -> list[Draft]:
    """run_performance_on_triton.py of the PyTorch example; offline: a request at a time, online: several."""
    flags = read_flags(old.arguments)
    if not flags.get("model_name"):
        raise NotUnderstood("the old command names no model", "add its --model-name")
    batches = (flags.get("batch_sizes") or "1").replace(" ", ",")
    _bench_serve(draft, address(flags.get("server_url", ""), draft), flags["model_name"], batches)
    draft.options["--concurrency"] = (flags.get("concurrency") or "1").replace(" ", ",")
    note_lost(draft, flags, PERFORMANCE_READ, PERFORMANCE_LOST)
    if flags.get("evaluation_mode", "offline") == "offline":
        draft.differs("theirs hands tensors over in shared memory; here they travel in the request")
    return [draft]


PERFORMANCE_READ = "server_url model_name batch_sizes concurrency evaluation_mode".split()
PERFORMANCE_LOST = {
    "model_repository": "the server has loaded the model already",
    "input_data": "--lengths says how long sequences are",
    "input_shapes": "--lengths says how long sequences are",
    "number_of_triton_instances": "one server is measured",
    "number_of_model_instances": "config.pbtxt has instance_group",
    "batching_mode": "config.pbtxt has dynamic_batching",
    "performance_tool": "bertkit measures itself",
    "result_path": "`bertkit compare RECORD --csv FILE` writes one",
}


def _bench_serve(draft: Draft, url: str, model: str, batch: str) -> None:
    draft.place = replace(draft.place, processes=1)
    draft.command, draft.server = ("bench", "serve", url), url
    draft.options |= {"--model": model, "-b": batch, "--lengths": LENGTH}
    draft.differs("every sequence has 384 tokens, as theirs are padded; --lengths squad384 has SQuAD's real lengths")


def _doubled(most: int) -> list[str]:
    """1, 2, 4 … and the most."""
    found = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return [str(one) for one in (*found, most)]


def _range(text: str, flag: str) -> list[str]:
    """START:END:STEP as a list."""
    parts = [whole(part, flag) for part in text.split(":")]
    first, last, step = (*parts, parts[0], 1)[:3] if len(parts) < 3 else parts[:3]
    if len(parts) > 3 or last < first or (last - first) // step > 64:
        raise UserError(f"{flag} {text} is no range of at most 64 steps", "write START:END:STEP")
    return [str(one) for one in range(first, last + 1, step)]


PROGRAMS: Mapping[str, Callable[[Old, Draft], list[Draft]]] = {
    "run_perf_client.sh": run_perf_client,
    "perf_client": perf_client,
    "perf_analyzer": perf_client,
    "run_performance_on_triton.py": performance_on_triton,
}
