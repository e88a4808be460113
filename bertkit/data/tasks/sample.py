"""The built-in sample task: short reviews made by a seeded generator, in the format of SST-2.

A review is one or two clauses. A clause praises or blames something in plain words, or says the contrary through a
negation ("not dull"). Where two clauses meet in "but", the second one decides; where one is put off by "although",
the other does. So the label needs word order, not words alone: counting good and bad words is right on about two
reviews in three. The texts are ours; nothing of GLUE is in them.
"""

from __future__ import annotations

import random
from pathlib import Path

from bertkit.data.tasks.metrics import accuracy_and_f1
from bertkit.data.tasks.tabular import glue_table
from bertkit.data.tasks.task import Columns, Split
from bertkit.files.disk import write_text
from bertkit.model.vocabulary import SPECIAL

SEED = 2018
ROWS = {"train": 6000, "dev": 800, "test": 800}

THINGS = (
    "plot story film movie acting cast script score music camera editing dialogue ending opening humour pace "
    "direction scenery hero villain sequel romance mystery drama comedy"
).split()
GOOD = (
    "good great fine moving funny clever warm sharp bright tender fresh bold rich honest lively charming witty "
    "gripping graceful touching"
).split()
BAD = (
    "bad poor dull boring weak clumsy cold flat tired stale empty silly slow noisy shallow bland crude muddled "
    "tedious lifeless"
).split()
DEGREES = ("", "", "", "very", "rather", "quite", "truly", "really", "so")
NEGATIONS = ("not", "never", "hardly", "by no means", "anything but")
VERBS = ("is", "was", "feels", "seems")
NEGATED = 0.25  # share of clauses that say the contrary of a word
KINDS = (7, 5, 4, 4)  # weights: one clause, two joined by "and", by "but", by "although"
OPENERS = ("", "", "", "this time", "for once", "in the end", "as ever", "on the whole")


def write_sample(folder: Path) -> Path:
    """Write `sample/` with train.tsv, dev.tsv, test.tsv and vocab.txt into `folder`. The same bytes every time."""
    target = folder / SAMPLE.folder
    stream = random.Random(SEED)  # noqa: S311 - texts, not secrets
    seen: set[str] = set()
    for split, rows in ROWS.items():
        lines = ["sentence\tlabel"] if split != "test" else ["index\tsentence"]
        for number in range(rows):
            text, label = _fresh_review(stream, seen)
            lines.append(f"{text}\t{label}" if split != "test" else f"{number}\t{text}")
        write_text(target / f"{split}.tsv", "\n".join(lines) + "\n")
    write_text(target / SAMPLE.vocab, "\n".join(vocabulary()) + "\n")
    return target


def vocabulary() -> list[str]:
    """Special tokens, the generator's words, and single characters, so that any text has an encoding."""
    phrases = (*THINGS, *GOOD, *BAD, *DEGREES, *NEGATIONS, *VERBS, *OPENERS, "the but although and , .")
    words = sorted({word for phrase in phrases for word in phrase.split()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [str(digit) for digit in range(10)]
    pieces = [*SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters), *"!\"'()-:;?"]
    return list(dict.fromkeys(pieces))


def _fresh_review(stream: random.Random, seen: set[str]) -> tuple[str, int]:
    while True:
        text, label = _review(stream)
        if text not in seen:  # no review stands in two sets
            seen.add(text)
            return text, label


def _review(stream: random.Random) -> tuple[str, int]:
    label = stream.randrange(2)
    kind = stream.choices(range(4), KINDS)[0]
    opener = stream.choice(OPENERS)
    if kind == 0:
        text = _clause(stream, label)
    elif kind == 1:
        text = f"{_clause(stream, label)} and {_clause(stream, label)}"
    elif kind == 2:
        text = f"{_clause(stream, 1 - label)} , but {_clause(stream, label)}"
    else:
        text = f"although {_clause(stream, 1 - label)} , {_clause(stream, label)}"
    return " ".join(f"{opener} {text} .".split()), label


def _clause(stream: random.Random, good: int) -> str:
    negated = stream.random() < NEGATED
    word = stream.choice(GOOD if bool(good) != negated else BAD)
    before = stream.choice(NEGATIONS) if negated else stream.choice(DEGREES)
    return " ".join(f"the {stream.choice(THINGS)} {stream.choice(VERBS)} {before} {word}".split())


_COLUMNS = Columns("sentence", None, "label")
SAMPLE = glue_table(
    "sample",
    "built-in: short generated reviews, good or bad",
    "sample",
    ("0", "1"),
    {
        "train": (Split("train.tsv", _COLUMNS),),
        "dev": (Split("dev.tsv", _COLUMNS),),
        "test": (Split("test.tsv", Columns("sentence")),),
    },
    accuracy_and_f1,
    "accuracy",
    {"": "sample.tsv"},
    vocab="vocab.txt",
)
