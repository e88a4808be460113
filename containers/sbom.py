"""A bill of materials in CycloneDX 1.5 from the report of `pip inspect`. Needs Python alone.

    pip inspect > inspect.json; python sbom.py inspect.json > sbom.cdx.json

Of the Python packages alone: what the base's distribution installed is in the base's own bill.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = "bertkit"


def bill(report: dict[str, Any]) -> dict[str, Any]:
    """The bill as JSON; components in the order of their names, so that the same packages give the same bytes."""
    packages = {normal(one["metadata"]["name"]): one["metadata"] for one in report["installed"]}
    environment = report["environment"]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(packages.get(ROOT, {"name": ROOT, "version": ""}), "application"),
            "properties": [
                {"name": "python", "value": environment["python_full_version"]},
                {"name": "machine", "value": environment["platform_machine"]},
            ],
        },
        "components": [component(packages[name]) for name in sorted(packages) if name != ROOT],
        "dependencies": [depends(packages[name], packages) for name in sorted(packages)],
    }


def component(metadata: dict[str, Any], kind: str = "library") -> dict[str, Any]:
    made = {
        "type": kind,
        "bom-ref": purl(metadata),
        "name": metadata["name"],
        "version": metadata["version"],
        "purl": purl(metadata),
    }
    if summary := metadata.get("summary"):
        made["description"] = summary
    if licence := metadata.get("license_expression"):
        made["licenses"] = [{"expression": licence}]
    elif licence := metadata.get("license"):
        made["licenses"] = [{"license": {"name": licence.strip().split("\n")[0][:200]}}]
    return made


def purl(metadata: dict[str, Any]) -> str:
    """The package's address (purl); the + of a local version is written %2B."""
    return f"pkg:pypi/{normal(metadata['name'])}@{metadata['version'].replace('+', '%2B')}"


def depends(metadata: dict[str, Any], packages: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What a package asks for and is there, extras included: pip does not tell which of them were asked for."""
    asked = {normal(found[0]) for one in metadata.get("requires_dist", ()) if (found := re.match(r"[\w.-]+", one))}
    return {
        "ref": purl(metadata),
        "dependsOn": [purl(packages[name]) for name in sorted(asked & packages.keys() - {normal(metadata["name"])})],
    }


def normal(name: str) -> str:
    """As PEP 503 has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    json.dump(bill(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), sys.stdout, indent=1)
