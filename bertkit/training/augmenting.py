"""`bertkit data augment`: a training file with more examples, whose words a masked language model has replaced.

First every word of the file's different texts has its candidates computed, so that work which was ended is resumed;
then the file is written: each example, and behind it its copies, drawn from (seed, example, text) alone.

Source: Jiao et al. 2019, arXiv:1909.10351, algorithm 1.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.console import Display
from bertkit.data.augmentation.texts import Group
from bertkit.data.augmentation.variants import copies
from bertkit.files.disk import write_atomically
from bertkit.files.locks import alone_in
from bertkit.recipes.keywords import from_keywords
from bertkit.recipes.recipe import Value
from bertkit.recipes.resolve import resolve
from bertkit.training.augmenting_candidates import Candidates, find_candidates
from bertkit.training.augmenting_parts import CandidateParts, parts_folder
from bertkit.training.augmenting_work import Augmentation, AugmentationWork, prepare_work
from bertkit.training.run_task import run_settings


@dataclass(frozen=True)
class AugmentationReport:
    """What was written."""

    file: str
    examples: int  # of the input
    copies: int  # besides them
    unchanged: int  # examples without a copy
    words: int  # that have candidates
    kept_words: int  # of several pieces, which have none
    seconds: float


@dataclass
class _Counts:
    copies: int = 0
    unchanged: int = 0


def _groups(work: AugmentationWork, found: np.ndarray, counts: _Counts, display: Display) -> Iterator[Group]:
    candidates, way = Candidates(work, found), work.way
    with display.progress("writing examples", work.examples) as bar:
        for number, example in enumerate(work.source.examples()):
            words = [candidates.words(text, example) for text in example.texts]
            made = copies(example.texts, words, work.copies, way.share, f"{way.seed} {number}")
            counts.copies += len(made)
            counts.unchanged += not made
            yield example, made
            bar.add(1)


def augment_file(work: AugmentationWork, display: Display) -> AugmentationReport:
    """Write the augmented file, whole or not at all; what an earlier run of the same work has found is taken up.

    Raises UserError where there is unfinished work of another kind, unless it may be overwritten.
    """
    output = work.way.output
    started, folder, counts = time.monotonic(), parts_folder(output), _Counts()
    with alone_in(folder, "`data augment`"):
        parts = CandidateParts(folder, work.key, work.way.overwrite, display)
        found = find_candidates(work, parts, display)

        def write(place: Path) -> None:
            work.source.write(place, _groups(work, found, counts, display))

        write_atomically(output, write)
        parts.remove()
    with contextlib.suppress(OSError):  # one that an earlier run had made
        folder.rmdir()
    return AugmentationReport(
        file=str(output),
        examples=work.examples,
        copies=counts.copies,
        unchanged=counts.unchanged,
        words=work.table.counts[0],
        kept_words=work.kept_words,
        seconds=time.monotonic() - started,
    )


# ---- in Python ----


def augmentation_settings(model: str) -> dict[str, Value]:
    """The settings where nothing else is said. Of a run of pre-training its length: positions behind it were not
    trained. fp32: bf16 has so few digits that the batch size may change which words are the likeliest."""
    told = run_settings(model, known_only=False)
    return {"precision": "fp32"} | {key: told[key] for key in ("data.seq_length", "model.casing") if key in told}


def augment(
    file: str | Path,
    output: str | Path,
    model: str | Path,
    *,
    task: str | None = None,
    copies: int | None = None,
    share: float = 0.4,
    candidates: int = 15,
    masks: int = 1,
    seed: int = 1,
    vectors: str | Path | None = None,
    overwrite: bool = False,
    batch_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
    **keywords: Any,
) -> AugmentationReport:
    """As `bertkit data augment`: `text=`, `text_pair=`, `backend=`, `precision=`, `seq_length=` and other settings as
    keywords.

    Raises UserError where the file cannot be augmented or written, and where the model has no masked-word head.
    """
    chosen = from_keywords({**keywords, "model": str(model)}, settings, ("copies", "share", "candidates", "vectors"))
    chosen |= {"evaluation.batch_size": batch_size} if batch_size is not None else {}
    way = Augmentation(
        file=str(file),
        output=Path(output),
        task=task,
        copies=copies,
        share=share,
        candidates=candidates,
        masks=masks,
        seed=seed,
        vectors=None if vectors is None else Path(vectors),
        overwrite=overwrite,
    )
    display = Display(quiet=quiet)
    work = prepare_work(resolve(chosen, run=augmentation_settings(str(model))), way, display)
    return augment_file(work, display)
