"""What pyproject.toml cannot say: a wheel carries the pages of docs/ for `bertkit help`, whose text is there once."""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DOCS = Path(__file__).resolve().parent / "docs"
WITHIN = ("bertkit", "cli", "documents")  # where bertkit/cli/pages.py looks


class BuildWithPages(build_py):
    """Copies the pages beside the modules; an editable installation reads them in the checkout."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        pages = sorted(DOCS.rglob("*.md"))
        if DOCS / "README.md" not in pages:
            raise SystemExit(
                f"{DOCS} has no pages: `bertkit help` would have nothing to show; build from a whole checkout"
            )
        for page in pages:
            target = Path(self.build_lib, *WITHIN, page.relative_to(DOCS))
            self.mkpath(str(target.parent))
            self.copy_file(str(page), str(target))


setup(cmdclass={"build_py": BuildWithPages})
