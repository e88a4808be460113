"""Build the documentation's site: `python docs/site/build.py`. A broken link or reference is an error.

Needs `pip install -e '.[docs]'` and no network. The site is build/site/index.html.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")


def build(sources: Path, output: Path) -> int:
    """Build the site of these sources; another exit code than 0 where anything is broken."""
    from sphinx.cmd.build import build_main

    strict = ["--fail-on-warning", "--nitpicky", "--fresh-env", "--quiet"]
    return build_main(["-b", "html", *strict, "-c", str(HERE), "-d", f"{output}-cache", str(sources), str(output)])


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument(
        "-o", "--output", type=Path, default=HERE.parents[1] / "build" / "site", help="the site's folder"
    )
    output = words.parse_args().output.resolve()
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        print(f"build.py: {', '.join(missing)} missing; pip install -c constraints.txt -e '.[docs]'", file=sys.stderr)
        return 2
    from staging import stage

    sources = output.with_name(f"{output.name}-sources")
    stage(sources)
    shutil.rmtree(output, ignore_errors=True)  # of pages that there are no more
    code = build(sources, output)
    if code == 0:
        print(output / "index.html")
    return code


if __name__ == "__main__":
    sys.exit(main())
