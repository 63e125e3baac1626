"""The prompt that an instruction becomes."""

import re

NAMES = ("{instruction}", "{input}")
_NAME = re.compile(r"\{[A-Za-z_]\w*\}")


def unknown_names(template: str) -> list[str]:
    """Return what looks like a name to be filled in, and is none."""
    return [name for name in dict.fromkeys(_NAME.findall(template)) if name not in NAMES]


def render(template: str, instruction: str, input_text: str = "") -> str:
    """The template with both filled in.

    Args:
        template: text with `{instruction}` and perhaps `{input}`. Paragraphs are divided by an
            empty line; without an input those that mention it are left out.
        instruction: what to do.
        input_text: what to do it with; empty or blank: nothing.
    """
    paragraphs = template.split("\n\n")
    if not input_text.strip():
        paragraphs = _without_input(paragraphs)
    # One pass over the template, so that braces in somebody's text are only text.
    text = "\n\n".join(paragraphs)
    before, *rest = text.split("{instruction}")
    filled = [before.replace("{input}", input_text)]
    for part in rest:
        filled += [instruction, part.replace("{input}", input_text)]
    return "".join(filled)


def _without_input(paragraphs: list[str]) -> list[str]:
    """The paragraphs that stay where there is no input; a template of one keeps its words."""
    kept = [part for part in paragraphs if "{input}" not in part or "{instruction}" in part]
    return [part.replace("{input}", "") for part in kept]
