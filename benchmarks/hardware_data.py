"""Data for `hardware_trials.py`, made by a seed: words of no language, in texts as long as real ones.

Legend: N sequences.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from bertkit.data.lengths import find_distribution, lengths, masked_counts
from bertkit.data.pretraining.formats.tf_example import encode_varints, example, framed

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CLS, SEP, MASK = 2, 3, 4
PIECES = 30_522  # as many as BERT's own vocabulary has, so that the decoder is as large
SEED = 1
INTEGERS = 3  # the kind of a feature


def word(piece: int) -> str:
    """A word that is one piece."""
    return f"w{piece:05d}"


def write_vocabulary(folder: Path) -> Path:
    path = folder / "vocab.txt"
    path.write_text("\n".join([*SPECIAL, *map(word, range(len(SPECIAL), PIECES))]) + "\n", encoding="utf-8")
    return path


def text(stream: np.random.Generator, words: int) -> str:
    return " ".join(map(word, stream.integers(len(SPECIAL), PIECES, words)))


def write_texts(path: Path, found: np.ndarray) -> Path:
    """A table of texts that make sequences of these lengths (N,), with labels 0 and 1."""
    stream = np.random.default_rng(SEED)
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number, tokens in enumerate(found):
            table.writerow([text(stream, max(1, int(tokens) - 2)), number % 2])  # [CLS] and [SEP] are two
    return path


def write_squad(folder: Path, count: int) -> Path:
    """SQuAD 1.1's files, with as many questions; each window is as long as SQuAD's."""
    (folder / "squad").mkdir(parents=True, exist_ok=True)
    for name, questions, seed in (("train", count, SEED), ("dev", max(2, count // 16), SEED + 1)):
        stream = np.random.default_rng(seed)
        asked = 12
        paragraphs = []
        for number, tokens in enumerate(lengths("squad384", questions, seed)):
            words = text(stream, max(8, int(tokens) - asked - 3)).split()
            place = int(stream.integers(0, len(words) - 4))
            start = len(" ".join(words[:place])) + (place > 0)
            answer = {"text": " ".join(words[place : place + 3]), "answer_start": start}
            question = {"id": f"{name}{number}", "question": text(stream, asked), "answers": [answer]}
            paragraphs.append({"context": " ".join(words), "qas": [question]})
        made = {"version": "1.1", "data": [{"title": "made", "paragraphs": paragraphs}]}
        (folder / "squad" / f"{name}-v1.1.json").write_text(json.dumps(made), encoding="utf-8")
    return folder


def write_shard(folder: Path, kind: str, count: int, longest: int) -> Path:
    """One TFRecord shard of pre-training sequences with the lengths of `kind`, and one of a few to score on."""
    for place, sequences, seed in ((folder, count, SEED), (folder / "eval", 8, SEED + 1)):
        place.mkdir(parents=True, exist_ok=True)
        stream = np.random.default_rng(seed)
        most = find_distribution(kind).most_masked
        found = lengths(kind, sequences, seed, longest)
        with (place / "made.tfrecord").open("wb") as file:
            for tokens, masked in zip(found, masked_counts(found, most), strict=True):
                file.write(framed(_record(stream, int(tokens), int(masked), longest, most)))
    return folder


def _record(stream: np.random.Generator, tokens: int, masked: int, width: int, most: int) -> bytes:
    """A sequence as google-research/bert's create_pretraining_data.py writes it."""
    ids, types, mask = (np.zeros(width, np.int64) for _ in range(3))
    middle = tokens // 2
    ids[:tokens] = stream.integers(len(SPECIAL), PIECES, tokens)
    ids[0], ids[middle], ids[tokens - 1] = CLS, SEP, SEP
    types[middle + 1 : tokens], mask[:tokens] = 1, 1
    places = np.setdiff1d(np.arange(1, tokens - 1), [middle])
    chosen = np.sort(stream.choice(places, min(masked, len(places)), replace=False))
    positions, labels = np.zeros(most, np.int64), np.zeros(most, np.int64)
    positions[: len(chosen)], labels[: len(chosen)] = chosen, ids[chosen]
    ids[chosen] = MASK
    arrays = {
        "input_ids": ids, "input_mask": mask, "segment_ids": types, "masked_lm_positions": positions,
        "masked_lm_ids": labels, "next_sentence_labels": stream.integers(0, 2, 1),
    }  # fmt: skip
    return example({name: (INTEGERS, encode_varints(array)[0].tobytes()) for name, array in arrays.items()})
