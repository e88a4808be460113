"""The README of a model on the hub, filled from a run's record: what it is, what it learned from, what it scores.

Source: the hub's model cards, their metadata and `model-index` (Mitchell et al. 2018, arXiv:1810.03993).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.comparison.report.reading import RunReport, data_parts, is_selected, number, read_report, task_name
from bertkit.errors import UserError
from bertkit.files.inputs import is_file, read_object

PIPELINES: Mapping[str, str] = {  # the hub's word for what a head is for
    "BertForSequenceClassification": "text-classification",
    "BertForTokenClassification": "token-classification",
    "BertForQuestionAnswering": "question-answering",
    "BertForMultipleChoice": "multiple-choice",
    "BertForPreTraining": "fill-mask",
}
FILES = ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "task.json")
README = "README.md"


def files_of_model(run: Path) -> list[Path]:
    """What of the run's folder is the model. Raises UserError where its weights are not there."""
    found = [run / name for name in FILES if is_file(run / name)]
    if run / "model.safetensors" not in found:
        raise UserError(f"{run}: holds no model.safetensors", "name the folder of a finished run")
    return found


def hub_readme(run: Path, name: str, licence: str) -> str:
    """Markdown with the hub's metadata before it. No text of the data, no path and no host's name is in it."""
    made = read_report(run, texts=False)
    architecture = (read_object(run / "config.json").get("architectures") or [""])[0]
    head = _metadata(made, name, licence, PIPELINES.get(str(architecture), ""))
    return f"---\n{head}\n---\n\n# {name.rpartition('/')[2]}\n\n{_body(made, run)}"


def _metadata(made: RunReport, name: str, licence: str, pipeline: str) -> str:
    """YAML, of which JSON is a part: so every value stands as JSON."""
    task = task_name(made.record)
    scores = [{"type": key, "name": key, "value": value} for key, value in made.record["metrics"].items()]
    results = {"task": {"type": pipeline}, "dataset": {"type": task, "name": task}, "metrics": scores}
    values: dict[str, Any] = {"license": licence, "library_name": "transformers", "tags": ["bert", "bertkit"]}
    if pipeline:
        values |= {"pipeline_tag": pipeline, "model-index": [{"name": name, "results": [results]}]}
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def _body(made: RunReport, run: Path) -> str:
    record, spread = made.record, made.details.get("intervals", {})
    rows = []
    for name, value in record["metrics"].items():
        low, high = spread.get(name, (None, None))
        rows.append([name, f"{value:.4f}", f"{low:.3f} to {high:.3f}" if low is not None else ""])
    data = [[part["name"], number(part["examples"]), part["sha256"] or ""] for part in data_parts(record)]
    device, place = record["hardware"]["device"], record["hardware"]
    said = [
        f"Task: {task_name(record)}. Trained with bertkit from `{Path(record['model']['name']).name}`, seed "
        f"{record['config'].get('seed')}, {record['updates']:,} updates in {record['precision']['name']}, on "
        f"{place['processes']} x {device['model'] or place['cpu_model']}.",
        "## Scores on the dev set",
        _table(("metric", "value", "95% interval"), rows),
        "Intervals: bootstrap over the dev set's examples."
        + (" The checkpoint was selected on the dev set." if is_selected(record) else ""),
        "## Data",
        _table(("part", "examples", "SHA-256"), data),
        "## Settings that are not the defaults",
        _table(("setting", "value"), _settings(record)),
        "## Use",
        f"```python\nfrom transformers import pipeline\n\npipeline(model={run.name!r})\n```",
    ]
    return "\n\n".join(said) + "\n"


def _settings(record: Mapping[str, Any]) -> list[list[str]]:
    """Without those that name a place on the machine."""
    places = ("output", "model.name", "model.vocab", "data.dir", "data.train_file", "data.dev_file", "data.cache")
    values = record["config"]
    return [[f"`{key}`", f"`{values.get(key)}`"] for key in record["config_sources"] if key not in places]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
