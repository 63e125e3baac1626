"""HTML pages in single files, which fetch nothing and run no script but their own.

All of hairpin's pages are made by `page` from a file in `templates/`. The content security policy
forbids every address (except images inside the file), and every style and script but the two whose
hashes it lists; a script may not turn text into markup. What a template writes is escaped, so
generated text stays text, whatever it contains.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hairpin.reports.page.markup import data_script, escape
from hairpin.system.version import __version__

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent


def page(
    template: str,
    title: str,
    *,
    scripts: str = "",
    chart_data: dict[str, Any] | None = None,
    refresh_seconds: int | None = None,
    **values: Any,
) -> str:
    """Return a page as HTML.

    Args:
        template: a file in `templates/` that fills the blocks of `page.html`. Style attributes
            would be ignored because of the policy.
        title: of the window.
        scripts: JavaScript, run after the page is loaded.
        chart_data: what the scripts draw; None: nothing.
        refresh_seconds: how often the page reloads itself, keeping its scroll position; None:
            never.
        values: what the template writes. All text is escaped but `markupsafe.Markup`.

    Raises:
        ValueError: `scripts` would end its own element.
    """
    from markupsafe import Markup

    if refresh_seconds is not None:
        scripts = asset("refresh.js") + scripts
    if scripts:
        scripts = '"use strict";\n' + scripts
    if "</script" in scripts.lower() or "<!--" in scripts:
        raise ValueError("a script has the end of its own element in it; write it as <\\/script")
    style = asset("page.css")
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            policy=Markup("; ".join(_policy(style, scripts))),
            style=Markup(style),
            scripts=Markup(scripts),
            refresh_seconds=refresh_seconds,
            version=__version__,
            chart_data=Markup("" if chart_data is None else data_script("charts", chart_data)),
            **values,
        )
    )


@cache
def asset(name: str) -> str:
    """Return the content of a file next to this one."""
    return (_FOLDER / name).read_text(encoding="utf-8")


@cache
def _environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        finalize=_escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _escaped(value: Any) -> Any:
    """Escape a value as all pages do, before jinja2 would by its own rules."""
    from markupsafe import Markup

    return value if hasattr(value, "__html__") else Markup(escape(str(value)))


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
