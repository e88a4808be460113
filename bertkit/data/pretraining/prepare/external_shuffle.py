"""Sequences on their way from the blocks that made them to the shards: a shuffle of any size on disk.

Each block's sequences are written in the order of (bin, a random group). Read group by group over all blocks, a bin's
sequences are in a random order but for the order within a group, and that the shard shuffles. The shards then cut this
order into equal parts, so that no two differ by more than one sequence in any bin.

Legend: G groups, N sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.pretraining.formats.checked import reading
from bertkit.data.pretraining.formats.rows import Rows, join, offsets, take
from bertkit.data.pretraining.prepare.work import START_ANEW
from bertkit.files.disk import write_arrays

NAMES: dict[str, type[np.generic]] = {  # and the least that their numbers need
    "input_ids": np.uint16, "second": np.int32, "labels": np.int8, "positions": np.int32, "masked_labels": np.uint16,
}  # fmt: skip


def bin_of(lengths: np.ndarray, bin_size: int, bins: int) -> np.ndarray:
    """(N,) LDDL's bins: b holds lengths over b * bin_size, up to (b + 1) * bin_size; the last all that is longer."""
    found: np.ndarray = ((lengths - 1) // bin_size).clip(max=bins - 1) if bin_size else np.zeros_like(lengths)
    return found


def write_spill(path: Path, rows: Rows, bin_size: int, bins: int, groups: int, seed: tuple[int, ...]) -> str:
    """One block's sequences, sorted, with the starts of all bins' groups; returns the file's SHA-256."""
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
    group = bin_of(rows.lengths, bin_size, bins) * groups + stream.integers(groups, size=len(rows))
    rows = take(rows, np.argsort(group, kind="stable"))
    arrays = {name: getattr(rows, name) for name in NAMES}
    arrays |= {"cu_seqlens": rows.cu_seqlens, "cu_masked": rows.cu_masked}
    arrays["cu_groups"] = offsets(np.bincount(group, minlength=bins * groups))
    return write_arrays(path, arrays, {})


def group_sizes(paths: Sequence[Path], bins: int) -> np.ndarray:
    """(bins, G) sequences of each group over all blocks."""
    total = np.zeros(0, np.int64)
    for path in paths:
        with _opened(path) as file:
            counts = np.diff(file.get_slice("cu_groups")[:])
        total = total + counts if len(total) else counts
    return total.reshape(bins, -1)


def gather(paths: Sequence[Path], sizes: np.ndarray, shard: int, shards: int) -> list[Rows]:
    """A shard's sequences of each bin. `sizes` (bins, G) as `group_sizes` has them."""
    wanted = [_wanted(mine, shard, shards) for mine in sizes]
    parts: list[list[Rows]] = [[] for _ in sizes]
    for path in paths:
        with _opened(path) as file:
            cu_groups = file.get_slice("cu_groups")
            for bin, groups in enumerate(wanted):
                for number, (low, high) in groups.items():
                    place = bin * sizes.shape[1] + number
                    start, stop = map(int, cu_groups[place : place + 2])
                    begin, end = max(low, 0), min(high, stop - start)
                    if begin < end:
                        parts[bin].append(_read(file, start + begin, start + end))
                    groups[number] = (low - (stop - start), high - (stop - start))
    with _opened(paths[0]) as file:
        nothing = _read(file, 0, 0)
    return [join([nothing, *found]) for found in parts]


def _wanted(sizes: np.ndarray, shard: int, shards: int) -> dict[int, tuple[int, int]]:
    """group -> which of its sequences, counted through all blocks, are the shard's."""
    ends = np.cumsum(sizes)
    low, high = (int(ends[-1]) * number // shards for number in (shard, shard + 1))
    first, last = np.searchsorted(ends, [low, high - 1], side="right")
    starts = ends - sizes
    groups = range(int(first), int(last) + 1) if low < high else range(0)
    return {group: (low - int(starts[group]), high - int(starts[group])) for group in groups}


def _opened(path: Path) -> Any:
    from safetensors import safe_open

    with reading(path, START_ANEW):
        return safe_open(path, "numpy")  # reads what is asked for, not the file


def _read(file: Any, start: int, stop: int) -> Rows:
    def part(name: str, first: int, last: int) -> np.ndarray:
        if first == last:  # safetensors takes no empty slice
            return np.empty(0, NAMES[name])
        array: np.ndarray = file.get_slice(name)[first:last]
        return array

    seqlens, masked = part("cu_seqlens", start, stop + 1), part("cu_masked", start, stop + 1)
    tokens, masks = (int(seqlens[0]), int(seqlens[-1])), (int(masked[0]), int(masked[-1]))
    return Rows(
        part("input_ids", *tokens),
        seqlens - seqlens[0],
        part("second", start, stop),
        part("labels", start, stop),
        part("positions", *masks),
        part("masked_labels", *masks),
        masked - masked[0],
    )
