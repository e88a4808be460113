"""The peer: Hugging Face's Trainer fine-tuned on SQuAD v1.1 files, scored by the official measure.

Run by hand, never in CI, in an environment of its own (`pip install -r benchmarks/requirements.txt`):

    python benchmarks/hf_squad.py --model models/minilm --train train-v1.1.json --dev dev-v1.1.json --out runs/hf

Features as in transformers' run_qa: a window without the answer points to [CLS] and stays in training. One difference
to Google's definition: --doc-stride is here the OVERLAP of two windows, as in transformers; Google's, and bertkit's,
is the STEP from one to the next, which one call of the tokenizer cannot do. It touches only contexts that do not fit
into one window. Questions are cut to --query-length word pieces. No "maximal context" rule in decoding, as in run_qa.

The model is saved before prediction. Prints progress, then one JSON line: scores, windows, wall and CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from squad_v1 import Question, Window, best_text, read, scores

Features = dict[str, list[Any]]
INPUTS = ("input_ids", "token_type_ids", "attention_mask")


class Progress(transformers.TrainerCallback):  # type: ignore[misc]
    """A line each time the Trainer logs: step of steps, loss, expected rest."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.start = time.perf_counter()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if logs and "loss" in logs:
            spent = time.perf_counter() - self.start
            rest = spent / state.global_step * (state.max_steps - state.global_step)
            say(f"step {state.global_step}/{state.max_steps} loss {float(logs['loss']):.4f} rest {rest:.0f} s")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def with_answer(questions: Sequence[Question]) -> list[Question]:
    """Those whose first answer stands in the context where it says."""
    return [q for q in questions if q.answers and q.context.startswith(q.answers[0][1], q.answers[0][0])]


def cut(texts: list[str], tokenizer: Any, pieces: int) -> list[str]:
    """Each text up to the end of its word piece number `pieces`."""
    offsets = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return [
        text[: where[pieces - 1][1]] if len(where) > pieces else text
        for text, where in zip(texts, offsets, strict=True)
    ]


def windows(questions: Sequence[Question], tokenizer: Any, options: argparse.Namespace) -> Features:
    """All windows: the model's inputs, `sample` (question number), `offsets` (None outside the context)."""
    table: Features = {name: [] for name in (*INPUTS, "sample", "offsets")}
    for first in range(0, len(questions), 1000):
        some = questions[first : first + 1000]
        encoded = tokenizer(
            cut([q.question.lstrip() for q in some], tokenizer, options.query_length), [q.context for q in some],
            truncation="only_second", max_length=options.seq_length, stride=options.doc_stride,
            return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
        )  # fmt: skip
        for name in INPUTS:
            table[name] += encoded[name]
        table["sample"] += [first + sample for sample in encoded["overflow_to_sample_mapping"]]
        for row, offsets in enumerate(encoded["offset_mapping"]):
            sides = encoded.sequence_ids(row)
            table["offsets"].append([o if side == 1 else None for o, side in zip(offsets, sides, strict=True)])
    return table


def positions(offsets: Sequence[tuple[int, int] | None], start: int, end: int) -> tuple[int, int]:
    """First and last token of the characters [start, end); (0, 0), which is [CLS], where the window lacks a part."""
    inside = [place for place, pair in enumerate(offsets) if pair is not None]
    spans = [pair for pair in offsets if pair is not None]
    if not spans or spans[0][0] > start or spans[-1][1] < end:
        return 0, 0
    first = max(place for place, pair in zip(inside, spans, strict=True) if pair[0] <= start)
    last = min(place for place, pair in zip(inside, spans, strict=True) if pair[1] >= end)
    return first, last


def training_rows(questions: Sequence[Question], tokenizer: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    table = windows(questions, tokenizer, options)
    rows = []
    for row, sample in enumerate(table["sample"]):
        begin, text = questions[sample].answers[0]
        first, last = positions(table["offsets"][row], begin, begin + len(text))
        inputs = {name: table[name][row] for name in INPUTS}
        rows.append(inputs | {"start_positions": first, "end_positions": last})
    return rows


def train(model: Any, tokenizer: Any, rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    arguments = transformers.TrainingArguments(
        str(options.out / "trainer"), seed=options.seed, per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate, num_train_epochs=options.epochs, warmup_steps=options.warmup,
        weight_decay=options.weight_decay, max_grad_norm=1.0, bf16=options.bf16, use_cpu=True, save_strategy="no",
        report_to="none", disable_tqdm=True, logging_steps=25, dataloader_pin_memory=False,
        train_sampling_strategy="group_by_length" if options.group_by_length else "random",
    )  # fmt: skip
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, callbacks=[Progress()],
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()


def logits(model: Any, tokenizer: Any, table: Features, options: argparse.Namespace) -> Iterator[tuple[int, Any, Any]]:
    """(window, start logits, end logits), longest windows first, batches padded to their longest."""
    order = sorted(range(len(table["sample"])), key=lambda row: -len(table["input_ids"][row]))
    model.eval()
    for first in range(0, len(order), options.eval_batch_size):
        some = order[first : first + options.eval_batch_size]
        batch = tokenizer.pad({name: [table[name][row] for row in some] for name in INPUTS}, return_tensors="pt")
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            output = model(**batch)
        starts, ends = output.start_logits.float().numpy(), output.end_logits.float().numpy()
        for place, row in enumerate(some):
            length = len(table["input_ids"][row])
            yield row, starts[place, :length], ends[place, :length]
        if first // options.eval_batch_size % 25 == 0:
            say(f"predicted {first + len(some)}/{len(order)} windows")


def predict(
    model: Any, tokenizer: Any, questions: Sequence[Question], options: argparse.Namespace
) -> tuple[dict[str, str], int]:
    """Question id -> answer, and the number of windows."""
    table = windows(questions, tokenizer, options)
    found: list[list[Window]] = [[] for _ in questions]
    for row, starts, ends in logits(model, tokenizer, table, options):
        found[table["sample"][row]].append(Window(table["offsets"][row], starts, ends))
    texts = {q.id: best_text(q.context, parts) for q, parts in zip(questions, found, strict=True)}
    return texts, len(table["sample"])


def run(options: argparse.Namespace) -> dict[str, Any]:
    transformers.set_seed(options.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)
    asked = read(options.train, options.train_rows)
    kept = with_answer(asked)
    rows = training_rows(kept, tokenizer, options)
    no_answer = sum(row["end_positions"] == 0 for row in rows)
    lengths = np.array([len(row["input_ids"]) for row in rows])
    say(f"{len(kept)} of {len(asked)} questions, {len(rows)} windows, mean {lengths.mean():.1f} tokens")
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(
        options.model, attn_implementation=options.attention, dtype=torch.float32
    )
    times = [(time.perf_counter(), cpu_seconds())]
    train(model, tokenizer, rows, options)
    times.append((time.perf_counter(), cpu_seconds()))
    model.save_pretrained(options.out / "model")
    tokenizer.save_pretrained(options.out / "model")
    say(f"trained in {times[1][0] - times[0][0]:.0f} s; saved in {options.out / 'model'}")
    dev = read(options.dev, options.dev_rows)
    predictions, dev_windows = predict(model, tokenizer, dev, options)
    times.append((time.perf_counter(), cpu_seconds()))
    (options.out / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")
    spent = [[round(after - before, 1) for before, after in zip(*pair, strict=True)] for pair in pairwise(times)]
    return {
        **scores(dev, predictions), "questions": len(kept), "left_out": len(asked) - len(kept), "windows": len(rows),
        "windows_without_answer": no_answer, "mean_tokens": round(float(lengths.mean()), 1),
        "dev_questions": len(dev), "dev_windows": dev_windows,
        "train_seconds": spent[0][0], "train_cpu_seconds": spent[0][1],
        "predict_seconds": spent[1][0], "predict_cpu_seconds": spent[1][1],
        "threads": torch.get_num_threads(), "torch": torch.__version__, "transformers": transformers.__version__,
        "options": {name: str(v) if isinstance(v, Path) else v for name, v in vars(options).items()},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "dev", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name, default in (
        ("train-rows", 20000), ("dev-rows", 0), ("epochs", 1.0), ("batch-size", 16), ("eval-batch-size", 32),
        ("learning-rate", 1e-4), ("warmup", 0.1), ("weight-decay", 0.01), ("seed", 1), ("seq-length", 384),
        ("doc-stride", 128), ("query-length", 64),
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--attention", default="eager", choices=("eager", "sdpa"))
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--fp32", dest="bf16", action="store_false")
    parser.add_argument("--group-by-length", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(json.dumps(run(options)), flush=True)


if __name__ == "__main__":
    main()
