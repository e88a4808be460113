"""Which file of a folder holds a model's weights, and what kind of checkpoint a path is: one rule for all commands."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bertkit.errors import UserError
from bertkit.files.inputs import exists, is_file, is_folder
from bertkit.model.formats.file_kinds import TORCH, V1, check_kind, old_tf1
from bertkit.model.formats.tf1 import tf1_prefix

# tf1: PREFIX.index and its data shards. hf: a folder, or its weight file. pt: what a training script saved with
# torch.save. run: a checkpoint of a run, step-….safetensors.
Kind = Literal["tf1", "hf", "pt", "run"]
# in the order in which transformers looks for them
HF_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
STATES = (".pt", ".pth", ".ckpt")  # of which one alone in a folder is its model; a .bin may be anything
# what trainers save beside a model, with the same endings
NO_WEIGHTS = ("optimizer", "scheduler", "scaler", "rng_state", "training_args", "random_states")
KNOWN = "model.safetensors, pytorch_model.bin, *.index (TensorFlow 1), *.pt, *.pth and *.ckpt"


def find_kind(source: Path) -> tuple[Kind, Path]:
    """What SRC is, and the file, folder or prefix to read. Raises UserError where it is nothing that is known."""
    if is_folder(source):
        return _in_folder(source)
    prefix = tf1_prefix(source)
    if prefix is not None:
        return "tf1", prefix
    if not exists(source):
        raise UserError(f"{source}: is no folder and no file, and there is no {source}.index", "check the path")
    if source.suffix in TORCH:
        return "pt", source
    if source.suffix == ".safetensors":
        return ("run" if source.name.startswith("step-") else "hf"), source
    if source.name in HF_FILES:
        return "hf", source
    check_kind(source)
    raise UserError(f"{source}: is no checkpoint that is known", f"give PREFIX of PREFIX.index, a folder, or {KNOWN}")


def weight_file(folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The weight file of a Hugging Face folder, and a warning where others lie beside it that are not read."""
    found = [name for name in HF_FILES if exists(folder / name)]
    if not found:
        return None, ()
    rest = f"{folder}: {found[0]} is read, as transformers does, and not {', '.join(found[1:])} beside it"
    return folder / found[0], (rest,) if found[1:] else ()


def _in_folder(folder: Path) -> tuple[Kind, Path]:
    if weight_file(folder)[0]:
        return "hf", folder
    prefix = tf1_prefix(folder)
    if prefix is not None:
        return "tf1", prefix
    files = sorted(_files(folder))
    states = [path for path in files if path.suffix in STATES and not path.name.startswith(NO_WEIGHTS)]
    old = old_tf1(path for path in files if ".ckpt" in path.name)
    if old:
        raise UserError(f"{old}: {V1[0]}", V1[1])
    if len(states) == 1:
        return "pt", states[0]
    if states:
        raise UserError(f"{folder}: holds {len(states)} files of weights", f"name one, as {states[-1]}")
    raise UserError(
        f"{folder}: holds no checkpoint that is known: "
        "it holds no model.safetensors, no pytorch_model.bin and no TensorFlow 1 checkpoint",
        f"known are {KNOWN}; to train, -m names a model",
    )


def _files(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if is_file(path)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error.strerror}", "check the path") from None
