"""The report of a run as one HTML page that loads nothing."""

from __future__ import annotations

from bertkit.comparison.report.reading import RunReport, task_name
from bertkit.errors import UserError
from bertkit.files.packaged import packaged_text


def to_html(made: RunReport) -> str:
    """The page. Raises UserError where what draws it is not installed."""
    try:
        from jinja2 import Environment
        from markupsafe import Markup

        from bertkit.comparison.report.plots import all_plots
    except ImportError as error:
        raise UserError(f"a report needs {error.name}", "pip install 'bertkit[report]'") from None
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        packaged_text("comparison", "report", "page.html")
    )
    facts = _facts(made)
    style = Markup(packaged_text("comparison", "style.html"))  # noqa: S704 - our own file
    return page.render(made=made, facts=facts, plots=all_plots(made), Markup=Markup, style=style)


def _facts(made: RunReport) -> dict[str, str]:
    record = made.record
    place = record["hardware"]
    return {
        "task": task_name(record),
        "model": str(record["model"]["name"]),
        "backend": f"{record['backend']['name']}, {record['precision']['name']}",
        "device": str((place.get("device") or {}).get("model") or place.get("cpu_model") or "unknown"),
        "updates": f"{record['updates']:,}",
        "started": str(record["started"])[:19],
    }
