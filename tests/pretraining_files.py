"""Small pre-training data for tests: known sequences, and shards of them written as other programs write them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bertkit.data.pretraining.formats.tf_example import encode_varints, example, framed

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = tuple(f"word{number}" for number in range(60))
PIECES = (*SPECIAL, *WORDS, *(f"##{chr(97 + number)}" for number in range(20)), ".", ",")
WIDTH, MOST = 32, 6
ROW, IN_ROW = 70, 3  # places and sequences of a row that packs several


@dataclass(frozen=True)
class Known:
    """One sequence as a model is to see it."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    random: bool
    masks: tuple[tuple[int, int], ...]  # (place in the sequence, what stood there)

    @property
    def ids(self) -> list[int]:
        return [CLS, *self.first, SEP, *self.second, SEP]

    @property
    def types(self) -> list[int]:
        return [0] * (len(self.first) + 2) + [1] * (len(self.second) + 1)


def known_sequences(count: int, seed: int = 0) -> list[Known]:
    stream = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        sizes = stream.integers(1, (WIDTH - 3) // 2, 2)
        first, second = (tuple(map(int, stream.integers(5, len(PIECES), size))) for size in sizes)
        one = Known(first, second, bool(stream.integers(2)), ())
        places = np.flatnonzero(np.array(one.ids) > MASK)
        chosen = sorted(stream.choice(places, min(len(places), int(stream.integers(1, MOST + 1))), replace=False))
        made.append(replace(one, masks=tuple((int(at), int(stream.integers(5, len(PIECES)))) for at in chosen)))
    return made


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return path


def padded(known: Sequence[Known], width: int = WIDTH, ignored: int = 0) -> dict[str, np.ndarray]:
    """The arrays of an HDF5 shard; `ignored` pads masked_lm_ids."""
    rows = len(known)
    made = {name: np.zeros((rows, width), np.int32) for name in ("input_ids", "input_mask", "segment_ids")}
    made |= {
        "masked_lm_positions": np.zeros((rows, MOST), np.int32),
        "masked_lm_ids": np.full((rows, MOST), ignored, np.int32),
        "next_sentence_labels": np.array([one.random for one in known], np.int8),
    }
    for row, one in enumerate(known):
        length = len(one.ids)
        made["input_ids"][row, :length] = one.ids
        made["input_mask"][row, :length] = 1
        made["segment_ids"][row, :length] = one.types
        for number, (place, label) in enumerate(one.masks):
            made["masked_lm_positions"][row, number] = place
            made["masked_lm_ids"][row, number] = label
    return made


def write_hdf5(path: Path, known: Sequence[Known], ignored: int = 0, width: int = WIDTH, **options: object) -> None:
    with h5py.File(path, "w") as file:
        for name, array in padded(known, width, ignored).items():
            narrow = array.astype(np.int8) if name in ("input_mask", "segment_ids") else array
            file.create_dataset(name, data=narrow, **options)


def packed(known: Sequence[Known]) -> dict[str, np.ndarray]:
    """The arrays of rows that hold several sequences each, in their order, as Habana's packing scripts write them."""
    rows: list[list[Known]] = [[]]
    for one in known:
        if len(rows[-1]) == IN_ROW or sum(len(each.ids) for each in (*rows[-1], one)) > ROW:
            rows.append([])
        rows[-1].append(one)
    widths = dict.fromkeys(("input_ids", "input_mask", "segment_ids", "positions"), ROW)
    widths |= dict.fromkeys(("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"), MOST * IN_ROW)
    widths |= {f"next_sentence_{name}": IN_ROW for name in ("positions", "labels", "weights")}
    made = {name: np.zeros((len(rows), width), np.int32) for name, width in widths.items()}
    for row, members in enumerate(rows):
        start = masks = 0
        for number, one in enumerate(members, start=1):
            along = slice(start, start + len(one.ids))
            made["input_ids"][row, along] = one.ids
            made["input_mask"][row, along] = number
            made["segment_ids"][row, along] = one.types
            made["positions"][row, along] = np.arange(len(one.ids))
            for place, label in one.masks:
                made["masked_lm_positions"][row, masks] = start + place
                made["masked_lm_ids"][row, masks] = label
                made["masked_lm_weights"][row, masks] = number
                masks += 1
            for name, value in (("positions", start), ("labels", one.random), ("weights", 1)):
                made[f"next_sentence_{name}"][row, number - 1] = value
            start += len(one.ids)
    return made


def write_packed_hdf5(path: Path, known: Sequence[Known]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in packed(known).items():
            if name != "masked_lm_weights":
                narrow = array.astype(np.int8) if name in ("segment_ids", "next_sentence_labels") else array
                file.create_dataset(name, data=narrow, compression="gzip")


def write_packed_tfrecord(path: Path, known: Sequence[Known], cut: tuple[str, int] | None = None) -> None:
    """`cut`: a feature, and how many of its values stay; 0: it is left out."""
    arrays = packed(known)
    if cut:
        arrays[cut[0]] = arrays[cut[0]][:, : cut[1]]
    with path.open("wb") as file:
        for row in range(len(arrays["input_ids"])):
            features = {
                name: (2, array[row].astype("<f4").tobytes())
                if name.endswith("weights")
                else (3, encode_varints(array[row])[0].tobytes())
                for name, array in arrays.items()
                if array.shape[1]
            }
            file.write(framed(example(features)))


def write_dense_hdf5(path: Path, known: Sequence[Known], ignored: int) -> None:
    """With one label for each place, as some exports have it."""
    arrays = padded(known)
    positions, masked = arrays.pop("masked_lm_positions"), arrays.pop("masked_lm_ids")
    dense = np.full((len(known), WIDTH), ignored, np.int64)
    rows = np.repeat(np.arange(len(known)), MOST).reshape(positions.shape)
    dense[rows[positions > 0], positions[positions > 0]] = masked[positions > 0]
    with h5py.File(path, "w") as file:
        for name, array in (arrays | {"labels": dense}).items():
            file.create_dataset(name, data=array)


def write_tfrecord(path: Path, known: Sequence[Known], weights: bool = True, width: int = WIDTH) -> None:
    arrays = padded(known, width)
    with path.open("wb") as file:
        for row in range(len(known)):
            packed = {
                name: (3, encode_varints(np.atleast_1d(array[row]))[0].tobytes()) for name, array in arrays.items()
            }
            if weights:
                packed["masked_lm_weights"] = (2, (arrays["masked_lm_positions"][row] > 0).astype("<f4").tobytes())
            file.write(framed(example(packed)))


def write_parquet(path: Path, known: Sequence[Known], static: bool = True, bin: int | None = None) -> None:
    """As LDDL does; where masking is dynamic the masks are not applied."""
    columns: dict[str, list[object]] = {name: [] for name in ("A", "B", "is_random_next", "num_tokens")}
    columns |= {"masked_lm_positions": [], "masked_lm_labels": []} if static else {}
    for one in known:
        columns["A"].append(" ".join(PIECES[id] for id in one.first))
        columns["B"].append(" ".join(PIECES[id] for id in one.second))
        columns["is_random_next"].append(one.random)
        columns["num_tokens"].append(len(one.ids))
        if static:
            memory = io.BytesIO()
            np.save(memory, np.array([place for place, _ in one.masks], np.uint16))
            columns["masked_lm_positions"].append(memory.getvalue())
            columns["masked_lm_labels"].append(" ".join(PIECES[label] for _, label in one.masks))
    types = {"A": pa.string(), "B": pa.string(), "is_random_next": pa.bool_(), "num_tokens": pa.uint16()}
    types |= {"masked_lm_positions": pa.binary(), "masked_lm_labels": pa.string()} if static else {}
    if bin is not None:
        columns["bin_id"], types["bin_id"] = [bin] * len(known), pa.int64()
    pq.write_table(pa.table(columns, pa.schema(types.items())), path)
