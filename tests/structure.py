"""The structure of `bertkit/` in figures: rooms, files, functions, import chains, class names that are there twice.

`python tests/structure.py` prints them; `tests/unit/test_structure.py` holds them.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Structure:
    modules: tuple[str, ...]  # directly in bertkit/
    packages: tuple[str, ...]
    chain: tuple[str, ...]  # the longest of modules that import one another when they are imported
    homonyms: tuple[str, ...]  # public classes of more than one module
    files: tuple[int, ...]  # lines of each file, in ascending order
    functions: tuple[tuple[int, str], ...]  # lines of each and where it is, in ascending order; commands left out

    def file_lines(self, share: float) -> int:
        """The length that this share of the files has at the most."""
        return self.files[int(share * (len(self.files) - 1))]

    def function_lines(self, share: float) -> int:
        return self.functions[int(share * (len(self.functions) - 1))][0]


def structure(folder: Path = ROOT / "bertkit") -> Structure:
    trees = {_name(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}
    classes = Counter(
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    functions = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{module}.{node.name}")
        for module, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_command(node, module)
    ]
    return Structure(
        modules=tuple(sorted(path.name for path in folder.glob("*.py"))),
        packages=tuple(sorted(path.parent.name for path in folder.glob("*/__init__.py"))),
        chain=longest_chain({module: set(_imports(tree, trees)) - {module} for module, tree in trees.items()}),
        homonyms=tuple(sorted(name for name, count in classes.items() if count > 1)),
        files=tuple(sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py"))),
        functions=tuple(sorted(functions)),
    )


def longest_chain(graph: dict[str, set[str]]) -> tuple[str, ...]:
    @functools.cache
    def below(name: str) -> tuple[str, ...]:
        return (name, *max((below(other) for other in graph[name]), key=len, default=()))

    return max((below(name) for name in graph), key=len)


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(tree: ast.Module, known: dict[str, ast.Module]) -> Iterator[str]:
    """The modules of `known` that are imported when this one is."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in known or node.module in known:
                    yield whole if whole in known else str(node.module)


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef, module: str) -> bool:
    """Whether most of a function is options of the command line: it is as long as they are many."""
    return module.startswith("bertkit.cli.") and len(node.args.args) + len(node.args.kwonlyargs) > 8


def main() -> None:
    found = structure()
    print(f"bertkit/: {len(found.modules)} modules, {len(found.packages)} packages")
    print(
        f"files: {len(found.files)}; lines p50 {found.file_lines(0.5)}, p90 {found.file_lines(0.9)}, {found.files[-1]}"
    )
    lines, place = found.functions[-1]
    print(f"functions: p50 {found.function_lines(0.5)}, p90 {found.function_lines(0.9)}, longest {lines} ({place})")
    print(f"longest import chain: {len(found.chain)}: {' > '.join(found.chain)}")
    print(f"public class names in more than one module: {len(found.homonyms)}: {', '.join(found.homonyms)}")


if __name__ == "__main__":
    main()
