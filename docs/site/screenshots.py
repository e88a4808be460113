"""Make the pictures of the report's and the comparison's page: `python docs/site/screenshots.py FOLDER`.

FOLDER is what docs/tutorials/first-run.md leaves, with runs/first and runs/second. Needs a Chromium and
`pip install -e '.[docs-test,report]'`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from PIL import Image

from browser import open_browser, serving

PICTURES = Path(__file__).resolve().parents[1] / "pictures"
LIMIT = 100_000  # bytes of a picture; the repository keeps every one that there ever was
COLOURS = 64
SIZE = {"width": 1000, "height": 700}
PAGES = {
    "report": ("report", "runs/first", "-o", "report.html", "--overwrite"),
    "compare": ("compare", "runs/first", "runs/second", "--html", "compare.html"),
}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("folder", type=Path)
    folder = words.parse_args().folder.resolve()
    for command in PAGES.values():
        subprocess.run(
            [sys.executable, "-P", "-m", "bertkit", *command], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
    PICTURES.mkdir(exist_ok=True)
    with serving(folder) as address, open_browser() as browser:
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        for name in PAGES:
            page.goto(f"{address}{name}.html")
            page.screenshot(path=PICTURES / f"{name}.png")
    return max(_shrink(PICTURES / f"{name}.png") for name in PAGES)


def _shrink(path: Path) -> int:
    """Few colours, so that the file is small; 1 where it still is not."""
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size:,} bytes")
    if size > LIMIT:
        print(f"screenshots.py: {path} is over {LIMIT:,} bytes; take fewer colours", file=sys.stderr)
    return int(size > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
