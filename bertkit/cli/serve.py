"""`bertkit serve`"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bertkit.cli import completion
from bertkit.cli import options as o
from bertkit.errors import UserError

BATCH = "evaluation.batch_size"  # sequences that are computed together
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]RUN...", help="Run folders; default names: the folders'.", show_default=False),
    ],
    task: o.TaskName = None,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            "--engine",
            help="Backend to run on: a name, an alias or auto; onnxruntime and openvino are those runtimes.",
            autocompletion=completion.backends,
            show_default=False,
        ),
    ] = None,
    dtype: o.Dtype = None,
    seq_length: o.SeqLength = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for a free one.")] = 8000,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, each bound to cores of its own.")] = 1,
    max_tokens: Annotated[
        int,
        typer.Option(
            "--max-tokens",
            min=0,
            help="Maximum tokens of a batch, without padding; 0: as many as take 50 ms, measured, from 512 to 4096.",
        ),
    ] = 0,
    max_sequences: Annotated[int, typer.Option("--max-sequences", min=1, help="Maximum sequences of a batch.")] = 64,
    max_request_tokens: Annotated[
        int, typer.Option("--max-request-tokens", min=1, help="Maximum tokens of a request.")
    ] = 65_536,
    max_body: Annotated[
        float, typer.Option("--max-body", min=0.001, max=1024, help="Maximum size of a request, in MiB.")
    ] = 4.0,
    queue: Annotated[
        int,
        typer.Option(
            "--queue", min=1, help="Maximum sequences that wait for a model; further requests get status 429."
        ),
    ] = 1024,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Time for a request, in seconds; then status 504.")
    ] = 30.0,
    watch: Annotated[bool, typer.Option("--watch", help="Load a run anew when its folder changes.")] = False,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Log the texts of requests, too.")] = False,
    sets: o.Sets = None,
    force: o.Force = False,
    offline: o.Offline = False,
    quiet: o.Quiet = False,
) -> None:
    """Serve trained models over HTTP.

    Speaks the Open Inference Protocol (KServe V2, Triton's) with JSON and binary tensors, plain JSON at /predict and
    /answer, and Prometheus' metrics; / is a page to try a model on. Requests are batched without padding. With the
    variable BERTKIT_API_KEY set, requests need that key. SIGTERM answers what waits, then ends.

    Examples:

      bertkit serve runs/mrpc -d bf16

      bertkit serve paraphrase=runs/mrpc runs/squad --port 9000 --workers 2

      bertkit serve runs/mrpc --engine onnxruntime -d int8

      curl localhost:8000/predict -d '{"text": "He left.", "text_pair": "He went away."}'
    """
    from bertkit.launch.serving import ServeOptions, find_server
    from bertkit.recipes.resolve import parse_set

    chosen = o.recipe_options(backend, dtype, None, None, None, None, seq_length, None, None, None, None)
    chosen |= {BATCH: max_sequences, "offline": True if offline else None}
    given = dict(parse_set(text) for text in sets or ())
    if BATCH in given:
        raise UserError(f"--set {BATCH} is --max-sequences here", "give that option")
    given |= {key: value for key, value in chosen.items() if value is not None}
    settings = {key: value for key, value in given.items() if value is not None}
    raise typer.Exit(
        find_server().serve(
            ServeOptions(
                runs=named_runs(runs),
                task=task,
                settings=settings,
                force=force,
                host=host,
                port=port,
                workers=workers,
                batch_tokens=max_tokens,
                request_tokens=max_request_tokens,
                queue=queue,
                body_bytes=int(max_body * (1 << 20)),
                timeout=timeout,
                watch=watch,
                log_texts=log_texts,
                quiet=quiet,
            )
        )
    )


def named_runs(runs: Sequence[str]) -> dict[str, str]:
    """Name -> folder. Raises UserError for a name that is none, or that two have."""
    found: dict[str, str] = {}
    for each in runs:
        name, equals, run = each.partition("=")
        if not equals or not _NAME.fullmatch(name):  # a folder's name may have = in it
            name, run = Path(each).expanduser().resolve().name, each
        if not _NAME.fullmatch(name):
            raise UserError(
                f"{name!r} cannot be a model's name", "name it, as in NAME=RUN, with letters, digits, . _ -"
            )
        if name in found:
            raise UserError(f"two runs are called {name}", "name one of them, as in NAME=RUN")
        found[name] = run
    both = next((name for name in found if f"{name}-text" in found), "")
    if both:
        raise UserError(f"{both}-text is what the texts of {both} are asked under", "name that run differently")
    return found
