"""Which few sizes hold batches of many with the least room left over.

Legend: N batches, V distinct amounts of them, K sizes.
"""

from __future__ import annotations

import numpy as np

DISTINCT = 256  # amounts that are told apart; more are rounded up to quantiles of themselves


def even_steps(most: int, count: int, grain: int) -> list[int]:
    """At most `count` ascending multiples of `grain`, evenly up to `most` rounded up."""
    return sorted({round_up(-(-most * number // count), grain) for number in range(1, count + 1)})


def best_steps(needed: np.ndarray, most: int, count: int, grain: int) -> list[int]:
    """At most `count` ascending multiples of `grain`, the last `most` rounded up, that hold the amounts `needed` (N,).

    Those with the least excess over all N, by dynamic programming; of equally good ones the fewest.
    """
    last = round_up(most, grain)
    held = np.minimum([round_up(int(amount), grain) for amount in needed], last)
    if len(np.unique(held)) > DISTINCT:
        levels = np.unique(np.quantile(held, np.linspace(0, 1, DISTINCT), method="higher"))
        held = levels[np.searchsorted(levels, held)]
    amounts, counts = np.unique(np.append(held, last), return_counts=True)  # (V,)
    counts[-1] -= 1
    return [int(amounts[place]) for place in _places(amounts, counts, count)]


def _places(amounts: np.ndarray, counts: np.ndarray, count: int) -> list[int]:
    """Of which amounts (V,) the steps are, the last among them; `counts` (V,): batches that need each."""
    below = np.concatenate([[0], np.cumsum(counts)])  # (V + 1,) batches that need less
    # between[i, j]: slots of the batches from amount i to j - 1 where they are computed at amount j - 1
    between = (below[None, :] - below[:, None]) * np.append(0, amounts)[None, :].astype(np.float64)
    between[np.tril_indices(len(below))] = np.inf
    costs, firsts = [between[0]], [np.zeros(len(below), np.int64)]
    while len(costs) < min(count, len(amounts)):
        through = costs[-1][:, None] + between
        firsts.append(through.argmin(0))
        costs.append(through.min(0))
    used = int(np.argmin([cost[-1] for cost in costs]))
    places, end = [], len(amounts)
    for first in reversed(firsts[: used + 1]):
        places.append(end - 1)
        end = int(first[end])
    return places[::-1]


def round_up(value: int, grain: int) -> int:
    """To a multiple of `grain`, at least one of it."""
    return max(1, -(-value // grain)) * grain
