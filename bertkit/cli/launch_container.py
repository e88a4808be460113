"""`bertkit launch --container`: which options run in the container, which choose it, and which do not go with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from bertkit.errors import UserError
from bertkit.files.streams import put, put_json

if TYPE_CHECKING:
    from bertkit.cli.launch_options import LaunchOptions
    from bertkit.engine.registry import Choice
    from bertkit.launch.containers import Container
    from bertkit.launch.interface import LaunchPlan

# option -> (field, its default): given again to `bertkit launch` in the container
PASSED: dict[str, tuple[str, Any]] = {
    "--processes": ("processes", None),
    "--mpi-sockets": ("mpi_sockets", False),
    "--per-socket": ("per_socket", 1),
    "--numa": ("numa", False),
    "--nnodes": ("nnodes", None),
    "--node-rank": ("node_rank", None),
    "--master": ("master", ""),
    "--launcher": ("launcher", ""),
    "--threads": ("threads", "share"),
    "--reserve-cores": ("reserve_cores", 0),
    "--allocator": ("allocator", "auto"),
    "--oversubscribe": ("oversubscribe", False),
    "--interface": ("interface", ""),
    "--forward": ("forward", ()),
    "--port": ("port", 0),
    "--max-restarts": ("max_restarts", 0),
    "--grace": ("grace", 15.0),
    "--tag-output": ("tag_output", False),
    "--logs": ("logs", None),
}
REFUSED: dict[str, tuple[str, Any]] = {  # about other hosts, or another machine
    "--hosts": ("hosts", ""),
    "--hostfile": ("hostfile", None),
    "--ssh-port": ("ssh_port", 0),
    "--ssh-config": ("ssh_config", ""),
    "--topology": ("topology", None),
}
OUTSIDE = {  # choose the container, or what is done with it
    "command", "container", "container_engine", "container_options", "mounts", "shm_size", "dry_run", "json",
}  # fmt: skip
OF_SLURM = {"slurm", "submit", "nodes", "sbatch"}


def check_container(options: LaunchOptions) -> None:
    """Raises UserError for options of a container that do not go together, or have none."""
    from bertkit.launch.containers import BY_NAME

    about = {"--mount": options.mounts, "--shm-size": options.shm_size, "--container-engine": options.container_engine,
             "--container-option": options.container_options}  # fmt: skip
    if not options.container:
        if given := next((name for name, value in about.items() if value), ""):
            raise UserError(f"{given} without a container", "name the image with --container")
        return
    if options.slurm:
        if options.shm_size:
            raise UserError("--shm-size with --slurm: the container has the node's /dev/shm", "drop --shm-size")
        if options.container_engine in BY_NAME:
            raise UserError(f"Slurm starts no processes by {options.container_engine}", "choose apptainer or pyxis")
        if options.container_options and not by_apptainer(options):
            raise UserError("pyxis takes no further options here", "drop --container-option, or use an image in a .sif")
        return
    for name, (field, usual) in REFUSED.items():
        if getattr(options, field) != usual:
            raise UserError(
                f"{name} with --container: a container is started on this host alone",
                "drop it; for several hosts give --nnodes on each, or --slurm",
            )


def by_apptainer(options: LaunchOptions) -> bool:
    """Whether a batch script starts the image by apptainer: pyxis reads no .sif."""
    from bertkit.launch.containers import APPTAINER, FILE

    return options.container_engine == APPTAINER or (not options.container_engine and options.container.endswith(FILE))


def device_options(choice: Choice, engine: str, given: tuple[str, ...]) -> tuple[str, ...]:
    """Options of the backend by which a container has its devices. `given`: the user's own options.

    Raises UserError where they are not known and the user gives none.
    """
    from bertkit.engine.interface import ShowsDevices

    backend = choice.backend
    if not isinstance(backend, ShowsDevices):
        return ()
    try:
        return backend.container_options(engine)
    except UserError:
        if given:
            return ()
        raise


def inner_words(options: LaunchOptions) -> list[str]:
    """The words of bertkit in the container."""
    words = ["launch"]
    for name, (field, usual) in PASSED.items():
        value = getattr(options, field)
        if value == usual:
            continue
        for one in value if isinstance(value, tuple) else (value,):
            words += [name] if one is True else [name, str(one)]
    return [*words, "--", *options.command]


def launch_in_container(options: LaunchOptions, choice: Choice) -> int:
    """Show what would start the container, or become it. Returns for a dry run alone."""
    from bertkit.console import Display
    from bertkit.launch.containers import caller, plan_container, start
    from bertkit.launch.job import introduce

    display = Display()
    container = container_of(options, choice)
    made = plan_container(container, inner_words(options), caller(), elsewhere=options.dry_run)
    introduce(made, display)
    if not (container.devices or container.options) and choice.backend.probe().cards:
        display.warn(
            f"this host has devices of the backend {container.backend}, which does not say how a container is shown "
            "them; name them with --container-option"
        )
    if not options.dry_run:
        start(made, container, os.environ)
    _show(made, options.json)
    return 0


def container_of(options: LaunchOptions, choice: Choice) -> Container:
    from bertkit.launch.containers import Container, find_engine, forwarded

    engine = find_engine(options.container_engine, options.container, options.dry_run)
    return Container(
        image=options.container,
        engine=engine,
        backend=choice.backend.name,
        mounts=options.mounts,
        options=options.container_options,
        devices=device_options(choice, engine, options.container_options),
        shm_size=options.shm_size,
        forward=forwarded(choice.backend.capabilities.environment, options.forward, os.environ),
        network=(options.nnodes or 1) > 1,
    )


def _show(plan: LaunchPlan, as_json: bool) -> None:
    import shlex

    from bertkit.files.disk import to_json
    from bertkit.launch.job import to_mapping

    if as_json:
        put_json(to_json(to_mapping(plan), indent=2))
    else:
        put(" ".join([*(f"{name}={shlex.quote(value)}" for name, value in plan.env.items()), shlex.join(plan.argv)]))
