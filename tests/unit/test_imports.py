"""Who may import whom, read from the sources with `ast`, and which files may name a vendor."""

from __future__ import annotations

import ast
import functools
import io
import os
import re
import subprocess
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import structure
from structure import Import, module_name

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ROOT / "backends"
SHARED = {"bertkit_torch", "bertkit_tensorflow", "bertkit_jax"}  # engines that belong to no vendor
VENDORS = sorted({path.name for path in BACKENDS.glob("bertkit_*") if path.is_dir()} - SHARED)
FRAMEWORK_FREE = set(
    """IPython google_crc32c h5py huggingface_hub jinja2 markupsafe matplotlib mlflow mwparserfromhell numpy optuna
    pyarrow pydantic rich safetensors scipy sklearn tensorboard tokenizers typer wandb""".split()
)
FOR_TASKS = {"Columns", "Split"}  # of the façade: what a package of tasks may need, and no plug-in here does
FRAMEWORKS = {"torch", "tensorflow", "transformers", "jax"}
# packages of others that one vendor alone may import
VENDORS_OWN = {
    "bertkit_cpu": {"intel_extension_for_pytorch", "oneccl_bindings_for_pytorch"},
    "bertkit_cuda": {"apex", "flash_attn", "transformer_engine", "pynvml", "triton"},
    "bertkit_gaudi": {"habana_frameworks", "optimum"},
    "bertkit_iluvatar": {"ixformer", "ixpylib", "apex", "flash_attn", "pynvml", "triton"},
    "bertkit_null": set[str](),
}

# From the bottom up: a module imports from its own room and from those below it. A module directly in `bertkit/` is a
# room of its own.
ROOMS = (
    "version errors console files distributed launch model engine data recipes records plugin training conformance "
    "comparison bench cli __main__ bertkit"
).split()


def python_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


MODULES = {module_name(path, ROOT): path for path in python_files(ROOT / "bertkit")}


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Every import of a file, as `structure.imports` reads it."""
    return structure.imports(ast.parse(path.read_text(encoding="utf-8")), MODULES)


def breaches(folder: Path, allowed: set[str], at_start_only: bool = False) -> list[str]:
    """`file:line: package` of every import of a package that is neither Python's own nor allowed."""
    return [
        f"{path.relative_to(ROOT)}:{one.line}: {one.module}"
        for path in python_files(folder)
        for one in imports(path)
        if one.module.split(".")[0] not in allowed | sys.stdlib_module_names and (one.at_start or not at_start_only)
    ]


def test_the_reader_of_imports_sees_what_it_should(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text(
        "from __future__ import annotations\nimport os.path as p\n"
        "from bertkit.files import disk\nfrom bertkit import __version__\n"
        "if TYPE_CHECKING:\n    import torch\n"
        "try:\n    import numpy\nexcept ImportError:\n    pass\n"
        "def f():\n    from scipy import stats\nclass C:\n    import json\n"
    )
    seen = {(one.module, one.at_start) for one in imports(source)}
    assert seen == {
        ("__future__", True), ("os.path", True), ("bertkit.files.disk", True), ("bertkit", True), ("torch", False),
        ("numpy", True), ("scipy", False), ("json", True),
    }  # fmt: skip


def test_the_core_imports_no_framework_and_no_plug_in() -> None:
    assert breaches(ROOT / "bertkit", FRAMEWORK_FREE | {"bertkit"}) == []


def test_the_core_imports_nothing_by_a_name_in_a_string() -> None:
    calls = re.compile(r"\b(import_module|__import__|find_spec|exec)\s*\(")
    found = [name for name, path in MODULES.items() if calls.search(path.read_text(encoding="utf-8"))]
    assert found == ["bertkit", "bertkit.plugin"], "save for public names, whose tables are held by tests"


def test_the_torch_engine_imports_no_vendor() -> None:
    assert breaches(BACKENDS / "bertkit_torch", {"bertkit", "bertkit_torch", "torch", "numpy", "scipy"}) == []


@pytest.mark.parametrize("framework", ["tensorflow", "jax"])
def test_an_engine_of_another_framework_imports_no_torch(framework: str) -> None:
    own = f"bertkit_{framework}"
    assert breaches(BACKENDS / own, {"bertkit", own, framework, "numpy"}) == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_vendor_imports_no_other_vendor(vendor: str) -> None:
    own = VENDORS_OWN.get(vendor, set())
    allowed = {"bertkit", *SHARED, vendor, "torch", "numpy", *own}
    if vendor == "bertkit_null":
        allowed -= {*SHARED, "torch"}
    assert breaches(BACKENDS / vendor, allowed) == []
    text = "\n".join(path.read_text(encoding="utf-8") for path in python_files(BACKENDS / vendor))
    by_string = set(re.findall(r"""["'](\w+)(?:\.\w+)*["']""", text))
    others = set().union(*(names for other, names in VENDORS_OWN.items() if other != vendor)) - own
    assert by_string & (others | {name for name in VENDORS if name != vendor}) == set()


@pytest.mark.parametrize("vendor", [*VENDORS, "bertkit_tensorflow", "bertkit_jax"])
def test_a_card_imports_no_framework(vendor: str) -> None:
    seen: set[Path] = set()
    queue = [BACKENDS / vendor / "__init__.py"]
    while queue:
        path = queue.pop()
        seen.add(path)
        for one in (one for one in imports(path) if one.at_start):
            assert one.module.split(".")[0] not in FRAMEWORKS | VENDORS_OWN.get(vendor, set()), f"{path}:{one.line}"
            base = BACKENDS.joinpath(*one.module.split("."))
            files = {base.with_suffix(".py"), base / "__init__.py"}
            queue += [file for file in files if file.exists() and file not in seen]


PLUGINS = [path for root in ("backends", "deployment", "launchers", "examples") for path in python_files(ROOT / root)]


def test_plug_ins_import_from_the_facade_alone() -> None:
    """What a backend, a launcher or a collective needs of the core is in `bertkit.plugin`, and the checks for tests."""
    allowed = {"bertkit", "bertkit.plugin", "bertkit.conformance"}
    found = [f"{path}:{one.line}: {one.module}" for path in PLUGINS for one in imports(path)]
    assert [
        each for each in found if (name := each.split()[-1]).split(".")[0] == "bertkit" and name not in allowed
    ] == []


def test_the_facade_has_what_plug_ins_use_and_nothing_else() -> None:
    import bertkit.plugin

    assert all(hasattr(bertkit.plugin, name) for name in bertkit.plugin.__all__)
    used = {
        alias.name
        for path in PLUGINS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "bertkit.plugin"
        for alias in node.names
    }
    assert set(bertkit.plugin.__all__) == used | FOR_TASKS


def test_launchers_import_no_backend() -> None:
    own = {path.name for path in (ROOT / "launchers").glob("bertkit_*")}
    assert breaches(ROOT / "launchers", {"bertkit", "dask", "distributed", "mpi4py", "numpy", *own}) == []
    for name in own - {"bertkit_dask"}:
        assert breaches(ROOT / "launchers" / name, {"bertkit", "mpi4py", "numpy", name}) == []


def test_the_server_imports_no_framework_and_no_backend() -> None:
    allowed = {"bertkit", "bertkit_serve", "h11", "numpy", "prometheus_client", "starlette", "uvicorn"}
    assert breaches(ROOT / "deployment" / "bertkit_serve", allowed) == []


# What a package of formats may import, its own and the core apart
FORMATS = {
    "bertkit_huggingface": {"numpy", "safetensors", "torch", "transformers"},
    "bertkit_onnx": {"numpy", "onnx", "onnxruntime", "openvino"},
    "bertkit_triton": {
        "answering", "bertkit_onnx", "google", "numpy", "onnx", "tokenizers", "tritonclient",
        "triton_python_backend_utils",
    },
}  # fmt: skip
AT_WORK = {"torch", "tensorflow", "transformers", "onnx", "onnxruntime", "openvino", "tritonclient", "google"}


def test_formats_import_no_backend_and_none_anothers_packages() -> None:
    assert {path.name for path in (ROOT / "deployment").glob("bertkit_*")} == {*FORMATS, "bertkit_serve"}
    for name, allowed in FORMATS.items():
        assert breaches(ROOT / "deployment" / name, {"bertkit", name, *allowed}) == []


def test_what_is_copied_into_a_repository_imports_nothing_of_ours() -> None:
    for name in ("answering", "text_model"):
        found = {one.module.split(".")[0] for one in imports(ROOT / "deployment" / "bertkit_triton" / f"{name}.py")}
        assert found - sys.stdlib_module_names <= {"answering", "numpy", "tokenizers", "triton_python_backend_utils"}


def test_a_format_imports_no_framework_before_it_is_used() -> None:
    points = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    modules = [value.partition(":")[0] for value in points["bertkit.exports"].values()]
    assert len(modules) >= 6
    code = f"import sys, {', '.join(modules)}; print(sorted({AT_WORK!r} & sys.modules.keys()))"
    folders = os.pathsep.join(str(ROOT / name) for name in (".", "backends", "deployment"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": folders},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"


def room(module: str) -> str:
    """The part of a module's name behind `bertkit`."""
    return module.split(".")[1] if "." in module else module


def test_every_room_has_its_place() -> None:
    assert {room(name) for name in MODULES} == set(ROOMS), "put a new room into ROOMS, take one that is gone out of it"


@pytest.mark.parametrize("name", ROOMS)
def test_a_room_imports_from_none_above_it(name: str) -> None:
    above = [
        f"{module}:{one.line}: {one.module}"
        for module, path in MODULES.items()
        if room(module) == name
        for one in imports(path)
        if one.module in MODULES and ROOMS.index(room(one.module)) > ROOMS.index(name)
    ]
    assert above == []


def test_there_are_no_import_cycles() -> None:
    """Imports for types alone are held to it too; those within a function only where they leave the room."""
    graph = {
        name: {
            one.module
            for one in imports(path)
            if one.module in MODULES and one.module != name and (one.at_start or one.for_types)
        }
        for name, path in MODULES.items()
    }
    while leaves := {name for name, needs in graph.items() if not needs & graph.keys()}:
        graph = {name: needs for name, needs in graph.items() if name not in leaves}
    assert graph == {}, "these import one another"


VENDOR_WORDS = re.compile(r"(?<![a-z])(cuda|nvidia|nccl|hpu|habana|gaudi|hccl|iluvatar|corex|ipex)(?![a-z])", re.I)
NAMES_ALLOWED = {
    ("bertkit/model/tokenizer.py", "nvidia"),
    ("bertkit/model/loading.py", "nvidia"),
}
# What others published, ran or typed is told under their names: packaged data, and what reads old command lines; and
# the folder that writes for Triton is of one vendor's server.
TELL_OF_VENDORS = re.compile(
    r"(bertkit/(.+\.toml|(.+/)?(migrate|migration|published)\w*(\.py|/.*))|deployment/bertkit_triton/.*)$"
)


def words_named(path: Path) -> Iterator[tuple[str, str, int]]:
    """(file, vendor's word, line) in code, strings and docstrings; comments are left out."""
    text = path.read_text(encoding="utf-8")
    lines: list[tuple[int, str]] = list(enumerate(text.split("\n"), 1))
    if path.suffix == ".py":
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        lines = [(token.start[0], token.string) for token in tokens if token.type != tokenize.COMMENT]
    for line, part in lines:
        for found in VENDOR_WORDS.finditer(part):
            yield path.relative_to(ROOT).as_posix(), found[1].lower(), line


def test_no_file_outside_the_backends_names_a_vendor() -> None:
    folders = [ROOT / name for name in ("bertkit", "launchers", "deployment", "benchmarks")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".toml")]
    assert len(files) > 50
    named = [found for path in sorted(files) for found in words_named(path)]
    mine = [found for found in named if not TELL_OF_VENDORS.match(found[0])]
    assert [found for found in mine if found[:2] not in NAMES_ALLOWED] == []


def test_mypy_checks_every_plug_in() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["packages"]
    packages = {
        path.parent.name
        for root in ("backends", "deployment", "launchers", "examples/*")
        for path in ROOT.glob(f"{root}/bertkit_*/__init__.py")
    }
    assert packages | {"bertkit"} == set(listed)
