"""Tables as users bring them, of each kind of task, made of public text: GLUE's files and a folder of plain text.

    python benchmarks/own_tables.py --glue data/glue --text data/corpus/wikipedia.txt -o tables

stars     SST-2's sentences with their labels, CSV
aspects   SST-2's sentences with any of: positive (SST-2's own label), negation, long, contrast (by their words),
          JSON lines
likeness  STS-B's pairs with their scores, CSV
names     sentences of templates with names of persons, places and companies, CoNLL; those of the dev file are not in
          the training file
next      a sentence of the text, the one that follows it, and three of elsewhere, as SWAG has it, CSV

Each has NAME-train and NAME-dev. Seeded: the same input gives the same files.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROWS = {"train": 1500, "dev": 500}
CHOICES = 4
TEMPLATES = (
    "{person} moved from {place} to {place} .", "{company} hired {person} in {place} last week .",
    "The office of {company} in {place} is closed .", "{person} and {person} met near {place} yesterday .",
    "Shares of {company} fell while {company} rose .", "{person} , who was born in {place} , leads {company} .",
    "Nobody at {company} answered the letter .", "It rained for three days in {place} .",
    "Yesterday {person} wrote to {person} about the trip .", "The weather was better than expected .",
)  # fmt: skip
SYLLABLES = "al an bar bel cor dan del el far gar hol in jor kan lar mar nor ol per quin ras sel tor ul ver wen yor zan"
ENDINGS = {
    "PER": ("a", "o", "e", "son"),
    "LOC": ("burg", "ville", "stad", "ford"),
    "ORG": ("ex", "tech", "corp", "works"),
}


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - to be repeated, not to be secret


def glue_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        lines = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [dict(zip(lines[0], line, strict=False)) for line in lines[1:]]


def stars(glue: Path, stream: random.Random) -> dict[str, list[dict[str, Any]]]:
    names = {"0": "negative", "1": "positive"}
    return {
        split: [
            {"review": row["sentence"], "stars": names[row["label"]]}
            for row in _some(glue_rows(glue / "SST-2" / f"{split}.tsv"), ROWS[split], stream)
        ]
        for split in ROWS
    }


def aspects(glue: Path, stream: random.Random) -> dict[str, list[dict[str, Any]]]:
    made = {}
    for split in ROWS:
        rows = []
        for row in _some(glue_rows(glue / "SST-2" / f"{split}.tsv"), ROWS[split], stream):
            words = row["sentence"].split()
            labels = ["positive"] if row["label"] == "1" else []
            labels += ["negation"] if {"not", "n't", "no", "never", "without"} & set(words) else []
            labels += ["long"] if len(words) > 15 else []
            labels += ["contrast"] if {"but", "though", "although", "yet", "despite"} & set(words) else []
            rows.append({"text": row["sentence"], "labels": labels})
        made[split] = rows
    return made


def likeness(glue: Path, stream: random.Random) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [
            {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "score": row["score"]}
            for row in _some(glue_rows(glue / "STS-B" / f"{split}.tsv"), ROWS[split], stream)
        ]
        for split in ROWS
    }


def names(stream: random.Random) -> dict[str, list[list[tuple[str, str]]]]:
    """Sentences of (token, tag)."""
    syllables = SYLLABLES.split()
    pools: dict[str, dict[str, list[str]]] = {split: {} for split in ROWS}
    for kind, endings in ENDINGS.items():
        every = sorted({(a + b + end).title() for a in syllables for b in syllables for end in endings if a != b})
        stream.shuffle(every)
        half = len(every) // 2
        pools["train"][kind], pools["dev"][kind] = every[:half], every[half:]
    kinds = {"{person}": "PER", "{place}": "LOC", "{company}": "ORG"}
    made = {}
    for split, count in ROWS.items():
        sentences = []
        for _ in range(count):
            sentence: list[tuple[str, str]] = []
            for word in stream.choice(TEMPLATES).split():
                if word not in kinds:
                    sentence.append((word, "O"))
                    continue
                pool = pools[split][kinds[word]]
                parts = [stream.choice(pool) for _ in range(stream.choice((1, 1, 2)))]
                sentence += [(part, f"{'I' if at else 'B'}-{kinds[word]}") for at, part in enumerate(parts)]
            sentences.append(sentence)
        made[split] = sentences
    return made


def following(text: Path, stream: random.Random) -> dict[str, list[dict[str, Any]]]:
    """The text's first part is for training, its last for the dev file."""
    lines = text.read_text(encoding="utf-8").splitlines()
    pairs = []
    for line in lines:
        found = [part.strip() for part in re.split(r"(?<=[.!?]) +", line) if 30 <= len(part.strip()) <= 180]
        pairs += list(itertools.pairwise(found))[:1]
    cut = len(pairs) * 3 // 4
    made = {}
    for split, some in (("train", pairs[:cut]), ("dev", pairs[cut:])):
        others = [second for _, second in some]
        rows = []
        for first, second in _some(some, ROWS[split], stream):
            choices = [second]
            while len(choices) < CHOICES:
                other = stream.choice(others)
                choices += [other] if other not in choices else []
            order = stream.sample(range(CHOICES), CHOICES)
            row: dict[str, Any] = {"sent1": first}
            row |= {f"ending{at}": choices[place] for at, place in enumerate(order)}
            rows.append(row | {"label": order.index(0)})
        made[split] = rows
    return made


def _some(rows: Sequence[Any], count: int, stream: random.Random) -> list[Any]:
    return stream.sample(list(rows), min(count, len(rows)))


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_conll(path: Path, sentences: Iterable[Sequence[tuple[str, str]]]) -> None:
    blocks = ("\n".join(f"{word}\t{tag}" for word, tag in sentence) for sentence in sentences)
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for name, make in (("stars", stars), ("likeness", likeness)):
        for split, rows in make(options.glue, seeded(options.seed)).items():
            write_csv(options.output / f"{name}-{split}.csv", rows)
    for split, rows in aspects(options.glue, seeded(options.seed)).items():
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (options.output / f"aspects-{split}.jsonl").write_text(lines, encoding="utf-8")
    for split, sentences in names(seeded(options.seed)).items():
        write_conll(options.output / f"names-{split}.conll", sentences)
    for split, rows in following(options.text, seeded(options.seed)).items():
        write_csv(options.output / f"next-{split}.csv", rows)


if __name__ == "__main__":
    main()
