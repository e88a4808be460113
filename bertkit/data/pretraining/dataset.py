"""Pre-training data of any format as numbered sequences, of which only the shards in use are decoded.

Legend: T tokens of a batch, B sequences of it, M masked positions, N sequences of the data.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from bertkit.data.pretraining.formats import parquet
from bertkit.data.pretraining.formats.decoded import Decoded, look
from bertkit.data.pretraining.formats.manifest import AGAIN, NAME, Manifest, read_manifest
from bertkit.data.pretraining.formats.rows import Rows, bare, join, offsets, slots, take
from bertkit.data.pretraining.formats.shards import Shard, find_shards
from bertkit.data.pretraining.masking import Masked, MaskingRule, MaskingVocabulary, keys_of, mask, maskable, pieces_of
from bertkit.data.pretraining.sampler import BinnedSampler, ShardRange
from bertkit.engine.interface import Batch
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary

Masking = Literal["auto", "static", "dynamic"]
WINDOW = 262_144  # sequences shuffled together; LDDL's loader has a buffer of 16,384
EDGE = 1 << 16  # bytes of a shard's start and end that its digest covers where there is no manifest


@dataclass(frozen=True)
class PretrainingData:
    """N sequences, numbered through the shards in their order. `sampler` serves data of any size."""

    shards: tuple[Shard, ...]
    dynamic: bool  # masked here, anew in each epoch
    rule: MaskingRule
    seed: int  # of dynamic masking
    pieces: MaskingVocabulary | None  # None: not known, and not needed where masking is static
    manifest: Manifest | None
    decoded: Decoded = field(repr=False, compare=False)
    epoch: int = 0  # for which `batch` masks

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def starts(self) -> np.ndarray:
        """The number of each shard's first sequence, and N."""
        return offsets(np.array([shard.sequences for shard in self.shards]))

    @property
    def longest(self) -> int:
        """Tokens of a sequence at the most."""
        return max(shard.longest for shard in self.shards)

    @property
    def most_masked(self) -> int:
        """Masked maximum per sequence."""
        if self.dynamic:
            return int(self.rule.counts(np.array([self.longest]))[0])
        if self.manifest:
            return self.manifest.most_masked
        return max(shard.most_masked or shard.longest for shard in self.shards)

    @property
    def bins(self) -> tuple[int, ...]:
        """The bins, -1 for data without."""
        return tuple(sorted({shard.file.bin for shard in self.shards}))

    @property
    def lengths(self) -> np.ndarray:
        """(N,) tokens of each sequence. Reads all data once; `lengths_of` reads only the shards it needs."""
        if self.shards[0].file.format == "parquet":
            return np.concatenate([parquet.lengths(shard.file) for shard in self.shards])
        return np.concatenate([self.decoded.get(number).lengths for number in range(len(self.shards))])

    def lengths_of(self, examples: np.ndarray) -> np.ndarray:
        """(B,) tokens of these sequences."""
        found = np.empty(len(examples), np.int64)
        for rows, which, places in self._by_shard(examples):
            found[places] = rows.lengths[which]
        return found

    def masked_counts(self, examples: np.ndarray) -> np.ndarray:
        """(B,) masked positions of these sequences in this epoch."""
        found = np.empty(len(examples), np.int64)
        for rows, which, places in self._by_shard(examples):
            found[places] = self._counts(rows, which, examples[places])
        return found

    def _counts(self, rows: Rows, which: np.ndarray, examples: np.ndarray) -> np.ndarray:
        if not self.dynamic or self.pieces is None:
            counts: np.ndarray = rows.masked_counts[which]
            return counts
        picked = bare(take(rows, which))
        if self.rule.whole_words:  # a word that is too long is passed over, so only masking itself can tell
            masked = self._mask(picked, examples)
            counts = np.diff(np.searchsorted(masked.positions, picked.cu_seqlens))
            return counts
        may = offsets(maskable(picked.input_ids, self.pieces))
        counts = np.minimum(self.rule.counts(picked.lengths), np.diff(may[picked.cu_seqlens]))
        return counts

    def at(self, epoch: int) -> PretrainingData:
        """The same data as it is masked in another epoch; decoded shards are shared."""
        return dataclasses.replace(self, epoch=epoch)

    def batch(self, examples: np.ndarray) -> Batch:
        """The ragged batch of these sequences, in this order; `example_ids` says which they are."""
        rows = self._gather(examples)
        if self.dynamic:
            masked = self._mask(bare(rows), examples)
            ids, positions, labels = masked.input_ids, masked.positions, masked.labels
        else:
            ids, labels = rows.input_ids, rows.masked_labels
            positions = np.repeat(rows.cu_seqlens[:-1], rows.masked_counts) + rows.positions
        types = np.zeros(len(ids), np.int32)
        types[slots(rows.cu_seqlens[:-1] + rows.second, rows.lengths - rows.second)] = 1
        return {
            "input_ids": ids.astype(np.int32),
            "token_type_ids": types,
            "cu_seqlens": rows.cu_seqlens.astype(np.int32),
            "example_ids": examples.astype(np.int64),
            "masked_positions": positions.astype(np.int64),
            "masked_labels": labels.astype(np.int64),
            "labels": rows.labels.astype(np.int64),
        }

    def sampler(self, batch_size: int, seed: int, window: int = WINDOW) -> BinnedSampler:
        """Batches within one bin, in an order that keeps about two windows decoded."""
        starts = self.starts[:-1]
        parts = [
            ShardRange(each.file.bin, int(start), each.sequences)
            for each, start in zip(self.shards, starts, strict=True)
        ]
        largest = {bin: max(part.sequences for part in parts if part.bin == bin) for bin in self.bins}
        window = -(-window // len(largest))
        self.decoded.keep = 2 * sum(window + sequences for sequences in largest.values())
        return BinnedSampler(tuple(parts), batch_size, seed, window)

    def digest(self) -> str:
        """SHA-256 that is the same for the same data on every machine.

        Over the shards' hashes where there is a manifest, else over their names, sizes, starts and ends.
        """
        total = hashlib.sha256()
        for shard in self.shards:
            known = self.manifest.shard(shard.file.path.name) if self.manifest else None
            total.update(f"{shard.file.path.name} {known.sha256 if known else _edges(shard.file.path)}\n".encode())
        if self.dynamic:
            total.update(f"{self.rule} {self.seed}".encode())
        return total.hexdigest()

    def _mask(self, rows: Rows, examples: np.ndarray) -> Masked:
        if self.pieces is None:
            raise ValueError("dynamic masking without a vocabulary")  # open_data does not let this happen
        keys = keys_of(self.seed, self.epoch, examples)
        return mask(rows.input_ids.astype(np.int64), rows.cu_seqlens, keys, self.rule, self.pieces)

    def _gather(self, examples: np.ndarray) -> Rows:
        """These sequences in this order."""
        parts = [(take(rows, which), places) for rows, which, places in self._by_shard(examples)]
        if len(parts) == 1:
            return parts[0][0]
        return take(join([rows for rows, _ in parts]), np.argsort(np.concatenate([places for _, places in parts])))

    def _by_shard(self, examples: np.ndarray) -> Iterator[tuple[Rows, np.ndarray, np.ndarray]]:
        """(a shard's rows, which of them, where these stand in `examples`), their order kept within a shard."""
        owner = np.searchsorted(self.starts, examples, side="right") - 1
        order = np.argsort(owner, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(owner[order])) + 1):
            number = int(owner[places[0]]) if len(places) else 0
            yield self.decoded.get(number), examples[places] - self.starts[number], places


def open_data(
    place: Path,
    vocabulary: Vocabulary | None = None,
    masking: Masking = "auto",
    rule: MaskingRule | None = None,
    seed: int = 0,
) -> PretrainingData:
    """The data in a folder, or of one shard. Looks at every shard; decodes none.

    `masking`: static as the shards were made, dynamic anew in each epoch (masks in the shards are taken off), auto:
    static where the shards have masks. `vocabulary`: needed for Parquet and for dynamic masking.
    Raises UserError where there are no shards, where they do not fit together, or where one lacks what it should have.
    """
    files = find_shards(place)
    shards = tuple(map(look, files))
    first = shards[0]
    for shard in shards:
        if shard.static != first.static:
            raise UserError(
                f"{place}: of {first.file.path.name} and {shard.file.path.name} only one is masked",
                "give data with static and dynamic masking folders of their own",
            )
        if shard.sequences and first.sequences and first.file.format != "parquet" and shard.longest != first.longest:
            raise UserError(
                f"{place}: {first.file.path.name} has sequences of {first.longest}, "
                f"{shard.file.path.name} of {shard.longest}",
                "give each length a folder of its own",
            )
    if not any(shard.sequences for shard in shards):
        raise UserError(f"{place}: its shards hold no sequences", "make the data again")
    if masking == "static" and not first.static:
        raise UserError(f"{place}: was made without masks", "use dynamic masking, or make it with --masking static")
    dynamic = masking == "dynamic" or not first.static
    if not (vocabulary and vocabulary.has_words) and (dynamic or first.file.format == "parquet"):
        raise UserError(
            f"{place}: its {first.file.format} data needs the vocabulary it was made with",
            "name its vocab.txt: --set model.vocab=FILE, or --vocab FILE to inspect the data",
        )
    manifest = read_manifest(place, files)
    shards = tuple(_as_said(shard, manifest) for shard in shards) if manifest else shards
    made_with = manifest.settings.get("vocabulary") if manifest else None
    if vocabulary and vocabulary.has_words and made_with and made_with != vocabulary.digest:
        raise UserError(
            f"{place}: was made with another vocabulary than {vocabulary.path}",
            "give the vocabulary that the data was made with: --set model.vocab=FILE, or --vocab to inspect the data",
        )
    pieces = pieces_of(vocabulary) if vocabulary else None
    decoded = Decoded(shards, vocabulary, 2 * WINDOW)
    return PretrainingData(shards, dynamic, rule or MaskingRule(), seed, pieces, manifest, decoded)


def _as_said(shard: Shard, manifest: Manifest) -> Shard:
    """The shard with what its manifest tells of it. Raises UserError where the two differ."""
    entry = manifest.shard(shard.file.path.name)
    if entry and entry.sequences != shard.sequences:
        said = f"has {shard.sequences:,} sequences, {NAME} says {entry.sequences:,}"
        raise UserError(f"{shard.file.path}: {said}", AGAIN)
    return dataclasses.replace(shard, most_masked=max(1, manifest.most_masked)) if shard.static else shard


def _edges(path: Path) -> str:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(EDGE)
        file.seek(max(0, size - EDGE))
        return f"{size} {hashlib.sha256(start + file.read()).hexdigest()}"
