"""Where a model comes from: a size by its name, a folder, a checkpoint's file, or a name on the model hub."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertkit.errors import UserError, nearest
from bertkit.files import hub
from bertkit.files.disk import sha256_file
from bertkit.files.downloads import Unreachable
from bertkit.files.inputs import exists, is_file, is_folder
from bertkit.model.config import ARCHITECTURES, Head, ModelConfig, read_config
from bertkit.model.folder import check_fit, check_pad, find_config, read_configuration
from bertkit.model.formats.file_kinds import TORCH, check_kind
from bertkit.model.formats.tf1 import tf1_prefix
from bertkit.model.names import known_names
from bertkit.model.parameters import initial
from bertkit.model.tokenizer_files import read_vocabulary, vocabulary_file
from bertkit.model.vocabulary import GOOGLES_SPECIAL, Casing, Vocabulary, casing_warning, without_words
from bertkit.model.weights import Fit, Stored, fit_weights, has_plug_in, read_weights


@dataclass(frozen=True)
class ModelSource:
    """A model before its weights are read."""

    name: str  # as asked for
    folder: Path | None  # None: a size by name, to be started at random
    config: ModelConfig
    vocabulary: Vocabulary
    warnings: tuple[str, ...] = ()
    weights: Path | None = None  # a checkpoint's prefix or file in the folder; None: the folder's weights
    keys: Mapping[str, Any] = field(default_factory=dict)  # of the folder's configuration, as they stand there


def find_source(
    name: str, vocab: str = "", casing: Casing = "auto", task_vocab: Path | None = None, ids_only: bool = False
) -> ModelSource:
    """The model called `name`. A vocabulary: `vocab` if given, the model's own, or for a bare size the task's.

    `ids_only`: a folder's model may come without one, since the data may be ids already.
    Raises UserError where nothing is found or vocabulary and model do not fit together.
    """
    weights = None if name in ARCHITECTURES else checkpoint_file(name)
    folder = None if name in ARCHITECTURES else weights.parent if weights else model_folder(name)
    path = _vocabulary_path(vocab) if vocab else (vocabulary_file(folder) if folder else task_vocab)
    if ids_only and not vocab and task_vocab and path and not exists(path):
        path = task_vocab
    if path is None or (not vocab and folder is None and not exists(path)):
        raise UserError(
            f"model {name!r} is a size without weights, so it has no vocabulary",
            "give one with --set model.vocab=vocab.txt, or give -m the folder of a pre-trained BERT",
        )
    numbered = _without_words(folder) if folder and ids_only and not vocab and not exists(path) else None
    vocabulary = numbered or read_vocabulary(path, casing)
    casing_said = casing_warning(vocabulary) if vocabulary.has_words else None
    said = (*vocabulary.warnings, *([casing_said] if casing_said else []))
    if folder is None:
        config = dataclasses.replace(ARCHITECTURES[name], vocab_size=len(vocabulary.pieces))
        return ModelSource(name, folder, config, vocabulary, said, weights)
    found = read_configuration(folder)
    said += (*found.warnings, *check_fit(vocabulary, found.model, folder))
    said += check_pad(vocabulary, found.keys, found.path)
    return ModelSource(name, folder, found.model, vocabulary, said, weights, found.keys)


def _vocabulary_path(given: str) -> Path:
    """A vocabulary's file, or that of the folder which is named."""
    path = Path(given).expanduser()
    return vocabulary_file(path) if is_folder(path) else path


def _without_words(folder: Path) -> Vocabulary | None:
    """None: the model has too few rows for Google's special pieces."""
    file = find_config(folder)
    rows = read_config(file).vocab_size
    return without_words(rows, file) if rows > max(GOOGLES_SPECIAL.values()) else None


def starting_weights(source: ModelSource, head: Head, seed: int, allow_missing: bool = False) -> Fit:
    """The source's weights for this head; for a bare size, random ones that follow from the seed.

    `allow_missing`: what the encoder lacks starts at random too.
    """
    if source.folder is None:
        return Fit(initial(source.config, head, seed), (), (), ())
    stored = read_weights(source.weights or source.folder, head.kind == "pretraining")
    fit = fit_weights(stored.arrays, source.config, head, seed, str(stored.path), allow_missing)
    return dataclasses.replace(fit, digest=_digest(stored), notes=(*stored.notes, *fit.notes), warnings=stored.warnings)


def _digest(stored: Stored) -> str:
    """The file's SHA-256; of several, that of the list of theirs."""
    if not stored.shards:
        return sha256_file(stored.path)
    lines = "".join(f"{path.name} {sha256_file(path)}\n" for path in stored.shards)
    return hashlib.sha256(lines.encode()).hexdigest()


def checkpoint_file(name: str) -> Path | None:
    """The prefix of a TensorFlow 1 checkpoint or the weight file called `name`; None where it is neither."""
    path = Path(name).expanduser()
    if is_folder(path):
        return None
    prefix = tf1_prefix(path)
    known = path.suffix in (*TORCH, ".safetensors") or has_plug_in(path)
    return path if prefix is None and known and is_file(path) else prefix


def model_folder(name: str) -> Path:
    """The folder called `name`, or the hub's model of that name from its cache or by download."""
    path = Path(name).expanduser()
    if path.is_dir():
        _refuse_answers_alone(path)
        return path
    if path.exists():
        check_kind(path)
        raise UserError(
            f"{path} is a file, not a model's folder",
            f"give the folder with config.json, or a weight file ({', '.join(TORCH)}, .safetensors)",
        )
    if name.count("/") > 1 or name.startswith((".", "/", "~")):
        raise UserError(f"the model folder {name} does not exist", "sizes by name: " + ", ".join(ARCHITECTURES))
    return _from_hub(name)


def _refuse_answers_alone(path: Path) -> None:
    """`bertkit predict` of a model by its name on the hub once left such a folder; it hides the model."""
    try:
        inside = [one.name for one in path.iterdir()]
    except OSError:  # what is wrong with the folder is said where a file of it is read
        return
    if inside == ["predictions"]:
        raise UserError(
            f"{path} is a folder that holds nothing but predictions, no model",
            f"if you mean the model of that name on the hub, remove {path} or move it away",
        )


def _from_hub(name: str) -> Path:
    if not hub.is_installed():
        raise UserError(
            f"there is no folder and no size {name!r}",
            f"{nearest(name, known_names())} (hub names: bertkit[hub])",
        )
    try:
        return hub.model(name)
    except Unreachable as error:
        raise UserError(
            f"there is no folder and no size {name!r}, and {error.cause}",
            f"{nearest(name, known_names())} Offline, copy the model's folder here and give its path",
        ) from None
