import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
# What a browser fetches by itself, as against links that somebody follows.
_FETCHED = {"img", "script", "iframe", "source", "video", "audio", "embed", "object", "input"}
_FETCHING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch"}


class _Page(HTMLParser):
    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.ids: set[str] = set()
        self.classes: set[str] = set()
        self.styles = ""
        self._in_style = False
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        self.classes.update(given.get("class", "").split())
        self._in_style = tag == "style"
        self.styles += given.get("style", "")
        if tag in ("a", "form"):
            self.links += [given[name] for name in ("href", "action") if name in given]
        if tag in _FETCHED:
            names = ("src", "srcset", "data", "poster")
            self.fetched += [given[name] for name in names if name in given]
        if tag == "link" and set(given.get("rel", "").split()) & _FETCHING_LINKS:
            self.fetched.append(given.get("href", ""))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.styles += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(
        [*command, "--site-dir", str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, _Page]:
    return {path.relative_to(site).as_posix(): _Page(path) for path in site.rglob("*.html")}


def test_no_page_fetches_anything_from_another_host(pages: dict[str, _Page], site: Path) -> None:
    for name, page in pages.items():
        outside = [address for address in page.fetched if "//" in address]
        assert not outside, f"{name}: {outside}"
        assert not re.search(r"(url\(|@import)[^;]*//", page.styles), name
        assert "mermaid" not in page.classes, f"{name}: the theme fetches mermaid's diagrams"
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"""(url\(|@import\s)\s*["']?(https?:)?//""", text), style.name


def test_every_page_of_docs_is_built_and_stands_in_the_navigation(
    pages: dict[str, _Page], site: Path
) -> None:
    written = {path.with_suffix(".html").name for path in (ROOT / "docs").glob("*.md")}
    assert written <= set(pages)
    nav = re.search(
        r'<nav class="md-nav md-nav--primary".*?</nav>\s*</div>\s*</div>\s*</div>',
        (site / "api.html").read_text(encoding="utf-8"),
        re.DOTALL,
    )
    assert nav
    listed = set(re.findall(r'href="([^"#]+\.html)"', nav[0])) | {"api.html"}
    assert set(pages) - {"404.html"} <= listed


def test_links_between_pages_lead_to_what_is_there(pages: dict[str, _Page], site: Path) -> None:
    followed = 0
    for name, page in pages.items():
        if name == "404.html":  # served from anywhere, so its links begin at the root
            continue
        for address in page.links + page.fetched:
            parts = urlsplit(address)
            if parts.scheme or not (parts.path or parts.fragment):
                continue
            base = site / name
            path = (base.parent / unquote(parts.path)).resolve() if parts.path else base
            path = path / "index.html" if path.is_dir() else path
            assert path.is_file(), f"{name}: {address}"
            if parts.fragment and path.suffix == ".html":
                linked = pages[path.relative_to(site.resolve()).as_posix()]
                assert unquote(parts.fragment) in linked.ids, f"{name}: {address}"
            followed += 1
    assert followed > 500


def test_the_api_page_has_signatures_and_words(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    for word in ("train", "resume", "finetune", "load", "compare", "ScheduleLR", "SampleOrder"):
        assert word in text
    assert ":::" not in text
    assert "wall time such as" in text  # of train's `budget`


def test_lists_nest_as_on_github(site: Path) -> None:
    page = (site / "choices.html").read_text(encoding="utf-8")
    assert re.search(r"<li>(?:(?!</li>).)*<table", page, re.DOTALL), "a table inside an item"
    assert "| from (operations)" not in page
    text = re.sub(r"<[^>]+>", "", page)
    assert not re.search(r"\n?\d\. The (peak|number|curve)", text), "an item became text"
