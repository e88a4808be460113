"""The peer: Hugging Face's Trainer on the tables of `own_tables.py`, with bertkit's settings.

Run by hand, never in CI, in an environment of its own (`pip install -r benchmarks/requirements.txt`):

    python benchmarks/hf_own_data.py --model models/minilm --kind stars --tables tables --seeds 1 2 3

Models, labels and losses as in transformers' own run_classification, run_ner and run_swag. Prints one JSON line a seed.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score

KINDS = ("stars", "aspects", "likeness", "names", "next")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_conll(path: Path) -> list[tuple[list[str], list[str]]]:
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    rows = [[line.split("\t") for line in block.splitlines()] for block in blocks]
    return [([word for word, _ in row], [tag for _, tag in row]) for row in rows]


def tagged(words: list[str], tags: list[int], tokenizer: Any, length: int) -> dict[str, Any]:
    """As run_ner: the label at a word's first piece, -100 elsewhere."""
    found = tokenizer(words, is_split_into_words=True, truncation=True, max_length=length)
    before, labels = None, []
    for word in found.word_ids():
        labels.append(tags[word] if word is not None and word != before else -100)
        before = word
    return {**found, "labels": labels}


class Data:
    """Examples of both files, encoded, with what the model and the scores need."""

    def __init__(self, kind: str, tables: Path, tokenizer: Any, length: int) -> None:
        self.kind, self.tokenizer, self.length = kind, tokenizer, length
        self.labels: list[str] = []
        suffix = {"aspects": "jsonl", "names": "conll"}.get(kind, "csv")
        read = {"csv": read_csv, "conll": read_conll, "jsonl": lambda path: [*map(json.loads, path.open())]}[suffix]
        raw = {split: read(tables / f"{kind}-{split}.{suffix}") for split in ("train", "dev")}
        self.labels = self._labels(raw["train"])
        self.train, self.dev = ([self._encode(row) for row in raw[split]] for split in ("train", "dev"))

    def _labels(self, rows: Any) -> list[str]:
        if self.kind == "stars":
            return sorted({row["stars"] for row in rows})
        if self.kind == "aspects":
            return sorted({label for row in rows for label in row["labels"]})
        return sorted({tag for _, tags in rows for tag in tags}) if self.kind == "names" else []

    def _encode(self, row: Any) -> dict[str, Any]:
        cut = {"truncation": True, "max_length": self.length}
        if self.kind == "names":
            return tagged(row[0], [self.labels.index(tag) for tag in row[1]], self.tokenizer, self.length)
        if self.kind == "next":
            choices = [value for name, value in row.items() if name.startswith("ending")]
            return {**self.tokenizer([row["sent1"]] * len(choices), choices, **cut), "labels": int(row["label"])}
        if self.kind == "likeness":
            return {**self.tokenizer(row["sentence1"], row["sentence2"], **cut), "labels": float(row["score"])}
        if self.kind == "aspects":
            there = [float(label in row["labels"]) for label in self.labels]
            return {**self.tokenizer(row["text"], **cut), "labels": there}
        return {**self.tokenizer(row["review"], **cut), "labels": self.labels.index(row["stars"])}


def model_of(data: Data, model: str) -> Any:
    many = max(1, len(data.labels))
    if data.kind == "names":
        return transformers.AutoModelForTokenClassification.from_pretrained(model, num_labels=many)
    if data.kind == "next":
        return transformers.AutoModelForMultipleChoice.from_pretrained(model)
    problems = {"aspects": "multi_label_classification", "likeness": "regression"}
    problem = problems.get(data.kind, "single_label_classification")
    return transformers.AutoModelForSequenceClassification.from_pretrained(model, num_labels=many, problem_type=problem)


def collator_of(data: Data) -> Any:
    if data.kind == "names":
        return transformers.DataCollatorForTokenClassification(data.tokenizer)
    if data.kind == "next":
        return transformers.DataCollatorForMultipleChoice(tokenizer=data.tokenizer)
    return transformers.DataCollatorWithPadding(data.tokenizer)


def scores(data: Data, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    if data.kind == "likeness":
        return {
            "pearson": float(pearsonr(logits[:, 0], labels)[0]),
            "spearman": float(spearmanr(logits[:, 0], labels)[0]),
        }
    if data.kind == "aspects":
        found = logits > 0
        return {f"{name}_f1": float(f1_score(labels, found, average=name)) for name in ("micro", "macro")}
    if data.kind == "names":
        from seqeval.metrics import f1_score as entity_f1

        real, best = labels != -100, logits.argmax(-1)
        gold = [[data.labels[n] for n in row[keep]] for row, keep in zip(labels, real, strict=True)]
        said = [[data.labels[n] for n in row[keep]] for row, keep in zip(best, real, strict=True)]
        return {"entity_f1": float(entity_f1(gold, said))}
    chosen = logits.argmax(-1)
    found = {"accuracy": float(accuracy_score(labels, chosen))}
    return found | ({"macro_f1": float(f1_score(labels, chosen, average="macro"))} if data.kind == "stars" else {})


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    data = Data(options.kind, options.tables, tokenizer, options.length)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = transformers.TrainingArguments(
            scratch, seed=seed, per_device_train_batch_size=options.batch_size, per_device_eval_batch_size=64,
            learning_rate=options.rate, num_train_epochs=options.epochs, warmup_steps=0.1, weight_decay=0.01,
            max_grad_norm=1.0, bf16=True, use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
            logging_strategy="no",
        )  # fmt: skip
        trainer = transformers.Trainer(
            model=model_of(data, options.model),
            args=arguments,
            train_dataset=data.train,
            data_collator=collator_of(data),
        )
        trainer.train()
        output = trainer.predict(data.dev)
    found = scores(data, np.asarray(output.predictions), np.asarray(output.label_ids))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    return {"kind": options.kind, "seed": seed, **found, **versions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=KINDS, required=True)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rate", type=float, default=5e-5)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()
    for seed in options.seeds:
        print(json.dumps(run(options, seed)), flush=True)


if __name__ == "__main__":
    main()
