"""A trained model made smaller without training: pruned, scored before and after, and written as a folder of its own.

The folder is a model as `model/saving.py` writes one, with what the source's run says of its task; `pruning.json` tells
what was taken out of what, and what it cost.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.data.corpus import PieceCounts, corpus_files, count_pieces
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.files.disk import replace_folder, sha256_file, sweep, temporary_beside, write_arrays, write_json
from bertkit.files.inputs import exists, is_file, is_folder, read_object
from bertkit.model.config import Arrays, Head, ModelConfig, to_mapping
from bertkit.model.formats.torch_files import untied
from bertkit.model.loading import ModelSource, find_source
from bertkit.model.pruning import chosen_layers, keep_layers, keep_rows
from bertkit.model.saving import write_tokenizer
from bertkit.model.tokenizer_files import write_vocabulary
from bertkit.model.vocabulary import Vocabulary
from bertkit.model.vocabulary_pruning import keep_pieces, kept_ids, needed_pieces
from bertkit.model.weights import BY_VOCABULARY, fit_weights, read_raw, unpadded
from bertkit.recipes.recipe import Recipe
from bertkit.training.inference import evaluate
from bertkit.training.run_folder import PRUNING, refuse_hiding
from bertkit.training.supply import supply
from bertkit.version import __version__

COPIED = ("task.json", "recipe.toml")  # what later commands go by; record and log are of the source's training alone
TOKEN_IDS = ("pad", "cls", "sep", "mask", "bos", "eos", "decoder_start")  # keys of config.json, with _token_id behind


@dataclass(frozen=True)
class PruneRequest:
    """Where the smaller model goes, and whether its scores are wanted."""

    output: Path
    measure: bool | None = None  # None: if the task is known and its data is there
    overwrite: bool = False
    force: bool = False  # another task than the run was trained on


@dataclass(frozen=True)
class WholeModel:
    """Everything that a model's files hold."""

    source: ModelSource
    weights: Arrays  # of encoder and heads, under our names, in the dtypes of the file
    files: Mapping[str, str]  # that they were read from -> SHA-256


@dataclass(frozen=True)
class SmallerModel:
    """What is left of it."""

    config: ModelConfig
    vocabulary: Vocabulary
    weights: Arrays
    pruned: Mapping[str, Any]  # what was taken out, for pruning.json
    said: tuple[str, ...]  # the same in sentences
    ids: Mapping[int, int] | None = None  # old number of a piece -> new one; None: as they were


@dataclass(frozen=True)
class ModelSize:
    """What a model weighs."""

    layers: int
    vocabulary: int  # rows of the word embeddings
    parameters: int
    bytes: int  # of the weights, as they are stored


@dataclass(frozen=True)
class PruneReport:
    """What was pruned, and what it cost; as `pruning.json` has it."""

    folder: str
    source: str
    pruned: Mapping[str, Any]
    before: ModelSize
    after: ModelSize
    scores: Mapping[str, Any] | None  # task, precision, examples, before, after: metric -> value
    unmeasured: str  # why there are none
    said: tuple[str, ...]


Cut = Callable[[WholeModel, Display], SmallerModel]


def layers_cut(keep: Sequence[int] | None, number: int | None) -> Cut:
    """Keep these layers (from 0 on), or so many, evenly spaced. Raises UserError unless one of the two is given."""
    if (keep is None) == (number is None):
        how = "neither --keep nor --number is given" if keep is None else "--keep and --number are both given"
        raise UserError(how, "give one of the two, as --keep 1,3,5 or --number 3")

    def cut(model: WholeModel, display: Display) -> SmallerModel:
        count = model.source.config.num_hidden_layers
        layers = chosen_layers(count, keep, number or 0)
        if len(layers) == count:
            raise UserError(f"all {count} layers would stay", "keep fewer")
        config, weights = keep_layers(model.source.config, model.weights, layers)
        said = f"layers kept: {', '.join(map(str, layers))} of 0 to {count - 1}"
        return SmallerModel(config, model.source.vocabulary, weights, {"layers": list(layers), "of": count}, (said,))

    return cut


def vocabulary_cut(corpus: Sequence[Path], at_least: int) -> Cut:
    """Keep the pieces that occur so often in these files, and what no text can do without."""

    def cut(model: WholeModel, display: Display) -> SmallerModel:
        vocabulary, files = model.source.vocabulary, corpus_files(corpus)
        if not vocabulary.has_words:
            raise UserError(f"{model.source.name} has no vocabulary", "give one with --set model.vocab=vocab.txt")
        with display.progress("files", len(files)) as counter:
            counts = count_pieces(vocabulary, files, counter.add)
        ids = kept_ids(vocabulary, counts.pieces, at_least)
        if len(ids) >= model.source.config.vocab_size:
            raise UserError(
                "nothing can be taken out: every word piece occurs in the corpus or cannot be made of others",
                "give a smaller corpus, or a larger --at-least",
            )
        for warning in _uncertain(vocabulary):
            display.warn(warning)
        config, weights = keep_rows(model.source.config, model.weights, ids)
        told, said = _told_of(model.source, counts, ids, at_least)
        told["corpus"] = [str(file) for file in files]
        new = {old: number for number, old in enumerate(ids)}
        return SmallerModel(config, keep_pieces(vocabulary, ids), weights, told, said, new)

    return cut


def _uncertain(vocabulary: Vocabulary) -> tuple[str, ...]:
    bound = needed_pieces(vocabulary).bound
    if not bound:
        return ()
    return (
        f"{len(bound):,} pieces hold a character that is no piece of its own: they stay, but a word outside of the "
        "corpus with such a character may become [UNK]",
    )


def _told_of(
    source: ModelSource, counts: PieceCounts, ids: Sequence[int], at_least: int
) -> tuple[dict[str, Any], tuple[str, ...]]:
    rows, needed = source.config.vocab_size, needed_pieces(source.vocabulary)
    rare = counts.tokens - int(counts.pieces[list(ids)].sum())
    told: dict[str, Any] = {
        "rows": len(ids), "of": rows, "at_least": at_least, "special": len(needed.special),
        "characters": len(needed.characters), "texts": counts.texts, "tokens": counts.tokens, "unknown": counts.unknown,
        "rare_tokens": rare,
    }  # fmt: skip
    said = [
        f"corpus: {counts.texts:,} texts, {counts.tokens:,} tokens, {counts.unknown:,} of them [UNK]",
        f"rows of word embeddings: {len(ids):,} of {rows:,} kept, {rows - len(ids):,} taken out; "
        f"{len(needed.special):,} are special or added, {len(needed.characters):,} single characters",
    ]
    if rare:
        share = rare / counts.tokens
        said.append(f"{rare:,} tokens of the corpus ({share:.2%}) are of pieces taken out: others stand for them now")
    return told, tuple(said)


# ---- from the source to the folder ----


def prune(recipe: Recipe, request: PruneRequest, cut: Cut, display: Display) -> PruneReport:
    """The model `recipe.model.name` without what `cut` takes out, as the folder `request.output`.

    What is written is read back and scored from there before it is put in place. Raises UserError, with nothing left
    behind, where the source is no whole BERT, the output is taken, or a score that is asked for cannot be measured.
    """
    output = request.output.expanduser()
    _refuse_place(recipe.model.name, output, request.overwrite)
    model = _read(recipe, display)
    smaller = cut(model, display)
    before, unmeasured = _score_before(recipe, request, display)
    temporary = temporary_beside(output)
    try:
        temporary.mkdir(parents=True)
        sweep(output.parent)
        _write(temporary, model, smaller)
        after = _score(_with_own_vocabulary(recipe), temporary, request, display) if before else None
        report = PruneReport(
            folder=str(output),
            source=recipe.model.name,
            pruned=smaller.pruned,
            before=_size(model.source.config, model.weights),
            after=_size(smaller.config, smaller.weights),
            scores=_both(before, after) if before and after else None,
            unmeasured=unmeasured,
            said=smaller.said,
        )
        write_json(temporary / PRUNING, _description(report, model))
        replace_folder(temporary, output)
    except OSError as error:
        raise UserError(f"{output}: cannot be written: {error.strerror}", "choose another place") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return report


def _refuse_place(name: str, output: Path, overwrite: bool) -> None:
    """Raises UserError where something stands there that is not to be written over, or is the model itself."""
    refuse_hiding(name, output)
    if is_file(output):
        raise UserError(f"{output} is a file", "a model is a folder; choose another place with -o")
    if not exists(output) or (is_folder(output) and not os.listdir(output)):
        return
    own = Path(name).expanduser().resolve()
    if exists(own) and output.resolve() in (own, *own.parents):
        raise UserError(f"{output} holds the model itself", "choose another folder with -o")
    if not is_file(output / PRUNING):
        raise UserError(f"{output} is there already and is no pruned model", "choose another folder with -o")
    if not overwrite:
        raise UserError(f"{output} holds a pruned model already", "use --overwrite, or choose another folder with -o")


def _read(recipe: Recipe, display: Display) -> WholeModel:
    """Everything in the files; the encoder must be whole, of the configuration's shapes and finite."""
    start = supply(recipe, None, display.say)
    if start.random:
        raise UserError(f"{recipe.model.name} has no weights to begin with", "give the folder of a trained model")
    found = find_source(start.name, start.vocab, start.casing, ids_only=True)
    source = dataclasses.replace(found, name=recipe.model.name)
    if source.folder is None:
        raise UserError(f"{source.name} has no weights to begin with", "give the folder of a trained model")
    stored = read_raw(source.weights or source.folder)
    for warning in (*source.warnings, *stored.warnings):
        display.warn(warning)
    config, where = source.config, str(stored.path)
    weights = untied(stored.arrays, where)
    head = Head("encoder", config.hidden_size, (config.num_hidden_layers,))
    encoder = fit_weights(weights, config, head, recipe.seed, where).weights
    rest = {name: array for name, array in weights.items() if name not in encoder}
    for name in BY_VOCABULARY:
        if name in rest:
            rest[name] = unpadded(name, rest[name], (config.vocab_size,))[0]
    files = {path.name: sha256_file(path) for path in stored.shards or (stored.path,)}
    return WholeModel(source, encoder | rest, files)


def _write(folder: Path, model: WholeModel, smaller: SmallerModel) -> None:
    write_arrays(folder / "model.safetensors", smaller.weights, {"format": "pt"})
    write_json(folder / "config.json", config_keys(model.source, smaller))
    if smaller.vocabulary.has_words:
        write_vocabulary(folder / "vocab.txt", smaller.vocabulary, added=False)
        write_tokenizer(folder, smaller.config, smaller.vocabulary)
    if model.source.folder is None:
        return
    for name in COPIED:
        if is_file(path := model.source.folder / name):
            shutil.copyfile(path, folder / name)


def config_keys(source: ModelSource, smaller: SmallerModel) -> dict[str, Any]:
    """The source's `config.json` with the smaller sizes, and the numbers that its special pieces have now."""
    pad = smaller.vocabulary.special_ids["[PAD]"]
    head = Head("encoder", 1) if "architectures" in source.keys else _head_of(smaller.weights)
    keys = to_mapping(smaller.config, head, (), pad) | dict(source.keys)
    keys |= {"num_hidden_layers": smaller.config.num_hidden_layers, "vocab_size": smaller.config.vocab_size}
    halves = all(array.dtype == np.float16 for array in smaller.weights.values())
    keys |= {key: "float16" if halves else "float32" for key in ("torch_dtype", "dtype") if key in keys}
    if smaller.ids is not None:
        for key in [f"{name}_token_id" for name in TOKEN_IDS if keys.get(f"{name}_token_id") is not None]:
            old = keys.pop(key)
            keys |= {key: smaller.ids[old]} if type(old) is int and old in smaller.ids else {}
        keys["pad_token_id"] = pad
    return keys


def _head_of(weights: Mapping[str, np.ndarray]) -> Head:
    """For a configuration that names no architecture, as Google's."""
    if "classifier.weight" in weights:
        return Head("classification", len(weights["classifier.weight"]))
    if "qa_outputs.weight" in weights:
        return Head("span", 2)
    return Head("pretraining", 2) if "cls.predictions.bias" in weights else Head("encoder", 1)


def _size(config: ModelConfig, weights: Mapping[str, np.ndarray]) -> ModelSize:
    return ModelSize(
        layers=config.num_hidden_layers,
        vocabulary=config.vocab_size,
        parameters=sum(array.size for array in weights.values()),
        bytes=sum(array.nbytes for array in weights.values()),
    )


def _description(report: PruneReport, model: WholeModel) -> dict[str, Any]:
    """`pruning.json`, with that of the source, if it was pruned itself."""
    told = {"bertkit": __version__, **dataclasses.asdict(report), "source_sha256": dict(model.files)}
    del told["folder"], told["said"]
    earlier = model.source.folder / PRUNING if model.source.folder else None
    return told | ({"earlier": read_object(earlier)} if earlier and is_file(earlier) else {})


# ---- its scores ----


def _score_before(recipe: Recipe, request: PruneRequest, display: Display) -> tuple[dict[str, Any] | None, str]:
    """(the scores of the source, or why there are none). Raises UserError where they are asked for and cannot be."""
    if request.measure is False:
        return None, "--no-score"
    if not recipe.task and request.measure is None:
        return None, f"{recipe.model.name} does not state a task; name one with -t"
    try:
        return _score(recipe, Path(recipe.model.name).expanduser(), request, display), ""
    except UserError as error:
        if request.measure:
            raise
        return None, error.cause


def _score(recipe: Recipe, folder: Path, request: PruneRequest, display: Display) -> dict[str, Any]:
    model = dataclasses.replace(recipe.model, name=str(folder))
    return evaluate(dataclasses.replace(recipe, model=model), World(), display, request.force)


def _with_own_vocabulary(recipe: Recipe) -> Recipe:
    """One that was given is in the smaller model's folder, in its new form."""
    return dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, vocab=""))


def _both(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    same = {name: after[name] for name in ("task", "precision", "examples")}
    return {**same, "before": dict(before["metrics"]), "after": dict(after["metrics"])}
