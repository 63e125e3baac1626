"""Prompts made from instructions by a template."""

import re

NAMES = ("{instruction}", "{input}")
_NAME = re.compile(r"\{[A-Za-z_]\w*\}")


def unknown_names(template: str) -> list[str]:
    """Return placeholders in the template that are not known names."""
    return [name for name in dict.fromkeys(_NAME.findall(template)) if name not in NAMES]


def render(template: str, instruction: str, input_text: str = "") -> str:
    """Return the template with both filled in.

    Args:
        template: text with `{instruction}` and perhaps `{input}`. Paragraphs are divided by an
            empty line; without an input those that mention it are left out.
        instruction: what to do.
        input_text: what to do it with; empty or blank: nothing.
    """
    paragraphs = template.split("\n\n")
    if not input_text.strip():
        paragraphs = _without_input(paragraphs)
    # One pass over the template, so that braces in the user's text are only text.
    text = "\n\n".join(paragraphs)
    before, *rest = text.split("{instruction}")
    filled = [before.replace("{input}", input_text)]
    for part in rest:
        filled += [instruction, part.replace("{input}", input_text)]
    return "".join(filled)


def _without_input(paragraphs: list[str]) -> list[str]:
    """Return the paragraphs that stay without an input; a template of one keeps its words."""
    kept = [part for part in paragraphs if "{input}" not in part or "{instruction}" in part]
    return [part.replace("{input}", "") for part in kept]
