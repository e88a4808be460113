"""``bertkit data prepare``"""

from __future__ import annotations

import json
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.inputs import is_file
from bertkit.files.streams import put_json

if TYPE_CHECKING:
    from bertkit.console import Display
    from bertkit.data.pretraining.formats.manifest import Manifest
    from bertkit.data.pretraining.prepare.texts import InputFormat
    from bertkit.data.pretraining.prepare.work import Settings, Work
    from bertkit.distributed.workers import Workers
    from bertkit.distributed.world import World
    from bertkit.model.vocabulary import Vocabulary

FORMATS = ("parquet", "hdf5", "tfrecord")
MASKINGS = ("static", "dynamic")
INPUTS = ("auto", "raw", "wiki", "jsonl", "sentences")
CASINGS = ("auto", "cased", "uncased")

Sources = Annotated[
    list[Path],
    typer.Argument(
        metavar="SRC…", help="Text files or folders, also compressed (.gz, .bz2, .xz, .zst).", show_default=False
    ),
]
Inputs = Annotated[
    str, typer.Option("--input-format", help="Input format: raw, wiki, jsonl, sentences, or auto (detected per file).")
]


def prepare(
    sources: Sources,
    output: Annotated[Path, typer.Option("-o", "--output", help="Output folder for the shards.", show_default=False)],
    vocab: Annotated[Path, typer.Option("--vocab", help="Vocabulary (vocab.txt).", show_default=False)],
    seq_length: Annotated[int, typer.Option("-s", "--seq-length", help="Maximum sequence length in tokens.")] = 128,
    format: Annotated[
        str, typer.Option("--format", help="Output format: parquet (LDDL), hdf5 or tfrecord (Google).")
    ] = "parquet",
    masking: Annotated[
        str | None,
        typer.Option(
            "--masking",
            help="Masking: static, or dynamic (in training).",
            show_default="dynamic in Parquet, else static",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Random seed; the same seed gives identical files.")] = 1,
    input_format: Inputs = "auto",
    casing: Annotated[
        str, typer.Option("--casing", help="Casing: cased, uncased, or auto (by the vocabulary).")
    ] = "auto",
    no_nsp: Annotated[
        bool, typer.Option("--no-nsp", help="Make one segment per sequence, without next-sentence labels.")
    ] = False,
    whole_words: Annotated[bool, typer.Option("--whole-words", help="Mask whole words.")] = False,
    mask_share: Annotated[float, typer.Option("--mask-share", help="Share of tokens to mask.")] = 0.15,
    max_predictions: Annotated[
        int | None,
        typer.Option(
            "--max-predictions", help="Maximum masked tokens per sequence.", show_default="20 at 128 tokens, 80 at 512"
        ),
    ] = None,
    short_seq_prob: Annotated[
        float, typer.Option("--short-seq-prob", help="Share of documents cut into shorter sequences.")
    ] = 0.1,
    duplicate_factor: Annotated[
        int, typer.Option("--duplicate-factor", help="Passes over the corpus, with different masks and cuts.")
    ] = 5,
    bin_size: Annotated[
        int, typer.Option("--bin-size", help="Width of a length bin in tokens (Parquet only); 0: no bins.")
    ] = 0,
    shards: Annotated[
        int, typer.Option("--shards", help="Number of shards (per bin).", show_default="one per 32 MB of text")
    ] = 0,
    uncompressed: Annotated[
        bool, typer.Option("--uncompressed", help="Write HDF5 without gzip: larger, faster to read.")
    ] = False,
    workers: Annotated[
        int, typer.Option("--workers", help="Number of worker processes.", show_default="all cores")
    ] = 0,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="Run on the workers of a cluster: dask.", show_default=False)
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            help="Address of the cluster's scheduler, as tcp://host:8786, or its scheduler file.",
            show_default="from the cluster's configuration",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing shards in the output folder.")
    ] = False,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Prepare pre-training data from text. Repeat the command to resume an interrupted run."""
    from bertkit.data.pretraining.prepare.run import prepare as make
    from bertkit.data.pretraining.prepare.sources import find_sources
    from bertkit.data.pretraining.prepare.work import Settings, plan_work
    from bertkit.distributed.world import from_env

    read_as = input_format_of(input_format)
    made_for = Settings(
        _demand(format, FORMATS, "--format"),  # type: ignore[arg-type]
        seq_length,
        _demand(masking or ("dynamic" if format == "parquet" else "static"), MASKINGS, "--masking"),  # type: ignore[arg-type]
        not no_nsp,
        short_seq_prob,
        duplicate_factor,
        mask_share,
        max(1, seq_length * 20 // 128) if max_predictions is None else max_predictions,
        whole_words,
        bin_size,
        shards,
        seed,
        not uncompressed,
    )
    vocabulary = _vocabulary(vocab, casing)
    found = find_sources(sources, read_as)
    work = plan_work(made_for, vocabulary, found, output)
    world = from_env()
    show = _display(quiet or not world.is_first)
    show.say(_plan(work, made_for))
    with _workers(workers, cluster, address, world) as chosen:
        if cluster:
            show.say(chosen.describe())
        if dry_run:
            return
        started = time.monotonic()
        manifest = make(work, chosen, show, overwrite, world)
    if manifest is None:
        return
    seconds = time.monotonic() - started
    if as_json:
        summary = {name: value for name, value in asdict(manifest).items() if name not in ("sources", "shards")}
        put_json(json.dumps({**summary, "folder": str(output), "seconds": seconds}, indent=1))
    _tell(manifest, work, seconds, quiet)


def input_format_of(word: str) -> InputFormat | None:
    """None: by each file's start."""
    _demand(word, INPUTS, "--input-format")
    return None if word == "auto" else word  # type: ignore[return-value]


def _workers(count: int, cluster: str | None, address: str | None, world: World) -> AbstractContextManager[Workers]:
    """Raises UserError for options that contradict one another, and where there is no such cluster."""
    from bertkit.distributed.process_pool import Processes
    from bertkit.distributed.workers import find_cluster

    if cluster is None:
        if address is not None:
            raise UserError(f"--address {address} is of no cluster", "name its kind, as --cluster dask")
        return nullcontext(Processes(count or max(1, _cores() // world.local_size)))
    if count:
        raise UserError(f"--workers {count}: the workers of a cluster are started there", "drop --workers")
    if world.size > 1:
        raise UserError(
            f"{world.launcher} started {world.size} processes, and a cluster has workers of its own",
            "start the command once, or drop --cluster",
        )
    return find_cluster(cluster).connect(address)


def _demand(word: str, known: tuple[str, ...], option: str) -> str:
    if word not in known:
        raise UserError(f"{option} {word} is not known", f"choose {' or '.join(known)}")
    return word


def _vocabulary(path: Path, casing: str) -> Vocabulary:
    from bertkit.model.tokenizer_files import read_vocabulary
    from bertkit.model.vocabulary import casing_warning

    if not is_file(path):
        raise UserError(f"{path}: no vocabulary", "name a BERT's vocab.txt with --vocab")
    vocabulary = read_vocabulary(path, _demand(casing, CASINGS, "--casing"))  # type: ignore[arg-type]
    for said in (*vocabulary.warnings, casing_warning(vocabulary)):
        if said:
            typer.echo(f"warning: {said.replace('--set model.casing=', '--casing ')}", err=True)
    return vocabulary


def _display(quiet: bool) -> Display:
    from bertkit.console import Display

    return Display(quiet)


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plan(work: Work, settings: Settings) -> str:
    from bertkit.data.pretraining.prepare.sources import text_bytes

    formats: dict[str, int] = {}
    for source in work.sources:
        formats[source.format] = formats.get(source.format, 0) + 1
    text = text_bytes(work.sources) / 1e6
    files = ", ".join(f"{count} {name}" for name, count in sorted(formats.items()))
    bins = f" of {settings.bins} bins each" if settings.bin_size else ""
    return f"{text:,.1f} MB of text ({files}) into {work.shards} {settings.format} shards{bins} in {work.out}"


def _tell(manifest: Manifest, work: Work, seconds: float, quiet: bool) -> None:
    from bertkit.data.pretraining.prepare.sources import text_bytes

    if quiet:
        return
    text = text_bytes(work.sources) / 1e6
    said = [
        f"{manifest.documents:,} documents, {manifest.sentences:,} sentences, {manifest.tokens:,} word pieces",
        f"{manifest.sequences:,} sequences in {work.out} in {seconds:.1f} s ({text / seconds:.1f} MB/s)",
        *(f"{count:,} {what}" for what, count in manifest.notes.items()),
    ]
    typer.echo("\n".join(said), err=True)
