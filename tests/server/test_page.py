"""The page at /: its files, and in a headless Chromium where one is installed, what a visitor does with it."""

import base64
import importlib.util
import os
import re
from pathlib import Path

import httpx
import pytest

from gte_sdk import Embedder
from gte_sdk.server import Settings

from .chromium import PROGRAM, Page, chromium_page
from .servers import served

needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed (Debian: chromium)")


def test_the_page_has_no_outside_assets(url: str) -> None:
    for path, media_type in (("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css")):
        answer = httpx.get(f"{url}{path}")
        assert answer.headers["content-type"] == f"{media_type}; charset=utf-8"
        assert "default-src 'self'" in answer.headers["content-security-policy"]
        assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")  # the name of SVG, not an address
        assert "innerHTML" not in answer.text


def test_swagger_ui_says_what_it_needs(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with served(embedder, Settings("gte-nano")) as url:
        answer = httpx.get(f"{url}/docs")
    assert answer.status_code == 404
    assert "pip install 'gte-sdk[swagger]'" in answer.json()["error"]["message"]


def test_swagger_ui_has_no_outside_assets(embedder: Embedder) -> None:
    pytest.importorskip("swagger_ui")
    with served(embedder, Settings("gte-nano", api_key="sesame")) as url:
        page = httpx.get(f"{url}/docs")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert [address for address in loaded if address != "data:,"] == [
            "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/swagger.js"
        ]  # fmt: skip
        for address in loaded[1:]:
            assert httpx.get(f"{url}/{address}").status_code == 200
        assert httpx.get(f"{url}/docs/swagger-editor.js").status_code == 401


@needs_chromium
def test_swagger_ui_shows_the_routes(embedder: Embedder, tmp_path: Path) -> None:
    pytest.importorskip("swagger_ui")
    with served(embedder, Settings("gte-nano")) as url, chromium_page(tmp_path / "profile") as page:
        page.call("Page.navigate", url=f"{url}/docs")
        page.wait("document.querySelectorAll('.opblock-summary-path').length > 5")
        assert "/v1/embeddings" in page.run("document.body.innerText")
        asked = [
            event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
        ]
        assert [address for address in asked if not address.startswith((url, "data:"))] == []
        errors = [event for event in page.events if event["method"] == "Runtime.exceptionThrown"]
        assert errors == []


@needs_chromium
def test_paste_search_and_see_the_map(url: str, tmp_path: Path) -> None:
    with chromium_page(tmp_path / "profile") as page:
        page.call("Page.navigate", url=f"{url}/")
        page.wait("document.querySelector('#model')?.textContent.startsWith('gte-mini: 384 dimensions')")
        page.run("document.querySelector('#texts').select()")
        pasted = ["The cat sleeps", "A dog barks", "Interest rates rose", "The bank lends money", "<b>bold</b>"]
        page.type_into("#texts", "\n".join(pasted))
        page.run("document.querySelector('#embed').focus()")
        page.press_enter()
        page.wait("document.querySelectorAll('#map circle').length === 5")
        assert page.run("document.querySelector('#state').textContent").startswith("5 texts, 384 dimensions")

        assert page.run("document.activeElement.id") == "embed"  # where the visitor was
        page.run("document.querySelector('#query').select()")
        page.type_into("#query", "kitten")
        page.press_enter()
        page.wait("document.querySelectorAll('#hits li').length === 5")
        assert page.run("document.querySelector('#hits li').lastChild.textContent") == "The cat sleeps"
        assert page.run("document.querySelector('#map .hit[data-index=\"0\"]') !== null")
        assert page.run("document.querySelectorAll('#map .query').length") == 1
        shown = page.run("Array.from(document.querySelectorAll('#hits li'), (hit) => hit.lastChild.textContent)")
        assert sorted(shown) == sorted(pasted)  # and what looks like HTML is shown as it is

        assert page.run("document.activeElement.id") == "query"
        # Alike lie together: each animal is nearer to the other than to any text about money.
        at = page.run(
            "Array.from(document.querySelectorAll('#map g circle'), (c) => [Number(c.getAttribute('cx')), "
            "Number(c.getAttribute('cy'))])"
        )
        distance = [[((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5 for b in at] for a in at]
        assert distance[2][3] < min(distance[0][2], distance[0][3], distance[1][2], distance[1][3])

        asked = [
            event["params"]["request"]["url"] for event in page.events if event["method"] == "Network.requestWillBeSent"
        ]
        assert asked
        assert all(address.startswith((url, "data:")) for address in asked)
        assert [
            event for event in page.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ] == []
        if picture := os.environ.get("GTE_PAGE_PICTURE"):
            Path(picture).write_bytes(base64.b64decode(page.call("Page.captureScreenshot")["data"]))


@needs_chromium
def test_the_page_asks_for_the_key_and_shows_refusals(embedder: Embedder, tmp_path: Path) -> None:
    settings = Settings("gte-mini", api_key="sesame", max_inputs=20)
    with served(embedder, settings) as url, chromium_page(tmp_path / "profile") as page:
        page.call("Page.navigate", url=f"{url}/")
        page.wait("document.querySelector('#key-row')?.hidden === false")
        page.type_into("#key", "sesame")
        page.run("document.querySelector('#embed').click()")
        page.wait("document.querySelectorAll('#map circle').length === 15")
        page.run("document.querySelector('#texts').select()")
        page.type_into("#texts", "\n".join(["red"] * 21))
        page.run("document.querySelector('#embed').click()")
        page.wait("document.querySelector('#state.failed') !== null")
        assert "at most 20" in page.run("document.querySelector('#state').textContent")


def overlaps(page: Page) -> list[list[str]]:
    """The labels of the map that cover another one or reach out of it."""
    boxes = page.run(
        "Array.from(document.querySelectorAll('#map text'), (t) => { const b = t.getBBox(); "
        "return [b.x, b.y, b.x + b.width, b.y + b.height, t.textContent]; })"
    )
    _, _, width, height = map(float, page.run("document.querySelector('#map').getAttribute('viewBox')").split())
    found = [[box[4]] for box in boxes if box[0] < -1 or box[1] < -1 or box[2] > width + 1 or box[3] > height + 3]
    pairs = [(a, b) for number, a in enumerate(boxes) for b in boxes[:number]]
    return found + [
        [a[4], b[4]]
        for a, b in pairs
        if min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 3
    ]


@needs_chromium
@pytest.mark.parametrize(("width", "theme"), [(1400, "light"), (1400, "dark"), (400, "light"), (400, "dark")])
def test_labels_do_not_overlap_and_are_as_large_on_a_telephone(
    url: str, tmp_path: Path, width: int, theme: str
) -> None:
    with chromium_page(tmp_path / "profile") as page:
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        page.call("Page.navigate", url=f"{url}/")
        page.wait("document.querySelector('#model')?.textContent.startsWith('gte-mini')")
        page.run("document.querySelector('#embed').click()")
        page.wait("document.querySelectorAll('#map circle').length === 15")
        page.run("document.querySelector('#search').click()")
        page.wait("document.querySelectorAll('#hits li').length > 0")
        assert page.run("document.querySelector('#hits li').lastChild.textContent").startswith("Refunds are paid")
        assert overlaps(page) == []
        labels = page.run("document.querySelectorAll('#map text').length")
        assert labels >= (14 if width == 1400 else 9)
        assert page.run("document.querySelectorAll('#map .hit text').length") >= (3 if width == 1400 else 2)
        scale = page.run("document.querySelector('#map').getScreenCTM().a")
        assert scale == pytest.approx(1, abs=0.02)
        assert page.run("document.documentElement.scrollWidth") <= width
        if folder := os.environ.get("GTE_PICTURES"):
            picture = page.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            Path(folder, f"page-{width}-{theme}.png").write_bytes(base64.b64decode(picture))
        # A window that changes its width gets a map of that width.
        page.call("Emulation.setDeviceMetricsOverride", width=700, height=900, deviceScaleFactor=1, mobile=False)
        page.wait("Math.abs(document.querySelector('#map').getScreenCTM().a - 1) < 0.02")
        assert overlaps(page) == []


@needs_chromium
def test_a_text_that_was_cut_says_so(embedder: Embedder, tmp_path: Path) -> None:
    with served(embedder, Settings("gte-mini")) as url, chromium_page(tmp_path / "profile") as page:
        page.call("Page.navigate", url=f"{url}/")
        page.wait("document.querySelector('#model')?.textContent.startsWith('gte-mini')")
        page.run("document.querySelector('#texts').select()")
        page.type_into("#texts", "a short text\n" + "long " * 600)
        page.run("document.querySelector('#embed').click()")
        page.wait("document.querySelectorAll('#map circle').length === 2")
        said = page.run("document.querySelector('#state').textContent")
        assert said.endswith("tokens that the model reads, so their ends were cut off: 2")
        page.run("document.querySelector('#search').click()")
        page.wait("document.querySelectorAll('#hits li').length === 2")
        notes = page.run("Array.from(document.querySelectorAll('#hits li'), (hit) => [hit.lastChild.textContent[0], "
                         "hit.querySelector('i')?.textContent ?? ''])")  # fmt: skip
        assert sorted(notes) == [["a", ""], ["l", "its end was cut off"]]


@needs_chromium
def test_a_server_that_was_stopped_is_said_in_words(embedder: Embedder, tmp_path: Path) -> None:
    with chromium_page(tmp_path / "profile") as page:
        with served(embedder, Settings("gte-mini")) as url:
            page.call("Page.navigate", url=f"{url}/")
            page.wait("document.querySelector('#model')?.textContent.startsWith('gte-mini')")
        page.run("document.querySelector('#embed').focus()")
        page.press_enter()
        page.wait("document.querySelector('#state.failed') !== null")
        assert page.run("document.querySelector('#state').textContent").startswith("The server does not answer.")
        assert page.run("document.activeElement.id") == "embed"
