"""The peer: Hugging Face's Trainer fine-tuned on the same GLUE files with the same hyperparameters.

Run by hand, never in CI, in an environment of its own (`pip install -r benchmarks/requirements.txt`):

    python benchmarks/hf_glue.py --model models/minilm --task mrpc --data-dir data/glue --seeds 1 2 3

Prints one JSON line a seed: the metrics that bertkit computes too, wall and CPU seconds. `--more-dev FILE` scores
another file in dev's form too. `--bertkit-order --dropout 0 --losses FILE`, from a folder with a trained head: then the
arithmetic alone can differ from `bertkit train` of that folder and seed, and FILE has the loss of each update.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from bertkit.data.sampler import Sampler

BATCH = 32

COLUMNS = {  # folder, header, first text, second text, label
    "mrpc": ("MRPC", True, 3, 4, 0),
    "sst2": ("SST-2", True, 0, None, 1),
    "cola": ("CoLA", False, 3, None, 1),
    "rte": ("RTE", True, 1, 2, -1),
    "stsb": ("STS-B", True, 7, 8, -1),
}


def read(task: str, path: Path, rows: int) -> list[dict[str, Any]]:
    _, header, first, second, label = COLUMNS[task]
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        table = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[int(header) :]
    names = {"entailment": 0, "not_entailment": 1}
    examples = []
    for row in table[: rows or None]:
        value: float | int = float(row[label]) if task == "stsb" else names.get(row[label]) or 0
        if task in ("mrpc", "sst2", "cola"):
            value = int(row[label])
        examples.append({"texts": (row[first], *([] if second is None else [row[second]])), "label": value})
    return examples


def encode(examples: list[dict[str, Any]], tokenizer: Any, length: int) -> list[dict[str, Any]]:
    pairs = zip(*(example["texts"] for example in examples), strict=True)
    encoded = tokenizer(*(list(side) for side in pairs), truncation=True, max_length=length)
    return [
        {"input_ids": ids, "token_type_ids": types, "attention_mask": mask, "labels": example["label"]}
        for ids, types, mask, example in zip(
            encoded["input_ids"], encoded["token_type_ids"], encoded["attention_mask"], examples, strict=True
        )
    ]


class BertkitOrder(torch.utils.data.Sampler[int]):
    """The examples of one epoch after another as `bertkit train` has them."""

    def __init__(self, examples: int, seed: int) -> None:
        self.sampler, self.epoch = Sampler(examples, BATCH, seed), 0

    def __len__(self) -> int:
        return self.sampler.examples

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(self.sampler.order(self.epoch - 1).tolist())


class Trainer(transformers.Trainer):
    """`order`: of the training examples; None: the Trainer's own."""

    order: BertkitOrder | None = None

    def _get_train_sampler(self, *words: Any, **named: Any) -> Any:
        return self.order or super()._get_train_sampler(*words, **named)


def metrics(task: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    if task == "stsb":
        values = logits[:, 0]
        return {
            "pearson": float(pearsonr(values, labels)[0]),
            "spearman": float(spearmanr(values, labels)[0]),
        }
    chosen = logits.argmax(-1)
    if task == "cola":
        return {
            "mcc": float(matthews_corrcoef(labels, chosen)),
            "accuracy": float(accuracy_score(labels, chosen)),
        }
    scores = {"accuracy": float(accuracy_score(labels, chosen))}
    return scores | ({"f1": float(f1_score(labels, chosen))} if task == "mrpc" else {})


def model_of(options: argparse.Namespace) -> Any:
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        options.model,
        num_labels=1 if options.task == "stsb" else 2,
        **({} if options.dropout is None else dict.fromkeys(rates, options.dropout)),
    )


def trainer_of(
    options: argparse.Namespace, seed: int, train: list[dict[str, Any]], tokenizer: Any, scratch: str
) -> Trainer:
    arguments = transformers.TrainingArguments(
        scratch, seed=seed, per_device_train_batch_size=BATCH, per_device_eval_batch_size=64,
        learning_rate=5e-5, num_train_epochs=options.epochs, warmup_steps=0.1, weight_decay=0.01,
        max_grad_norm=1.0, bf16=options.bf16, use_cpu=True, save_strategy="no", report_to="none",
        disable_tqdm=True, logging_strategy="steps" if options.losses else "no", logging_steps=1,
    )  # fmt: skip
    collator = transformers.DataCollatorWithPadding(tokenizer)
    trainer = Trainer(model=model_of(options), args=arguments, train_dataset=train, data_collator=collator)
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.order = BertkitOrder(len(train), seed) if options.bertkit_order else None
    return trainer


def run(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    transformers.set_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    folder = Path(options.data_dir) / COLUMNS[options.task][0]
    train = encode(read(options.task, folder / "train.tsv", options.train_rows), tokenizer, 128)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_of(options, seed, train, tokenizer, scratch)
        before, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
        trainer.train()
        seconds = time.perf_counter() - before
        cpu_seconds = resource.getrusage(resource.RUSAGE_SELF).ru_utime - cpu
        if options.losses:
            logged = [float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
            options.losses.write_text(json.dumps(logged))
        scores = []
        for path in (folder / "dev.tsv", *options.more_dev):
            output = trainer.predict(encode(read(options.task, path, 0), tokenizer, 128))
            scores.append(metrics(options.task, np.asarray(output.predictions), np.asarray(output.label_ids)))
    return {"task": options.task, "seed": seed, "bf16": options.bf16, **scores[0], "more_dev": scores[1:],
            "train_seconds": round(seconds, 1), "cpu_seconds": round(cpu_seconds, 1),
            "transformers": transformers.__version__, "torch": torch.__version__}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", choices=sorted(COLUMNS), required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--train-rows", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--more-dev", type=Path, nargs="+", default=[], metavar="FILE")
    parser.add_argument("--bertkit-order", action="store_true")
    parser.add_argument("--dropout", type=float)
    parser.add_argument("--losses", type=Path, metavar="FILE", help="of one seed")
    parser.add_argument("--fp32", dest="bf16", action="store_false")
    options = parser.parse_args()
    for seed in options.seeds:
        print(json.dumps(run(options, seed)), flush=True)


if __name__ == "__main__":
    main()
