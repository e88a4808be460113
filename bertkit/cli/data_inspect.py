"""``bertkit data inspect``"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.inputs import is_file
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.data.pretraining.inspection import Inspection
    from bertkit.model.vocabulary import Vocabulary

BAR = 40  # characters of the histogram's longest bar


def inspect(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of shards, or one shard.")],
    vocab: Annotated[
        Path | None,
        typer.Option(
            "--vocab", help="Vocabulary (vocab.txt); required for Parquet.", show_default="(next to the shards)"
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option("--eval", help="Evaluation shards, to detect overlap with FOLDER.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="Number of sequences to show as text.")] = 3,
    as_json: o.Json = False,
) -> None:
    """Inspect pre-training data: lengths, masks, duplicates, order and faults."""
    from bertkit.console import Display
    from bertkit.data.pretraining.dataset import open_data
    from bertkit.data.pretraining.inspection import inspect as look
    from bertkit.files.disk import to_json

    beside = (place / "vocab.txt" for place in (folder, folder.parent))
    vocab = vocab or next((path for path in beside if is_file(path)), None)
    vocabulary = _vocabulary(vocab) if vocab else None
    data = open_data(folder, vocabulary)
    held = open_data(evaluation, vocabulary) if evaluation else None
    found = look(data, held, vocabulary, samples, Display().follow())
    if as_json:
        put_json(to_json(asdict(found), indent=1))
    else:
        put("\n".join(_lines(found)))


def _vocabulary(path: Path) -> Vocabulary:
    from bertkit.model.tokenizer_files import read_vocabulary

    if not is_file(path):
        raise UserError(f"{path}: no vocabulary", "name the vocab.txt that the data was made with")
    return read_vocabulary(path)


def _lines(found: Inspection) -> list[str]:
    binned = {bin: count for bin, count in found.bins.items() if bin >= 0}
    said = [
        f"{found.sequences:,} sequences in {found.shards} {found.format} shards"
        f" of {found.smallest_shard:,} to {found.largest_shard:,}",
        f"{found.tokens:,} tokens, {found.mean_length:.1f} a sequence, {found.longest} at the most",
    ]
    if found.looked_at < found.sequences:
        said.append(f"looked at {found.looked_at:,} sequences, in shards from first to last")
    said += [f"bin {bin}: {count:,} sequences" for bin, count in binned.items()]
    highest = max(count for _, count in found.histogram)
    said += ["", "lengths"]
    said += [f"{most:>6} {count:>11,} {'#' * round(BAR * count / highest)}" for most, count in found.histogram]
    next_sentence = f"{found.random_next:.1%} random" if found.random_next is not None else "none"
    said += ["", f"next sentence   {next_sentence}", f"masks           {_masks(found)}"]
    said.append(f"duplicates      {found.doubled:.2%} of the sequences, {found.doubled_between:.2%} between shards")
    said.append(f"text            each run of it stands there {found.text_repeats:.2f} times")
    said += [f"order           {line}" for line in _order(found)]
    if found.eval_text is not None:
        said.append(f"eval in train   {found.eval_sequences:.2%} of its sequences, {found.eval_text:.2%} of its text")
    said += [f"\n{sample.next_sentence}: {sample.text}" for sample in found.samples]
    said += ["", *(f"look into: {complaint}" for complaint in found.complaints)] if found.complaints else []
    return said


def _masks(found: Inspection) -> str:
    masks = found.masks
    if masks is None:
        return "none: left to training" if found.format == "parquet" else "not known without --vocab"
    shown = f"{masks.shown_mask:.1%} as [MASK], {masks.shown_same:.1%} as they were, {masks.shown_random:.1%} random"
    return f"{masks.share:.2%} of the tokens, up to {masks.most} a sequence; {shown}"


def _order(found: Inspection) -> list[str]:
    kin = found.kinship
    if kin is None:
        return ["too few sequences to tell"]
    said = [
        f"rare pieces in common: {kin.neighbours:.1%} of neighbours, {kin.near:.1%} of those 10 apart,"
        f" {kin.random:.1%} at random: {kin.ratio:.2f} times (shuffled: 1)"
    ]
    if kin.shard_ratio is not None:
        said.append(f"{kin.other_shards:.1%} between shards: {kin.shard_ratio:.2f} times (well mixed: 1)")
    return said
