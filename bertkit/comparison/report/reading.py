"""What the report of one run shows, read from its folder: nothing is computed anew."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.data.tables.hub_tables import table_path
from bertkit.data.tasks.own.rows import RowFormat, read_examples
from bertkit.errors import UserError
from bertkit.files.inputs import exists, is_file, read_object, read_toml
from bertkit.recipes.recipe import flatten
from bertkit.records.files import load
from bertkit.training.run_folder import SCORES
from bertkit.training.run_task import read_task

SHOWN = 20  # of the worst errors
TABLE_OF = ("label", "precision", "recall", "f1", "support", "predicted", "auroc", "average_precision")
CUT = 300  # characters of a text


@dataclass(frozen=True, kw_only=True)
class ReportTable:
    """Headings, and rows of cells."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: tuple[str, ...] = ()  # headings of columns with words, beside the first


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Of one run."""

    name: str
    record: Mapping[str, Any]
    losses: tuple[float, ...]  # of each update
    details: Mapping[str, Any]  # of the first dev set; empty where the run's task has none
    tables: tuple[ReportTable, ...]


def read_report(folder: Path, texts: bool) -> RunReport:
    """Raises UserError where the folder holds no finished run, and with `texts` where its dev file is not there."""
    found = load(folder)
    record = found.mapping
    if record["kind"] != "train":
        raise UserError(f"{folder}: is of {record['kind']}, not of a training", "name the folder of a run")
    path = folder / SCORES
    details = read_object(path)["parts"][0] if exists(path) else {}
    tables = [_metrics(record, details), *_classes(details), *_targets(details), *_lengths(details)]
    tables += [_errors(details, _texts(folder, details) if texts else {})] if details.get("worst") else []
    tables += [_data(record), _settings(record)]
    losses = tuple(math.nan if loss is None else loss for loss in found.losses() or ())
    name = folder.name or str(folder)
    return RunReport(name=name, record=record, losses=losses, details=details, tables=tuple(tables))


def _metrics(record: Mapping[str, Any], details: Mapping[str, Any]) -> ReportTable:
    spread, majority = details.get("intervals", {}), record["majority_class"] or {}
    rows = []
    for name, value in record["metrics"].items():
        low, high = spread.get(name, (None, None))
        rows.append([name, number(value), f"{number(low)} to {number(high)}" if name in spread else "–",
                     number(majority.get(name)), record["units"].get(name, "")])  # fmt: skip
    for name in ("macro_auroc", "mean_average_precision", "temperature"):
        if details.get(name) is not None and name not in record["metrics"]:
            rows.append([name, number(details[name]), "–", "–", ""])
    if "calibration" in details:
        rows.append(["expected calibration error", number(details["calibration"]["ece"]), "–", "–", "fraction"])
    note = "95% interval: bootstrap over the dev set's examples. "
    if is_selected(record):
        note += "The checkpoint was selected on the dev set, so its scores flatter. "
    headings = ("metric", "value", "95% interval", "most frequent class", "unit")
    return ReportTable(title="Result on the dev set", headings=headings, rows=rows, note=note)


def _classes(details: Mapping[str, Any]) -> list[ReportTable]:
    if not details.get("classes"):
        return []
    rows = [[each["label"], *(number(each[name]) for name in TABLE_OF[1:])] for each in details["classes"]]
    if "thresholds" in details:
        for row, threshold in zip(rows, details["thresholds"], strict=True):
            row.append(number(threshold))
    headings = [name.replace("_", " ") for name in TABLE_OF] + (["best threshold"] if "thresholds" in details else [])
    note = "Best threshold: where F1 of the label is largest on this very dev set. " if "thresholds" in details else ""
    return [ReportTable(title="Each label", headings=headings, rows=rows, note=note)]


def _targets(details: Mapping[str, Any]) -> list[ReportTable]:
    if not details.get("targets"):
        return []
    names = ("label", "mean", "bias", "mae", "rmse")
    rows = [[str(each["label"]), *(number(each[name]) for name in names[1:])] for each in details["targets"]]
    return [ReportTable(title="Each target", headings=names, rows=rows)]


def _lengths(details: Mapping[str, Any]) -> list[ReportTable]:
    if "by_length" not in details:
        return []
    found = details["by_length"]
    rows = [[f"{part['from']} to {part['to']}", number(part["examples"]), number(part["error"])]
            for part in found["parts"]]  # fmt: skip
    return [ReportTable(title="Error by length", headings=("tokens", "examples", found["of"]), rows=rows)]


def _errors(details: Mapping[str, Any], texts: Mapping[int, str]) -> ReportTable:
    rows = []
    for each in details["worst"][:SHOWN]:
        label, said = (_several(each[name]) for name in ("label", "said"))
        row = [str(each["example"]), label, said, number(each.get("probability"))]
        rows.append(row + ([texts.get(each["example"], "")[:CUT]] if texts else []))
    headings = ("example", "label", "predicted", "probability", *(("text",) if texts else ()))
    note = "Examples of the dev set, counted from 0; first those that the model was most sure of. "
    note += "" if texts else "--texts shows them."
    return ReportTable(
        title="Worst errors", headings=headings, rows=rows, note=note, words=("label", "predicted", "text")
    )


def _several(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _data(record: Mapping[str, Any]) -> ReportTable:
    rows = [
        [
            part["name"],
            part["file"] or "–",
            number(part["examples"]),
            number(part["sequences"]),
            (part["sha256"] or "–")[:12],
        ]
        for part in data_parts(record)
    ]
    return ReportTable(
        title="Data", headings=("part", "file", "examples", "sequences", "SHA-256"), rows=rows, words=("file",)
    )


def task_name(record: Mapping[str, Any]) -> str:
    """The task of the run."""
    return str(record["config"].get("task") or "own data")


def is_selected(record: Mapping[str, Any]) -> bool:
    """Whether the result is the checkpoint that was best on the dev set."""
    return bool(record["config"].get("checkpoint.result") == "best")


def data_parts(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Training data, then what was evaluated on; what the record does not tell is left out."""
    return [part for part in (record["data"]["train"], *record["data"]["evaluation"]) if part]


def _settings(record: Mapping[str, Any]) -> ReportTable:
    sources, values = record["config_sources"], record["config"]
    rows = [[key, str(values.get(key)), source] for key, source in sources.items()]
    return ReportTable(
        title="Settings that are not the defaults",
        headings=("setting", "value", "from"),
        rows=rows,
        words=("value", "from"),
    )


def number(value: Any) -> str:
    """Four digits of a fraction; a dash where nothing is known."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


# ---- texts ----


def _texts(folder: Path, details: Mapping[str, Any]) -> dict[int, str]:
    """The dev set's texts by their number, read again from the run's own file.

    Raises UserError where that is not there any more, or the run is not of own data.
    """
    told, path = read_task(folder), folder / "recipe.toml"
    own = told.own.format if told and told.own else None
    if told is None or told.own is None or not isinstance(own, RowFormat):
        raise UserError(f"{folder}: --texts is for runs on own data with texts and labels", "drop --texts")
    recipe = flatten(read_toml(path)) if is_file(path) else {}
    of_dev = recipe.get("data.dev_file")
    file = table_path(str(of_dev or recipe.get("data.train_file") or ""), "dev" if of_dev else "train")
    if not exists(file):
        raise UserError(f"{file}: the run's dev file is not there", "put it back, or drop --texts")
    found = read_examples(told.own, own, file, "dev", int(recipe.get("data.eval_rows") or 0))
    if len(found.first) != details["examples"]:
        raise UserError(f"{file}: holds {len(found.first):,} examples, the run's dev set had {details['examples']:,}",
                        "put the file back as it was, or drop --texts")  # fmt: skip
    seconds = found.second or ("",) * len(found.first)
    pairs = enumerate(zip(found.first, seconds, strict=True))
    return {at: f"{first} | {second}" if second else first for at, (first, second) in pairs}
