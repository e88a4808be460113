"""The structure of `bertkit/` in figures: rooms, files, functions, import chains, class names that are there twice.

`python tests/structure.py` prints them; `tests/unit/test_structure.py` holds them.
"""

from __future__ import annotations

import ast
import functools
from collections import Counter
from collections.abc import Collection, Container
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Import:
    module: str  # dotted, as written
    line: int
    at_start: bool  # runs when the file is imported: not within a function nor under TYPE_CHECKING
    for_types: bool = False  # under TYPE_CHECKING


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
    trees = {
        module_name(path, ROOT): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))
    }
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
        chain=longest_chain({module: _needs(tree, trees.keys()) - {module} for module, tree in trees.items()}),
        homonyms=tuple(sorted(name for name, count in classes.items() if count > 1)),
        files=tuple(sorted(len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py"))),
        functions=tuple(sorted(functions)),
    )


def longest_chain(graph: dict[str, set[str]]) -> tuple[str, ...]:
    @functools.cache
    def below(name: str) -> tuple[str, ...]:
        return (name, *max((below(other) for other in graph[name]), key=len, default=()))

    return max((below(name) for name in graph), key=len)


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, known: Container[str]) -> tuple[Import, ...]:
    """Every import, those within functions too; `from package import module` counts as the module, if it is `known`."""
    found: list[Import] = []

    def visit(node: ast.AST, at_start: bool, for_types: bool = False) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, node.lineno, at_start, for_types) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.append(Import(whole if whole in known else str(node.module), node.lineno, at_start, for_types))
        for field, value in ast.iter_fields(node):
            types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and field == "body"
            quiet = types or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, at_start and not quiet, for_types or types)

    visit(tree, True)
    return tuple(found)


def _needs(tree: ast.Module, known: Collection[str]) -> set[str]:
    """The modules of `known` that are imported when this one is."""
    return {one.module for one in imports(tree, known) if one.at_start and one.module in known}


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
