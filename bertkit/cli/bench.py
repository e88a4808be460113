"""``bertkit bench``: speed on real length distributions, for training and for inference."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.cli.bench_serve import serve
from bertkit.files.streams import put_json, writing

if TYPE_CHECKING:
    from bertkit.bench.suite import Kind

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Models = Annotated[
    str, typer.Option("-m", "--model", help="Models: sizes (tiny … large), folders or hub names; comma-separated.")
]
Dtypes = Annotated[str, typer.Option("-d", "--dtype", help="Precisions, or auto; comma-separated.")]
Batches = Annotated[str, typer.Option("-b", "--batch-size", help="Batch sizes per process; comma-separated.")]
Lengths = Annotated[
    str | None,
    typer.Option(
        "--lengths",
        help="Length distributions: mrpc, sst2, squad384, wiki128, wiki512 or fixed lengths; comma-separated.",
        show_default="mrpc",
    ),
]
Cut = Annotated[int | None, typer.Option("-s", "--seq-length", min=3, help="Maximum sequence length in tokens.")]
Task = Annotated[str | None, typer.Option("-t", "--task", help="Take the lengths from this task's data instead.")]
Steps = Annotated[int | None, typer.Option("--steps", min=2, help="Updates or calls per case, warm-up included.")]
Seconds = Annotated[
    float | None, typer.Option("--seconds", min=0.01, help="Approximate seconds per case.", show_default="20")
]
Record = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Record file to write.", show_default="runs/bench/KIND-TIME.json"),
]
Profile = Annotated[
    str,
    typer.Option(
        "--profile", metavar="CALLS", help="Write a Chrome trace of these calls of each case, as 20-22.",
        show_default=False,
    ),
]  # fmt: skip
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing record file.")]


@app.callback()
def suite(
    context: typer.Context,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Suite to run: squad-train, squad-infer, glue, all, or a TOML file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Only these models of the suite; comma-separated.")
    ] = None,
    dtype: Annotated[str | None, typer.Option("-d", "--dtype", help="Only these precisions; comma-separated.")] = None,
    batch_size: Annotated[
        str | None, typer.Option("-b", "--batch-size", help="Only these batch sizes; comma-separated.")
    ] = None,
    processes: Annotated[int, typer.Option("-n", "--processes", min=1, help="Processes per cell.")] = 1,
    backend: o.BackendName = None,
    steps: Steps = None,
    seconds: Seconds = None,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Time limit of a cell in seconds.")] = 1800.0,
    seed: o.Seed = None,
    sets: o.Sets = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Output folder for the records.", show_default="runs/bench/SUITE-BACKEND"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cells without measuring.")] = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int | None:
    """Measure speed on real length distributions, case by case, or a reference system's full grid with --suite.

    Each cell of a suite has its own process and record; a second call resumes with the cells that are missing. Out of
    memory and timeout are results too. docs/bench.md explains the output.

    Examples:

      bertkit bench --suite squad-train -m base -d bf16 --seconds 10

      bertkit bench --suite all --dry-run
    """
    from bertkit.errors import UserError

    if context.invoked_subcommand:
        if suite is not None:
            raise UserError(f"--suite and {context.invoked_subcommand}", "give one of them")
        return None
    if suite is None:
        raise UserError("neither a suite nor train, infer or serve", "name one, as in bertkit bench --suite glue")
    from bertkit.cli.bench_suite import SuiteOptions, run_suite

    return run_suite(
        SuiteOptions(
            suite, model, dtype, batch_size, processes, backend, steps, seconds, timeout, seed, tuple(sets or ()),
            output, dry_run, json_, quiet,
        )
    )  # fmt: skip


@app.command()
def train(
    model: Models = "base",
    dtype: Dtypes = "auto",
    batch_size: Batches = "32",
    lengths: Lengths = None,
    seq_length: Cut = None,
    task: Task = None,
    data_dir: o.DataDir = None,
    steps: Steps = None,
    seconds: Seconds = None,
    backend: o.BackendName = None,
    seed: o.Seed = None,
    sets: o.Sets = None,
    output: Record = None,
    overwrite: Overwrite = False,
    dry_run: o.DryRun = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Measure training: one case for each combination of the lists. Exit code 1 if a case is out of memory.

    Examples:

      bertkit bench train -m base,large -d bf16,fp32 -b 16,32 --lengths mrpc,squad384

      bertkit bench train -m models/minilm -t mrpc --data-dir data/glue -s 128 --steps 100 --json

      torchrun --nproc-per-node 2 -m bertkit bench train -m base --lengths wiki512 -b 8
    """
    return _bench(
        "train", model, dtype, batch_size, lengths, seq_length, task, data_dir, steps, seconds, backend, seed, sets,
        output, overwrite, dry_run, json_, quiet,
    )  # fmt: skip


@app.command()
def infer(
    model: Models = "base",
    dtype: Dtypes = "auto",
    batch_size: Batches = "1,32",
    lengths: Lengths = None,
    seq_length: Cut = None,
    task: Task = None,
    data_dir: o.DataDir = None,
    steps: Steps = None,
    seconds: Seconds = None,
    backend: o.BackendName = None,
    seed: o.Seed = None,
    sets: o.Sets = None,
    output: Record = None,
    overwrite: Overwrite = False,
    profile: Profile = "",
    dry_run: o.DryRun = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Measure inference: throughput and latency percentiles. Exit code 1 if a case is out of memory.

    --profile repeats some calls of each case after the measurement, which they are no part of, and writes a Chrome
    trace of each case beside the record.

    Examples:

      bertkit bench infer -m base -d bf16 -b 1,8,32 --lengths squad384

      bertkit bench infer -m runs/mrpc -t mrpc --data-dir data/glue -b 1 --steps 400 --json

      bertkit bench infer -m base -d bf16 -b 8 --lengths squad384 --profile 20-22
    """
    return _bench(
        "infer", model, dtype, batch_size, lengths, seq_length, task, data_dir, steps, seconds, backend, seed, sets,
        output, overwrite, dry_run, json_, quiet, profile,
    )  # fmt: skip


app.command("serve")(serve)


def _bench(
    kind: Kind, model: str, dtype: str, batch_size: str, lengths: str | None, seq_length: int | None,
    task: str | None, data_dir: str | None, steps: int | None, seconds: float | None, backend: str | None,
    seed: int | None, sets: list[str] | None, output: Path | None, overwrite: bool, dry_run: bool, as_json: bool,
    quiet: bool, profile: str = "",
) -> int:  # fmt: skip
    """Plan, measure, show. Returns the exit code."""
    import sys

    from bertkit.bench.measure import Amount
    from bertkit.bench.plan import Lists, check_sets, make_plan, split_list, whole_numbers
    from bertkit.bench.run import Bench, record_file
    from bertkit.bench.table import show
    from bertkit.console import Display
    from bertkit.distributed.world import from_env
    from bertkit.errors import UserError
    from bertkit.files.disk import to_json
    from bertkit.recipes.resolve import resolve
    from bertkit.training.callbacks.profiling import wanted

    if lengths is not None and task is not None:
        raise UserError("--lengths and -t exclude each other", "give one of them")
    if data_dir is not None and task is None:
        raise UserError("--data-dir without a task", "name the task with -t")
    if steps is not None and seconds is not None:
        raise UserError("--steps and --seconds exclude each other", "give one of them")
    check_sets(kind, sets or ())
    named = [] if task is not None else split_list("mrpc" if lengths is None else lengths, "--lengths")
    lists = Lists(split_list(model, "-m"), split_list(dtype, "-d"), named, whole_numbers(batch_size, "-b"))
    options = {"backend": backend, "task": task or "", "data.dir": data_dir, "data.seq_length": seq_length}
    resolved = resolve(options | {"seed": seed, "precision": "auto"}, sets or ())
    given = resolved.sources["data.seq_length"] != "default"
    world = from_env()
    display = Display(quiet=quiet or not world.is_first)

    def tell(what: str, done: int, of: int) -> None:
        if of > 20_000:  # less is over within two seconds
            display.say(f"{what}: {done:,} of {of:,}")

    target = record_file(kind, output, overwrite)
    calls = wanted(profile, "calls") if profile else None
    longest = resolved.recipe.data.seq_length if given else 0
    plan = make_plan(kind, lists, resolved.recipe, longest, tell, dry_run, display.say)
    if dry_run:
        display.say(f"backend: {plan.backend.name} ({plan.choice.reason})")
        for case in plan.cases:
            display.say(f"case: {case}")
        return 0
    bench = Bench(plan, Amount(steps or 0, seconds or 20.0), world, display, profile=calls)
    bench.check_traces(target, overwrite)
    made = bench.run(target)
    if world.is_first:
        if as_json:
            put_json(to_json(made))
        else:
            with writing():
                show(made, sys.stdout)
        display.say(f"record: {target}")
    return 1 if any(one["status"] != "measured" for one in made["records"]) else 0
