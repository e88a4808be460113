"""How long an update should take on N ranks: computing, plus summing the gradients. Held against runs: docs/scaling.md

    python benchmarks/scaling.py --compute 2.56 --megabytes 438 --local 2 --local-seconds 0.068 --gbit 1,10,100
    python benchmarks/scaling.py --compute 0.45 --megabytes 672 --local 8 --local-seconds 0.004 --gbit 1600 --ranks 8,64

Nothing overlaps in it. Legend: N ranks, R of them on each box, B = N / R boxes, G bytes of gradients.
    t(N) = C + L + ring(B),   ring(B) = 2 (B - 1) (G / (B W) + a)      (0 for one box)
C: seconds that one rank computes, beside R - 1 others on its box. L: seconds to sum G over the R ranks of a box.
W: bytes/s of a box's network, one way; its ranks share it, each summing a part of G with those like it on other boxes.
a: seconds of one message. Ring all-reduce: Patarasuk & Yuan 2009, doi:10.1016/j.jpdc.2008.09.002.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence


def ring(boxes: int, size: float, rate: float, latency: float) -> float:
    """Seconds to sum `size` bytes over `boxes`, each of which sends `rate` bytes a second."""
    return 2 * (boxes - 1) * (size / boxes / rate + latency)


def update(
    ranks: int, compute: float, size: float, local: int, local_seconds: float, rate: float, latency: float
) -> float:
    """Seconds of one update on so many ranks."""
    if ranks == 1:
        return compute
    boxes = max(1, ranks // local)
    within = local_seconds if min(ranks, local) > 1 else 0.0
    return compute + within + ring(boxes, size, rate, latency)


def table(asked: argparse.Namespace) -> list[str]:
    """A row for each number of ranks: seconds of an update, and the share of it that is computing, by network."""
    head = "ranks".rjust(6) + "".join(f"{gbit:g} Gbit/s".rjust(20) for gbit in asked.gbit)
    rows = [head]
    for ranks in asked.ranks:
        cells = []
        for gbit in asked.gbit:
            seconds = update(
                ranks, asked.compute, asked.megabytes * 1e6, asked.local, asked.local_seconds, gbit * 1e9 / 8,
                asked.latency,
            )  # fmt: skip
            cells.append(f"{seconds:9.3f} s  {asked.compute / seconds:6.1%}")
        rows.append(f"{ranks:6d}" + "".join(cell.rjust(20) for cell in cells))
    return rows


def main(words: Sequence[str] | None = None) -> None:
    def numbers(text: str) -> list[float]:
        return [float(word) for word in text.split(",")]

    parser = argparse.ArgumentParser(description="Predict an update's time on N ranks.")
    parser.add_argument("--compute", type=float, required=True, help="C, seconds")
    parser.add_argument("--megabytes", type=float, required=True, help="G")
    parser.add_argument("--local", type=int, default=1, help="R")
    parser.add_argument("--local-seconds", type=float, default=0.0, help="L")
    parser.add_argument("--gbit", type=numbers, default=[10.0, 100.0], help="W, in Gbit/s, with commas between")
    parser.add_argument("--latency", type=float, default=3e-5, help="a, seconds")
    parser.add_argument("--ranks", type=lambda t: [int(n) for n in t.split(",")], default=[1, 2, 8, 64, 512])
    print("\n".join(table(parser.parse_args(words))))


if __name__ == "__main__":
    main()
