"""`import bertkit`: its names are there, typed where they are, and cost nothing until they are used."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import subprocess
import sys
from types import ModuleType

import pytest

import bertkit
import bertkit.plugin
from conftest import ROOT

PROGRAM = """
import json, sys, time
before = time.process_time()
import bertkit
seconds = time.process_time() - before
print(json.dumps({"seconds": seconds, "loaded": sorted({name.split(".")[0] for name in sys.modules})}))
"""


def typed_imports(file: str) -> dict[str, tuple[str, str]]:
    """Public name -> (module behind `bertkit.`, name there), as the imports for types say."""
    tree = ast.parse((ROOT / "bertkit" / file).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: (str(node.module).removeprefix("bertkit."), alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_table_the_types_and_the_list_say_the_same() -> None:
    named = {name: (place, bertkit._OTHER_NAMES.get(name, name)) for name, place in bertkit._PLACES.items()}
    assert named == typed_imports("__init__.py")
    assert bertkit.__all__ == sorted(bertkit._PLACES, key=lambda name: (not name[0].isupper(), name))
    assert dir(bertkit) == sorted([*bertkit.__all__, "__version__"])


@pytest.mark.parametrize(("module", "file"), [(bertkit, "__init__.py"), (bertkit.plugin, "plugin.py")])
def test_public_names_are_imported_late_from_where_their_types_are(module: ModuleType, file: str) -> None:
    """The table of a lazy module, its imports for types, and `__all__` say the same."""
    typed = typed_imports(file)
    assert typed.keys() == set(module.__all__) == module._PLACES.keys()
    for public, (place, original) in typed.items():
        assert getattr(module, public) is getattr(importlib.import_module(f"bertkit.{place}"), original)


def test_every_name_is_there_and_says_what_it_is() -> None:
    for name in bertkit.__all__:
        assert inspect.getdoc(getattr(bertkit, name)), name


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(bertkit, "trian")


def test_import_is_light() -> None:
    def look() -> dict[str, object]:
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT)
        found: dict[str, object] = json.loads(done.stdout)
        return found

    looks = [look() for _ in range(3)]
    assert min(float(one["seconds"]) for one in looks) < 0.15, looks  # type: ignore[arg-type]
    own = set(looks[0]["loaded"]) - sys.stdlib_module_names  # type: ignore[call-overload]
    assert {"numpy", "torch", "pydantic", "rich", "tokenizers", "typer"}.isdisjoint(own)
