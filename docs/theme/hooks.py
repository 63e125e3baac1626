"""What docs/ needs to be a site: pages of files that it links to, lists as GitHub reads them."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_LANGUAGES = {".py": "python", ".sh": "sh"}
_ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md")
_OUTWARDS = re.compile(r"\]\(\.\./([^)#\s]+)")
_MARKER = re.compile(r"([-*]|\d+\.) +")
_FENCE = re.compile(r" *```")


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file or folder outside docs/ that a page of docs/ links to."""
    root = Path(config.config_file_path).parent
    linked = set(_ROOT_PAGES)
    for file in files.documentation_pages():
        linked.update(_OUTWARDS.findall(file.content_string))
    for name in sorted(linked):
        if (root / name).exists():
            page = File.generated(config, page_of(name), content=_content(root, name))
            files.append(page)
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to those pages, and nest lists as GitHub does."""
    led = _OUTWARDS.sub(lambda link: f"]({page_of(link[1])}", markdown)
    return nested_by_four(led)


def page_of(name: str) -> str:
    """The page of a file or folder of the repository: `examples/a.md` of `examples/a.py`."""
    page = Path(name.rstrip("/")).with_suffix(".md").as_posix()
    return page.lower() if name in _ROOT_PAGES else page


def _content(root: Path, name: str) -> str:
    path = root / name
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8").replace("](docs/", "](")
        return re.sub(rf"\]\(({'|'.join(_ROOT_PAGES)})", lambda m: f"]({page_of(m[1])}", text)
    shown = sorted(path.iterdir()) if path.is_dir() else [path]
    parts = [f"# {name.rstrip('/')}"]
    for file in shown:
        if file.suffix in _LANGUAGES:
            title = f"## {file.name}\n\n" if path.is_dir() else ""
            text = file.read_text(encoding="utf-8").rstrip("\n")
            parts.append(f"{title}````{_LANGUAGES[file.suffix]}\n{text}\n````")
    return "\n\n".join(parts) + "\n"


def nested_by_four(markdown: str) -> str:
    """What belongs to a list item is indented as far as its text; Python-Markdown wants four, and
    an empty line between an item of several paragraphs and the next.
    """
    lines: list[str] = []
    width, fenced, several = 0, False, False
    for line in markdown.splitlines():
        indented = len(line) - len(line.lstrip())
        if not fenced and (marker := _MARKER.match(line)):
            if several and lines[-1].strip():
                lines.append("")
            width, several = marker.end(), False
        elif line.strip() and indented < width and not fenced and lines and not lines[-1].strip():
            width = 0
        if _FENCE.match(line):
            fenced = not fenced
        inside = width and indented >= width and line.strip()
        several = several or bool(inside and not lines[-1].strip())
        lines.append(" " * (4 - width) + line if inside and width < 4 else line)
    return "\n".join(lines) + "\n"
