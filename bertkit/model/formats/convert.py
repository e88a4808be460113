"""`bertkit convert`: a checkpoint of one system as another has it, checked, whole or not at all."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.disk import write_arrays, write_json, write_sealed_arrays, write_text
from bertkit.files.locks import holding
from bertkit.model.config import READ, Arrays, ModelConfig, from_mapping, to_mapping, told_of_keys
from bertkit.model.folder import check_fit, check_pad
from bertkit.model.formats.places import HF_FILES
from bertkit.model.formats.shapes import check_moments, check_weights, head_of
from bertkit.model.formats.sources import MOMENTS_FILE, Contents, count, read_contents, read_json
from bertkit.model.formats.targets import ConversionTarget, beside, find_target, lock_of, move_in, refuse_taken
from bertkit.model.formats.tf1 import read_tf1, write_tf1
from bertkit.model.formats.torch_files import padded, read_state, same, untied, write_state
from bertkit.model.saving import write_tokenizer
from bertkit.model.tokenizer_files import read_lines, read_vocabulary, write_vocabulary
from bertkit.model.vocabulary import Vocabulary, casing_warning
from bertkit.model.weights import read_raw

# The keys that Google's bert_config.json always has; others are left out of it where they say what all models have.
GOOGLES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "vocab_size",
    "hidden_dropout_prob", "attention_probs_dropout_prob", "max_position_embeddings", "type_vocab_size",
    "initializer_range",
)  # fmt: skip
# Keys of config.json that Google's and the training scripts' models do not read, and what they always have
FIXED: Mapping[str, Any] = {"layer_norm_eps": 1e-12, "classifier_dropout": None, "position_embedding_type": "absolute"}


@dataclass(frozen=True)
class ConvertedModel:
    """What is converted: checked, and without padding."""

    weights: Arrays
    moments: Arrays
    config: ModelConfig
    keys: Mapping[str, Any]  # the configuration as the source has it
    vocabulary: Vocabulary | None


@dataclass(frozen=True)
class Report:
    """What was done."""

    source: str
    kind: str
    destination: str
    form: str
    files: tuple[str, ...]
    tensors: int
    parameters: int
    moments: int  # tensors of them
    notes: tuple[str, ...]


def convert(
    source: Path,
    destination: Path,
    to: str = "",
    config: str = "",
    vocab: str = "",
    moments: bool = False,
    leave_out: Sequence[str] = (),
    overwrite: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> Report:
    """Write SRC as DST. Raises UserError, with nothing written, for what is missing, unknown, damaged or misshapen."""
    target = find_target(destination, to)
    with holding(lock_of(target), "a conversion", str(destination)):
        return _convert(source, destination, target, config, vocab, moments, leave_out, overwrite, say)


def _convert(
    source: Path,
    destination: Path,
    target: ConversionTarget,
    config: str,
    vocab: str,
    moments: bool,
    leave_out: Sequence[str],
    overwrite: bool,
    say: Callable[[str], object],
) -> Report:
    refuse_taken(target, overwrite)
    say(f"reading {source}")
    contents = read_contents(source, moments, config, vocab)
    if os.path.realpath(contents.path) == os.path.realpath(target.folder / (target.name or HF_FILES[0])):
        raise UserError(f"{destination} is {source} itself", "name another place")
    model, notes = take(contents, leave_out)
    notes += _losses(model, target, moments)
    temporary = beside(target.folder)
    try:
        say(f"writing {destination}")
        temporary.mkdir(parents=True)
        notes += write(model, target, temporary)
        say("reading it back")
        compare(model, target, temporary)
        files = move_in(temporary, target, overwrite)
    except OSError as error:
        raise UserError(f"{target.folder}: cannot be written: {error.strerror}", "choose another place") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    form = target.dialect or target.form
    tensors = len(model.weights), count(model.weights), len(model.moments)
    return Report(str(source), contents.kind, str(destination), form, files, *tensors, tuple(notes))


def take(contents: Contents, leave_out: Sequence[str] = ()) -> tuple[ConvertedModel, list[str]]:
    """What the checkpoint holds, compared with its configuration and vocabulary; and notes."""
    where, notes = str(contents.path), list(contents.notes)

    def kept(arrays: Arrays) -> Arrays:
        matches = {name: any(fnmatch.fnmatchcase(name, pattern) for pattern in leave_out) for name in arrays}
        notes.extend(f"left out: {name} {arrays[name].shape}" for name, left in matches.items() if left)
        return {name: array for name, array in arrays.items() if not matches[name]}

    for name, array in kept(contents.unknown).items():
        raise UserError(f"{where}: {name} {array.shape} is no variable of a BERT", f"or --leave-out {name}")
    if contents.config is None:
        raise UserError(f"{where}: there is no config.json or bert_config.json beside it", "give one with --config")
    keys = read_json(contents.config)
    config = from_mapping(keys, str(contents.config))
    weights, said = check_weights(kept(contents.weights), config, where)
    moments = check_moments(kept(contents.moments), weights, where)
    notes += told_of_keys(keys, READ, str(contents.config))
    vocabulary = read_vocabulary(contents.vocabulary) if contents.vocabulary else None
    if vocabulary is None:
        notes.append("there is no vocab.txt beside it: give one with --vocab")
    else:
        notes += [*vocabulary.warnings, *check_fit(vocabulary, config, contents.config.parent)]
        notes += check_pad(vocabulary, keys, contents.config)
        warning = casing_warning(vocabulary)
        notes += [warning] if warning else []
    return ConvertedModel(weights, moments, config, keys, vocabulary), notes + said


def write(model: ConvertedModel, target: ConversionTarget, folder: Path) -> list[str]:
    """Write all files of the target into `folder`; notes."""
    if model.vocabulary is not None:
        _write_vocabulary(folder / "vocab.txt", model.vocabulary, target.form == "hf")
    if target.form == "hf":
        write_arrays(folder / HF_FILES[0], model.weights, {"format": "pt"})
        if model.moments:
            write_sealed_arrays(folder / MOMENTS_FILE, model.moments, {})
        write_json(folder / "config.json", hf_config(model))
        if model.vocabulary is not None:
            write_tokenizer(folder, model.config, model.vocabulary)
        return []
    text = json.dumps(google_config(model), indent=2, sort_keys=True)  # as Google's own code writes it
    write_text(folder / "bert_config.json", text + "\n")
    if target.form == "tf1":
        write_tf1(folder / target.name, model.weights, model.moments)
        return []
    write_state(folder / target.name, model.weights, target.dialect)
    name = "bert.embeddings.word_embeddings.weight"
    more = len(padded({name: model.weights[name]})[name]) - len(model.weights[name])
    return [f"added: {more} rows of zeros to the vocabulary, to a multiple of 8"] if more else []


def _write_vocabulary(path: Path, vocabulary: Vocabulary, beside_tokenizer: bool) -> None:
    """As a `vocab.txt`: the source's own if its pieces are these. `beside_tokenizer`: that has the added tokens."""
    pieces = vocabulary.pieces[: vocabulary.word_pieces] if beside_tokenizer else vocabulary.pieces
    if vocabulary.path.suffix != ".json" and read_lines(vocabulary.path)[0] == pieces:
        shutil.copyfile(vocabulary.path, path)
    else:
        write_vocabulary(path, vocabulary, added=not beside_tokenizer)


def compare(model: ConvertedModel, target: ConversionTarget, folder: Path) -> None:
    """Read back what was written. Raises UserError where a tensor is not bit for bit what was read."""
    if target.form == "tf1":
        found = read_tf1(folder / target.name, bool(model.moments))
        back = found.weights | found.moments
    elif target.form == "pt":
        back = check_weights(read_state(folder / target.name).weights, model.config, target.name)[0]
    else:
        back = untied(read_raw(folder).arrays, target.name)
    wanted = model.weights | (model.moments if target.form == "tf1" else {})
    for name in sorted(wanted.keys() | back.keys()):
        if name not in wanted or name not in back or not same(wanted[name], back[name]):
            raise UserError(f"{name} does not read back as it was written", "is the disk sound? nothing was left there")


def hf_config(model: ConvertedModel) -> dict[str, Any]:
    """config.json: the source's keys, and what transformers needs besides."""
    head, architecture = head_of(model.weights)
    keys = {**model.keys}
    if keys.get("tie_word_embeddings") is False and "cls.predictions.bias" in model.weights:
        keys["tie_word_embeddings"] = True  # its decoder is the embeddings, bit for bit, and is not written twice
    return to_mapping(model.config, head, ()) | {"architectures": [architecture], **keys}


def google_config(model: ConvertedModel) -> dict[str, Any]:
    """bert_config.json: the source's keys, without those of Hugging Face's that say what all models have."""
    head, architecture = head_of(model.weights)
    usual = to_mapping(model.config, head, ()) | dict(FIXED) | {"architectures": [architecture]}
    return {key: value for key, value in model.keys.items() if key in GOOGLES or usual.get(key, ...) != value}


def _losses(model: ConvertedModel, target: ConversionTarget, moments: bool) -> list[str]:
    """What the target has no place for."""
    notes = []
    if moments and not model.moments:
        notes.append("there are no moments")
    if target.form == "pt" and model.moments:
        notes.append("left out: the moments, since the settings of the script's optimizer belong to them")
    if target.form != "hf" and model.vocabulary and not model.vocabulary.plain:
        notes.append(f"vocab.txt has no place for the tokenizer's rules: {model.vocabulary.variant}")
    if target.form != "hf":
        for key, value in FIXED.items():
            if model.keys.get(key, value) != value:
                notes.append(f"{key} {model.keys[key]!r} is not read there; those models have {value!r}")
    return notes
