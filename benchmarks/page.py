"""docs/benchmarks.md, made from the records in docs/records/: `python benchmarks/page.py` writes it anew.

Each folder there is a section: its about.toml has the title, a text, and the records to compare as `bertkit
compare` takes them; `tables` names those to show, where not all. A test holds that the page is what this makes.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.markdown import to_markdown
from bertkit.comparison.published import listing
from bertkit.comparison.runs import compare_runs
from bertkit.records.files import load_all

ROOT = Path(__file__).resolve().parents[1]
RECORDS, PAGE = ROOT / "docs" / "records", ROOT / "docs" / "benchmarks.md"
SHOWN = ("bertkit", "torch", "tensorflow", "jax", "python")  # of the versions
HEAD = """# Benchmarks

After this page you can repeat each measurement by its commands, put your own record beside it, and see which published
figures there are. `python benchmarks/page.py` makes its tables from the records in `docs/records/`: do not edit this
page, add a record. Accuracy next to another trainer is in docs/results.md, speed and what it is made
of in docs/performance.md.

To add a section, copy the `record.json` of runs, or files of `bertkit bench`, into a new folder of `docs/records/`,
write an `about.toml` as the others have, and make the page anew. Run from a clean checkout, with relative paths.
"""
PUBLISHED = """## Published figures of the reference systems

`bertkit compare runs/mine --published NAME` sets them beside a run, each with its source and what keeps it from being
compared. None was measured here.
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")


def page() -> str:
    folders = sorted(path.parent for path in RECORDS.glob("*/about.toml"))
    return "\n".join([HEAD, *(section(folder) for folder in folders), PUBLISHED, published(), ""])


def section(folder: Path) -> str:
    """Title, text, when and on what, the commands, and what `bertkit compare` says."""
    about = tomllib.loads((folder / "about.toml").read_text(encoding="utf-8"))
    words = [f"{name}={folder / file}" for name, _, file in (each.partition("=") for each in about["records"])]
    records = read(folder)
    parts = [
        f"## {about['title']}",
        about["text"].strip(),
        measured(records),
        "\n".join(["```sh", *dict.fromkeys(record["command"] for record in records), "```"]),
        tables(compare_runs(*words), about.get("tables", ())),
    ]
    return "\n\n".join(parts) + "\n"


def read(folder: Path) -> list[Mapping[str, Any]]:
    """The folder's records. Raises ValueError for one that was changed after it was written."""
    records = [record for path in sorted(folder.glob("*.json")) for record in load_all(path)]
    edited = [record.path.name for record in records if record.edited]
    if edited:
        raise ValueError(f"{folder}: edited: {', '.join(edited)}")
    return [record.mapping for record in records]


def measured(records: Sequence[Mapping[str, Any]]) -> str:
    """When, on what and with what, as the records say."""
    versions = {name: version for record in records for name, version in record["versions"].items()}
    shown = [f"{name} {versions[name]}" for name in SHOWN if versions.get(name)]
    commits = _several(record["git"]["commit"][:7] for record in records if record["git"])
    days = _several(record["started"][:10] for record in records)
    return (
        f"Measured {days} on {_several(map(_machine, records))}, with {', '.join(shown)}, commit {commits}. "
        f"Records: {len(records)}."
    )


def _machine(record: Mapping[str, Any]) -> str:
    hardware = record["hardware"]
    return f"{hardware['device']['model'] or hardware['cpu_model']} ({hardware['cores']} cores)"


def _several(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def tables(made: Comparison, wanted: Sequence[str]) -> str:
    """The report without its first heading, one level down; of its tables those wanted, or all."""
    first, *found = to_markdown(made).partition("\n")[2].split("\n## ")
    kept = [table for table in found if not wanted or table.partition("\n")[0] in wanted]
    lacking = set(wanted) - {table.partition("\n")[0] for table in kept}
    if lacking:
        raise ValueError(f"there is no table {', '.join(sorted(lacking))}")
    return re.sub(r"\n{3,}", "\n\n", "\n\n### ".join(part.strip() for part in (first, *kept)))


def published() -> str:
    rows = [("name", "machine", "figures", "tasks"), ("---", "---", "---:", "---")]
    rows += [(one.names[0], one.title.partition(";")[0], str(one.figures), ", ".join(one.tasks)) for one in listing()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    main()
