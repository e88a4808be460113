"""GLUE as one table: a line says a task's files, columns, labels and metrics.

Source: Wang et al. 2018, arXiv:1804.07461, and the published TSV files.
"""

from __future__ import annotations

from bertkit.data.tasks.metrics import accuracy, accuracy_and_f1, correlations, matthews
from bertkit.data.tasks.tabular import Splits, glue_table
from bertkit.data.tasks.task import Columns, Split, Task

ENTAILMENT = ("entailment", "not_entailment")
MNLI_LABELS = ("contradiction", "entailment", "neutral")


def _splits(columns: Columns, test: Columns | None = None) -> Splits:
    return {
        "train": (Split("train.tsv", columns),),
        "dev": (Split("dev.tsv", columns),),
        "test": (Split("test.tsv", test or columns),),
    }


def _mnli(split: str) -> tuple[Split, ...]:
    columns = Columns("sentence1", "sentence2", "gold_label")
    return (Split(f"{split}_matched.tsv", columns), Split(f"{split}_mismatched.tsv", columns, "mm"))


GLUE: tuple[Task, ...] = (
    glue_table(
        "cola", "linguistic acceptability", "CoLA", ("0", "1"),
        _splits(Columns(3, None, 1, header=False, columns=4), Columns("sentence")),
        matthews, "mcc", {"": "CoLA.tsv"}, other_labels=("unacceptable", "acceptable"),
    ),
    glue_table(
        "sst2", "sentiment of film reviews", "SST-2", ("0", "1"),
        _splits(Columns("sentence", None, "label")),
        accuracy, "accuracy", {"": "SST-2.tsv"}, other_labels=("negative", "positive"),
    ),
    glue_table(
        "mrpc", "paraphrases in news", "MRPC", ("0", "1"),
        _splits(Columns("#1 String", "#2 String", "Quality")),
        accuracy_and_f1, "f1", {"": "MRPC.tsv"},
        raw_files=("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
        other_labels=("not_equivalent", "equivalent"),
    ),
    glue_table(
        "stsb", "similarity of sentences, 0 to 5", "STS-B", (),
        _splits(Columns("sentence1", "sentence2", "score")),
        correlations, "pearson", {"": "STS-B.tsv"},
    ),
    glue_table(
        "qqp", "paraphrases among questions", "QQP", ("0", "1"),
        _splits(Columns("question1", "question2", "is_duplicate")),
        accuracy_and_f1, "f1", {"": "QQP.tsv"}, broken_rows=3,
        other_labels=("not_duplicate", "duplicate"),
    ),
    glue_table(
        "mnli", "entailment across genres", "MNLI", MNLI_LABELS,
        {
            "train": (Split("train.tsv", Columns("sentence1", "sentence2", "gold_label")),),
            "dev": _mnli("dev"),
            "test": _mnli("test"),
        },
        accuracy, "accuracy", {"": "MNLI-m.tsv", "mm": "MNLI-mm.tsv"},
    ),
    glue_table(
        "qnli", "does the sentence answer the question", "QNLI", ENTAILMENT,
        _splits(Columns("question", "sentence", "label")),
        accuracy, "accuracy", {"": "QNLI.tsv"},
    ),
    glue_table(
        "rte", "entailment", "RTE", ENTAILMENT,
        _splits(Columns("sentence1", "sentence2", "label")),
        accuracy, "accuracy", {"": "RTE.tsv"},
    ),
    glue_table(
        "wnli", "what a pronoun refers to", "WNLI", ("0", "1"),
        _splits(Columns("sentence1", "sentence2", "label")),
        accuracy, "accuracy", {"": "WNLI.tsv"}, other_labels=("not_entailment", "entailment"),
    ),
    glue_table(
        "ax", "diagnostic set for an MNLI model", "AX", MNLI_LABELS,
        {"test": (Split("diagnostic.tsv", Columns("sentence1", "sentence2")),)},
        accuracy, "accuracy", {"": "AX.tsv"}, parts_of="mnli",
    ),
)  # fmt: skip
