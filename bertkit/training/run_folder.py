"""The folder that a run leaves: a model that Hugging Face's transformers loads, the record, the log, checkpoints.

config.json model.safetensors vocab.txt tokenizer.json tokenizer_config.json   the model
record.json    what ran, on what, on which data, and what came out
scores.json    what lies behind the dev set's metrics: each class, confusions, calibration, intervals, worst errors
losses.json    every update's loss, where they are too many for the record
recipe.toml    every setting, ready for --config
task.json      what it is trained on, which later commands go by
log.jsonl      one JSON object a line, as the run went
mllog.txt dllogger.json tensorboard/   the same for other programs, where the recipe asks for it
trace.json evaluation-trace.json   what --profile of train and of evaluate recorded
int8.safetensors   what inference in int8 found on training sequences, for the next time
predictions/   the dev set's answers in GLUE's submission format
checkpoints/   for --resume
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from bertkit.errors import UserError
from bertkit.files.disk import write_text
from bertkit.files.inputs import exists
from bertkit.model.config import ARCHITECTURES
from bertkit.recipes.recipe import Recipe, Value
from bertkit.records.loggers import CURVES, DLLOGGER, MLLOG

SCORES = "scores.json"  # what lies behind the dev set's metrics
TRACE = "trace.json"  # what --profile recorded of the training
EVALUATION_TRACE = "evaluation-trace.json"
SCALES = "int8.safetensors"  # `calibration.py`
PRUNING = "pruning.json"  # of a model that was made smaller: `pruning.py`
OURS = (
    "config.json", "model.safetensors", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "record.json",
    "losses.json", SCORES, "recipe.toml", "task.json", "log.jsonl", "predictions", "checkpoints",
    MLLOG, DLLOGGER, CURVES, TRACE, EVALUATION_TRACE, SCALES, PRUNING,
)  # fmt: skip


def output_folder(recipe: Recipe) -> Path:
    name = Path(recipe.model.name).name
    data = recipe.task or plain_name(Path(recipe.data.train_file))  # of data of one's own
    return Path(recipe.output).expanduser() if recipe.output else Path("runs", f"{data}-{name}-seed{recipe.seed}")


def plain_name(path: Path) -> str:
    """What a folder for what is made of this file, or of these files, may be called."""
    return re.sub(r"[*?\[\]]+", "", path.name.partition(".")[0]).strip("-_ ") or path.parent.name or "data"


def refuse_taken(folder: Path, resume: bool, overwrite: bool) -> None:
    """Raises UserError where the folder holds a run that is neither resumed nor overwritten."""
    taken = _taken(folder)
    if taken and not (resume or overwrite):
        raise UserError(
            f"{folder} already holds a run ({', '.join(taken[:3])})",
            "resume with --resume, start over with --overwrite, or choose another folder with -o",
        )


def refuse_hiding(model: str, output: Path) -> None:
    """Raises UserError where `output` would be taken for the model at the next command: it bears the name of a model
    that is no folder here but, say, the hub's.
    """
    own = Path(model).expanduser()
    if not model or model in ARCHITECTURES or exists(own):  # a size is known before any folder
        return
    made, name = (Path(os.path.abspath(path)) for path in (output.expanduser(), own))
    if made == name or name in made.parents:
        raise UserError(
            f"{output} would make a folder {own}, which would then be taken for the model {model}",
            "choose another folder with -o",
        )


def open_folder(folder: Path, overwrite: bool) -> None:
    """Make the folder ready: what an overwritten run left is removed, and what a killed one left half-written."""
    for name in _taken(folder) if overwrite else ():
        path = folder / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for place in (folder, folder / "checkpoints", folder / "predictions"):
        for part in place.glob(".*.part"):  # left where a kill came while writing
            part.unlink(missing_ok=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}", "choose another folder with -o") from None


def _taken(folder: Path) -> list[str]:
    return [name for name in OURS if exists(folder / name)]


def write_recipe(folder: Path, values: Mapping[str, Value]) -> None:
    """Every setting as TOML."""
    write_text(folder / "recipe.toml", to_toml(values))


def to_toml(values: Mapping[str, Value]) -> str:
    """Dotted keys as TOML tables; an unset value has no line."""
    top = [_line(key, value) for key, value in values.items() if "." not in key and value is not None]
    sections: dict[str, list[str]] = {}
    for key, value in values.items():
        section, dot, leaf = key.partition(".")
        if dot and value is not None:
            sections.setdefault(section, []).append(_line(leaf, value))
    tables = [f"[{name}]\n" + "\n".join(lines) for name, lines in sections.items()]
    return "\n".join(top) + "\n\n" + "\n\n".join(tables) + "\n"


def _line(key: str, value: Value) -> str:
    if isinstance(value, str) and _not_utf8(value):
        return f"# {key} is {json.dumps(value)}, which is not UTF-8 and cannot stand in TOML"
    return f"{key} = {_toml(value)}"


def _not_utf8(text: str) -> bool:
    """Whether a name holds bytes that are not UTF-8, which Python spells as halves of surrogate pairs."""
    return any("\ud800" <= letter <= "\udfff" for letter in text)


def _toml(value: Value) -> str:
    if isinstance(value, float):
        return repr(value)
    # a JSON string, whole number or truth value is TOML too, save that TOML wants DEL escaped
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
