"""How long the ranks take to sum a buffer, by each library. By hand, on a machine that does nothing else.

    mpirun -n 2 --map-by socket --bind-to socket python benchmarks/all_reduce.py --step --json sums.json
    torchrun --nproc-per-node 2 benchmarks/all_reduce.py --collectives gloo

Every rank runs this. A sum's time is the slowest rank's, from the moment when all have come to it; the buffer is filled
before. With --step also the exchange of an update: gradients of a whole model into the buffer, sum, and back, as the
torch engine does it after the last backward pass; no backward pass is timed, so overlap cannot show here.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertkit.distributed.collectives import Joined, join
from bertkit.distributed.host_sums import from_bf16, to_bf16
from bertkit.distributed.world import World, from_env
from bertkit.engine.interface import Exchange
from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_text
from bertkit.model.config import ARCHITECTURES, Head
from bertkit.model.parameters import shapes
from bertkit_torch.buckets import HostSum
from bertkit_torch.sums import SHARED, adder

LIBRARIES = ("gloo", "mpi", "window")
KINDS = ("fp32", "bf16")


def timed(ranks: Joined, prepare: Callable[[], object], work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls of `work`, the slowest rank's, after two that are not counted."""
    own = []
    for _ in range(repeats + 2):
        prepare()
        ranks.gather(np.zeros(1))  # all are here
        start = time.perf_counter()
        work()
        own.append(time.perf_counter() - start)
    everyones = ranks.gather(np.array([own[2:]]))
    return [float(seconds) for seconds in everyones.max(axis=0)]


def sums(ranks: Joined, world: World, count: int, kind: Any, repeats: int) -> tuple[int, list[float]]:
    """(bytes, seconds) of sums of `count` numbers; the result of the last is checked."""
    flat = ranks.flat(count, kind, adder(SHARED))
    ones = np.ones(count, np.float32)
    mine = ones if kind == "fp32" else to_bf16(ones)

    def fill() -> None:
        flat.array[:] = mine

    seconds = timed(ranks, fill, lambda: flat.sum_(0, count), repeats)
    found = flat.array if kind == "fp32" else from_bf16(flat.array)
    if not np.all(found == world.size):
        raise RuntimeError(f"{ranks.name}: a sum of ones over {world.size} ranks is wrong")
    return flat.array.nbytes, seconds


def exchanges(ranks: Joined, world: World, model: str, kind: Any, repeats: int) -> tuple[int, list[float]]:
    """(bytes, seconds) of the exchange of all gradients of a model."""
    torch.manual_seed(world.rank)
    wanted = shapes(ARCHITECTURES[model], Head("classification", 2))
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in wanted.values()]
    host = HostSum(ranks, world, parameters, Exchange(gradients=kind))
    gradients = [torch.randn(parameter.shape) for parameter in parameters]
    loss = torch.zeros(())

    def fill() -> None:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()

    seconds = timed(ranks, fill, lambda: host.finish(loss), repeats)
    host.close()
    return host.flat.array.nbytes, seconds


def row(library: str, what: str, kind: str, size: int, seconds: Sequence[float]) -> dict[str, Any]:
    """`gigabytes_per_second` is the buffer's size over the median time, whatever the library moves."""
    median = statistics.median(seconds)
    return {
        "collectives": library, "what": what, "kind": kind, "bytes": size, "seconds": list(seconds),
        "median": median, "gigabytes_per_second": size / median / 1e9,
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = ["collectives  what   kind        MB   median ms (min..max)         GB/s"]
    for one in rows:
        low, high = min(one["seconds"]) * 1e3, max(one["seconds"]) * 1e3
        lines.append(
            f"{one['collectives']:<12} {one['what']:<6} {one['kind']:<6} {one['bytes'] / 1e6:>7.1f}   "
            f"{one['median'] * 1e3:>8.2f} ({low:.2f}..{high:.2f}){'':<6} {one['gigabytes_per_second']:>6.2f}"
        )
    return "\n".join(lines)


def measure(world: World, library: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    ranks = join(world, library)
    rows = []
    for kind in KINDS:
        count = int(options.megabytes * 1e6) // 4  # as many numbers of either kind
        rows.append(row(ranks.name, "sum", kind, *sums(ranks, world, count, kind, options.repeats)))
        if options.step:
            rows.append(row(ranks.name, "step", kind, *exchanges(ranks, world, options.model, kind, options.repeats)))
    ranks.close()
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--collectives", nargs="+", choices=LIBRARIES, default=LIBRARIES, help="which, in this order")
    parser.add_argument("--megabytes", type=float, default=100.0, help="of the fp32 buffer; bf16 has half")
    parser.add_argument("--repeats", type=int, default=20, help="counted sums of each kind")
    parser.add_argument("--step", action="store_true", help="time the exchange of a model's gradients too")
    parser.add_argument("--model", choices=sorted(ARCHITECTURES), default="base", help="whose gradients")
    parser.add_argument("--threads", type=int, default=0, help="compute threads of a rank; 0: as torch takes them")
    parser.add_argument("--json", type=Path, help="a file for every single time")
    return parser.parse_args()


def main() -> None:
    options, world = parse(), from_env()
    if world.size == 1:
        raise UserError("one process has nobody to sum with", "start it through mpirun, torchrun or srun")
    if options.threads:
        torch.set_num_threads(options.threads)
    rows: list[dict[str, Any]] = []
    for library in options.collectives:
        rows += measure(world, library, options)
    if world.is_first:
        print(table(rows))
        if options.json:
            setting = {"processes": world.size, "launcher": world.launcher, "threads": torch.get_num_threads()}
            write_text(options.json, to_json({**setting, "torch": torch.__version__, "rows": rows}) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"bertkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
