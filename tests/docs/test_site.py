"""The documentation site: it builds without a warning, holds every page, and asks nobody else for anything."""

import base64
import html
import inspect
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.server.chromium import PROGRAM, Page, chromium_page

ROOT = Path(__file__).parents[2]
# Asks the theme's search worker directly, in the frame that stands in for a worker on file:// pages, with the index
# that the page has loaded. Each step waits for its answer; typing into the field would race the theme's own start.
SEARCH = """
    (queries) => new Promise((found) => {
        const answers = [];
        const ask = () => worker.postMessage({ type: 2, data: queries[answers.length] });
        setTimeout(() => found(["no answer"]), 120_000);
        const config = JSON.parse(document.querySelector("#__config").textContent);
        const worker = new Worker(new URL(config.search, new URL(config.base, location)).href);
        worker.addEventListener("message", ({ data: { type, data } }) => {
            if (type === 3) answers.push(data.items.map((item) => item[0].location));
            if (answers.length === queries.length) found(answers);
            else if (type === 1 || type === 3) ask();
        });
        worker.postMessage({ type: 0, data: { ...__index, options: { suggest: false } } });
    })
"""
# What a reader types, and the page that must be among the first answers.
WANTED = {
    "faq": "faq.html",
    "troubleshooting": "troubleshooting.html",
    "windows": "platforms.html",
    "macos": "platforms.html",
    "pdf": "faq.html",
    "multilingual": "how-to/choose-a-model.html",
    "memory": "memory.html",
    "systemd": "how-to/deploy.html",
    "rescore": "how-to/shrink-vectors.html",
}
# What is wider than its place: the page itself, and code, whose end nobody would see.
TOO_WIDE = """
    Array.from(document.querySelectorAll("html, .md-content pre, .md-content pre > code"))
        .filter((element) => element.clientWidth > 0 && element.scrollWidth > element.clientWidth)
        .map((element) => `${element.tagName}: ${element.innerText.slice(0, 80)}`)
"""
# A table may be moved in its own box on a telephone. On a desktop nothing moves.
WIDE_TABLES = """
    Array.from(document.querySelectorAll(".md-typeset__scrollwrap"))
        .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.innerText.slice(0, 80))
"""
AT_ONCE = """
    addEventListener("DOMContentLoaded", () => {
        const style = document.createElement("style");
        style.textContent = "* { transition: none !important }";
        document.head.append(style);
    })
"""
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed (Debian: chromium)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Assets(HTMLParser):
    """What a page loads by itself, and the text of its navigation's links."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.linked: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "a":
            self.linked.add(values.get("href") or "")
        elif tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.loaded.append(values.get("src") or "")
        elif tag == "link" and values.get("rel") != "canonical":
            self.loaded.append(values.get("href") or "")


def test_every_page_is_in_the_navigation(site: Path) -> None:
    linked = Assets(site / "index.html").linked
    for page in sorted((ROOT / "docs").rglob("*.md")):
        address = page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        assert address in linked, f"docs/{page.name} is not in the nav of mkdocs.yml"


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        outside = [address for address in Assets(page).loaded if re.match(r"\w+:(?!image/)|//", address)]
        assert outside == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_the_reference_has_every_public_name_and_command(site: Path) -> None:
    import gte_sdk
    from gte_sdk.cli.commands import gte

    reference = "".join(page.read_text(encoding="utf-8") for page in sorted((site / "reference").glob("*.html")))
    for name in gte_sdk.__all__:
        if not name.startswith("_"):
            assert f'href="#gte_sdk.{name}"' in reference or f'href="#gte_sdk.errors.{name}"' in reference, name
    for command in gte.commands:
        assert f'id="{command}"' in reference or f'id="gte-{command}"' in reference, command


def text_of(page: Path) -> str:
    """The text of a page's article, with single spaces."""
    article = page.read_text(encoding="utf-8").partition("<article")[2].partition("</article>")[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<svg.*?</svg>|<[^>]+>", "", article, flags=re.DOTALL)))


def signature_in(text: str, name: str) -> str:
    """What stands between the brackets after the heading of `name`."""
    return text.partition(f"¶ {name}( ")[2].partition(") ->")[0] or text.partition(f"¶ {name}(")[2].partition(")")[0]


@pytest.mark.parametrize(("page", "public"), [("embedder", "Embedder"), ("index-class", "Index")])
def test_the_reference_shows_every_parameter_with_its_default(site: Path, page: str, public: str) -> None:
    import gte_sdk

    text = text_of(site / "reference" / f"{page}.html")
    checked = 0
    for name, member in vars(getattr(gte_sdk, public)).items():
        function = getattr(member, "__func__", member)
        if not inspect.isfunction(function) or (name.startswith("_") and name != "__init__"):
            continue
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            shown = signature_in(text, public if name == "__init__" else function.__name__)
            default = parameter.default
            pattern = rf"\b{parameter.name}: [^:]+" + ("" if default is parameter.empty else f" = {default!r}")
            assert re.search(pattern.replace("'", "[\"']"), shown), f"{public}.{name} shows {shown!r}: {parameter}"
            assert f" {parameter.name} (" in text, f"{public}.{name} does not list {parameter.name}"
            checked += 1
    assert checked > 10


def test_no_page_shows_a_name_that_means_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        assert "UNSET" not in page.read_text(encoding="utf-8"), page


def open_page(page: Page, file: Path) -> None:
    page.call("Page.navigate", url=file.as_uri())
    page.wait(f"document.URL === '{file.as_uri()}' && document.readyState === 'complete'")


@needs_chromium
def test_pages_and_search_work_from_the_disk(site: Path, tmp_path: Path) -> None:
    with chromium_page(tmp_path / "profile") as page:
        for address in ("index.html", "tutorial.html", "reference/embedder.html", "benchmarks.html"):
            open_page(page, site / address)
            assert page.run("document.querySelector('h1') !== null")
            page.wait("Array.from(document.images).every((image) => image.complete && image.naturalWidth > 0)")
            if folder := os.environ.get("GTE_SITE_PICTURES"):
                picture = base64.b64decode(page.call("Page.captureScreenshot")["data"])
                (Path(folder) / f"{address.replace('/', '-')}.png").write_bytes(picture)
        open_page(page, site / "index.html")
        answers = page.run(f"({SEARCH})({json.dumps(list(WANTED))})")
        for (query, wanted), found in zip(WANTED.items(), answers, strict=True):
            assert any(location.startswith(wanted) for location in found[:5]), (query, found)

        asked = [
            event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
        ]
        assert asked
        assert [address for address in asked if not address.startswith(("file:", "data:", "blob:"))] == []
        errors = [
            event
            for event in page.events
            if event["method"] == "Runtime.exceptionThrown"
            or (event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error")
        ]
        assert errors == []


@needs_chromium
def test_nothing_is_cut_off_on_a_desktop_or_a_telephone(site: Path, tmp_path: Path) -> None:
    with chromium_page(tmp_path / "profile") as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=AT_ONCE)
        page.call("Network.setBlockedURLs", urls=["*/search_index.js"])  # a third of the time
        for file in sorted(site.rglob("*.html")):
            open_page(page, file)
            for width in (1400, 400):
                page.call(
                    "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
                )
                assert page.run(TOO_WIDE) == [], (file.name, width)
                assert width < 1000 or page.run(WIDE_TABLES) == [], file.name
