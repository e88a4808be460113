"""Where a model comes from: one of the six sizes by name, a folder, a checkpoint's file, or a name on the model hub."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from bertkit.disk import sha256_file
from bertkit.errors import UserError, nearest
from bertkit.model_config import ARCHITECTURES, Head, ModelConfig, read_config
from bertkit.parameters import initial
from bertkit.tf1_weights import tf1_prefix
from bertkit.tokenizer import GOOGLES_SPECIAL, Casing, Vocabulary, casing_warning, read_vocabulary, without_words
from bertkit.weight_files import PADDED_TO, Fit, fit_weights, read_weights

HUB_FILES = ("*.json", "vocab.txt", "model*.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Source:
    """A model before its weights are read."""

    name: str  # as asked for
    folder: Path | None  # None: a size by name, to be started at random
    config: ModelConfig
    vocabulary: Vocabulary
    warnings: tuple[str, ...] = ()
    weights: Path | None = None  # a checkpoint's prefix or file in the folder; None: the folder's weights


def find_source(
    name: str, vocab: str = "", casing: Casing = "auto", task_vocab: Path | None = None, ids_only: bool = False
) -> Source:
    """The model called `name`. A vocabulary: `vocab` if given, the model's own, or for a bare size the task's.

    `ids_only`: a folder's model may come without one, since the data may be ids already.
    Raises UserError where nothing is found or vocabulary and model do not fit together.
    """
    weights = None if name in ARCHITECTURES else checkpoint_file(name)
    folder = None if name in ARCHITECTURES else weights.parent if weights else model_folder(name)
    path = Path(vocab) if vocab else (folder / "vocab.txt" if folder else task_vocab)
    if ids_only and not vocab and task_vocab and path and not path.exists():
        path = task_vocab
    if path is None or (not vocab and folder is None and not path.exists()):
        raise UserError(
            f"model {name!r} is a size without weights, so it has no vocabulary",
            "give one with --set model.vocab=vocab.txt, or give -m the folder of a pre-trained BERT",
        )
    numbered = _without_words(folder) if folder and ids_only and not vocab and not path.exists() else None
    vocabulary = numbered or read_vocabulary(path, casing)
    if folder is None:
        config = dataclasses.replace(ARCHITECTURES[name], vocab_size=len(vocabulary.pieces))
    else:
        config = read_config(_config_file(folder))
        check_fit(vocabulary, config, folder)
    warning = casing_warning(vocabulary)
    return Source(name, folder, config, vocabulary, (warning,) if warning else (), weights)


def _without_words(folder: Path) -> Vocabulary | None:
    """None: the model has too few rows for Google's special pieces."""
    file = _config_file(folder)
    rows = read_config(file).vocab_size
    return without_words(rows, file) if rows > max(GOOGLES_SPECIAL.values()) else None


def starting_weights(source: Source, head: Head, seed: int) -> Fit:
    """The source's weights for this head; for a bare size, random ones that follow from the seed."""
    if source.folder is None:
        return Fit(initial(source.config, head, seed), (), (), ())
    path, arrays = read_weights(source.weights or source.folder)
    fit = fit_weights(arrays, source.config, head, seed, str(path))
    return dataclasses.replace(fit, digest=sha256_file(path))


def checkpoint_file(name: str) -> Path | None:
    """The prefix of a TensorFlow 1 checkpoint or the `.pt` file called `name`; None where it is neither."""
    path = Path(name).expanduser()
    if path.is_dir():
        return None
    return path if path.suffix == ".pt" and path.is_file() else tf1_prefix(path)


def model_folder(name: str) -> Path:
    """The folder called `name`, or the hub's model of that name from its cache or by download."""
    path = Path(name).expanduser()
    if path.is_dir():
        _refuse_answers_alone(path)
        return path
    if path.exists():
        raise UserError(f"{path} is a file, not a model's folder", "give the folder with config.json, or a .pt file")
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
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UserError(
            f"there is no folder and no size {name!r}",
            f"{nearest(name, ARCHITECTURES)} (hub names: bertkit[hub])",
        ) from None
    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the hub's client raises a dozen types, all of which mean: not to be had
        raise UserError(
            f"there is no folder and no size {name!r}, and the model hub did not give it: {type(error).__name__}",
            f"{nearest(name, ARCHITECTURES)} Offline, copy the model's folder here and give its path",
        ) from None


def _config_file(folder: Path) -> Path:
    for name in ("config.json", "bert_config.json"):
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{folder}: holds no config.json", "give the folder of a pre-trained BERT")


def check_fit(vocabulary: Vocabulary, config: ModelConfig, folder: Path) -> None:
    pieces, rows = len(vocabulary.pieces), config.vocab_size
    if not pieces <= rows < pieces + PADDED_TO:
        raise UserError(
            f"{vocabulary.path} has {pieces} word pieces but the model in {folder} has {rows} embeddings",
            "give the vocabulary that this model was trained with (--set model.vocab=FILE)",
        )
