"""The documentation's site as `make docs` builds it: no broken link, nothing from elsewhere, looked at in a browser."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import bertkit
from bertkit.recipes.recipe import KEYS
from conftest import ROOT, command_env

SITE = ROOT / "docs" / "site"
NEEDED = ("sphinx", "myst_parser", "furo", "sphinx_copybutton")
MISSING = [name for name in NEEDED if find_spec(name) is None]
LOOKED_AT = ("index.html", "tutorials/first-run.html", "reference/commands/train.html")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed (extra docs): {', '.join(MISSING)}"),
]


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        target = found.get("href") or found.get("src")
        if target is not None:
            (self.links if tag == "a" else self.loaded).append(target)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built anew."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-P", str(SITE / "build.py"), "-o", str(folder)]
    env = command_env(folder.parent) | {"PYTHONPATH": str(SITE)}  # -P leaves the script's own folder out
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def parsed(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_internal_link_leads_somewhere(site: Path, parsed: dict[Path, Page]) -> None:
    broken, followed = [], 0
    for path, page in parsed.items():
        for target in (*page.links, *page.loaded):
            parts = urlsplit(target)
            if parts.scheme:
                continue
            followed += 1
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            place = unquote(parts.fragment)
            if not file.is_file() or (place and file in parsed and place not in parsed[file].places):
                broken.append(f"{path.relative_to(site)}: {target}")
    assert broken == []
    assert followed > 5000  # they were found at all


def test_nothing_is_loaded_from_elsewhere(site: Path, parsed: dict[Path, Page]) -> None:
    assert {
        target for page in parsed.values() for target in page.loaded if urlsplit(target).scheme not in ("", "data")
    } == set()
    for path in site.rglob("*.css"):
        assert re.findall(r"""(?:url\(|@import\s*)['"]?(?:https?:)?//""", path.read_text(encoding="utf-8")) == [], path


def test_every_page_command_setting_and_name_is_there(site: Path, parsed: dict[Path, Page]) -> None:
    pages = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert [
        page for page in pages if page.name != "README.md" and not (site / page).with_suffix(".html").is_file()
    ] == []
    settings = (site / "reference" / "settings.html").read_text(encoding="utf-8")
    assert [key for key in KEYS if f">{key}<" not in settings] == []
    names = parsed[site / "reference" / "python-api.html"].places
    assert [name for name in bertkit.__all__ if f"bertkit.{name}" not in names] == []


def test_broken_links_fail_the_build(tmp_path: Path) -> None:
    planted = ["[there is none](missing.md)", "[no such place](index.md#nowhere)", "{doc}`missing`"]
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "index.md").write_text("# Index\n\n" + "\n\n".join(planted) + "\n", encoding="utf-8")
    program = (
        "import sys; from pathlib import Path; from build import build; sys.exit(build(Path('sources'), Path('site')))"
    )
    env = command_env(tmp_path) | {"PYTHONPATH": str(SITE)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    assert sorted(set(re.findall(r"index\.md:(\d+): WARNING", done.stderr))) == ["3", "5", "7"], done.stderr


@pytest.fixture(scope="module")
def visit(site: Path) -> Iterator[Any]:
    """(browser, the site's address)"""
    pytest.importorskip("playwright", reason="playwright is not installed (extra docs-test)")
    from playwright.sync_api import Error

    sys.path.insert(0, str(SITE))
    try:
        from browser import open_browser, serving
    finally:
        sys.path.remove(str(SITE))
    try:
        with serving(site) as address, open_browser() as browser:
            yield browser, address
    except Error as error:
        if "Executable doesn't exist" not in str(error):
            raise
        pytest.skip("no Chromium here: install one, or name it with CHROMIUM")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_pages_fit_and_load_without_an_error(width: int, scheme: str, visit: Any) -> None:
    browser, address = visit
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # One that is given up is no failure: the page was left while its icon was on the way.
    page.on("requestfailed", lambda request: request.failure == "net::ERR_ABORTED" or wrong.append(request.url))
    page.on("request", lambda request: None if request.url.startswith(address) else wrong.append(request.url))
    for name in LOOKED_AT:
        page.goto(address + name)
        assert page.locator("h1").first.is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
        shade = page.evaluate("getComputedStyle(document.body).backgroundColor")
        red = int(re.findall(r"\d+", shade)[0])
        assert red < 64 if scheme == "dark" else red > 192, shade
    page.close()
    assert wrong == []


def test_search_finds_a_page_without_a_network(visit: Any) -> None:
    browser, address = visit
    page = browser.new_page()
    page.goto(f"{address}search.html?q=micro-batch")
    found = page.locator("#search-results li a").first
    found.wait_for()
    targets = page.eval_on_selector_all("#search-results li a", "all => all.map(one => one.getAttribute('href'))")
    page.close()
    assert any(target.startswith("concepts/batches.html") for target in targets), targets
    page = browser.new_page()
    page.goto(f"{address}search.html?q=xyzzyplugh")
    page.wait_for_function("document.querySelector('.search-summary')?.textContent.includes('did not match')")
    page.close()
