"""The comparison as one HTML page that loads nothing: tables, what differs first, and plots."""

from __future__ import annotations

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.fairness import told
from bertkit.comparison.tables import all_tables
from bertkit.comparison.text import TITLES
from bertkit.errors import UserError
from bertkit.files.packaged import packaged_text

# what a table's title begins with -> plots below it
BESIDE = {
    "Results": ("losses",), "Score, size and latency": ("trade_off",), "Speed": ("throughput",),
    "Scaling": ("scaling",), "Time to accuracy": ("scores",),
}  # fmt: skip


def to_html(made: Comparison) -> str:
    """The page. Raises UserError where what draws it is not installed."""
    try:
        from jinja2 import Environment
        from markupsafe import Markup

        from bertkit.comparison.plots import all_plots
    except ImportError as error:
        raise UserError(f"--html needs {error.name}", "pip install 'bertkit[report]'") from None
    template = packaged_text("comparison", "page.html")
    plots = all_plots(made)
    sections = [
        (table, [plots.pop(name) for name in _plots_of(table.title) if name in plots]) for table in all_tables(made)
    ]
    groups = [(weight, title, of_it) for weight, title in TITLES.items() if (of_it := told(made.differences, weight))]
    page = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template)
    style = Markup(packaged_text("comparison", "style.html"))  # noqa: S704 - our own file
    rest = list(plots.values())
    return page.render(made=made, groups=groups, sections=sections, rest=rest, Markup=Markup, style=style)


def _plots_of(title: str) -> tuple[str, ...]:
    return next((plots for begin, plots in BESIDE.items() if title.startswith(begin)), ())
