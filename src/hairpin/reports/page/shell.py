"""HTML page in a single file, which fetches nothing and runs no script but its own.

All of hairpin's pages go through `page`. The content security policy forbids every address (except
images inside the file), and every style and script but the two whose hashes it lists; a script may
not turn text into markup. So generated text stays text, whatever it contains.
"""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from hairpin.reports.page.markup import escape
from hairpin.system.version import __version__


def page(
    title: str, body_html: str, *, scripts: str = "", refresh_seconds: int | None = None
) -> str:
    """Return the page as HTML.

    Args:
        title: plain text, for the window's title.
        body_html: content of `main`, with the page's `h1` and without style attributes, which the
            policy would ignore.
        scripts: JavaScript, run after the page is loaded.
        refresh_seconds: how often the page reloads itself, keeping its scroll position; None:
            never.

    Raises:
        ValueError: `scripts` would end its own element.
    """
    live = ""
    if refresh_seconds is not None:
        live = _LIVE.format(seconds=refresh_seconds)
        scripts = asset("refresh.js") + scripts
    if scripts:
        scripts = '"use strict";\n' + scripts
    if "</script" in scripts.lower() or "<!--" in scripts:
        raise ValueError("a script has the end of its own element in it; write it as <\\/script")
    style = asset("page.css")
    return _PAGE.format(
        policy="; ".join(_policy(style, scripts)),
        again=f'<noscript><meta http-equiv="refresh" content="{refresh_seconds}"></noscript>\n'
        if refresh_seconds is not None
        else "",
        title=escape(title),
        style=style,
        live=live,
        body=body_html,
        version=__version__,
        script=f"<script>{scripts}</script>\n" if scripts else "",
    )


@cache
def asset(name: str) -> str:
    """Return the content of a file next to this one."""
    return files("hairpin.reports.page").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, scripts: str) -> list[str]:
    allowed = _hash(scripts) if scripts else "'none'"
    return [
        "default-src 'none'",
        f"script-src {allowed}",
        f"style-src {_hash(style)}",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]


def _hash(source: str) -> str:
    digest = hashlib.sha256(source.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_LIVE = """<div class="live" data-refresh="{seconds}">
<p>Not finished yet. This page reads itself again every {seconds} seconds.</p>
<button type="button" hidden>Pause</button>
</div>
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<link rel="icon" href="data:,">
{again}<title>{title}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
{live}<main id="main" tabindex="-1">
{body}
</main>
<footer><p>Made by hairpin {version}. Nothing on this page was or will be fetched.</p></footer>
{script}</body>
</html>
"""
