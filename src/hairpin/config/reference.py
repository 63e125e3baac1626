"""docs/config.md, made from the settings' own types, bounds and descriptions.

    python -m hairpin.config.reference docs/config.md

reference() is a pure function of the code: the same code gives the same page.
"""

import json
import re
import sys
from collections.abc import Iterable, Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from hairpin.config.names import FOREIGN_NAMES
from hairpin.config.recipes import RECIPES, SIZES
from hairpin.config.settings import (
    Config,
    Data,
    Extension,
    Optimizer,
    Plugin,
    Schedule,
    Source,
    Table,
)
from hairpin.plugins.registry import BUILT_IN, KEYS, OPTIMIZERS

_INTRO = """\
# Settings

Made from the code by `make docs`; edit `src/hairpin/config/`, not this page.

Every setting has a place in a table, and is written in any of these ways, each of which overrides
those before it:

1. the default, as below;
2. a recipe: `--recipe simple`;
3. a TOML file: `--config mine.toml`;
4. the command itself: `--set train.updates=1000`, or for short `--train.updates 1000`, or one of
   the flags that `hairpin train --help` lists, such as `--updates 1000`.

No part of a command is ignored. If two parts disagree, such as `--updates 1000`
and `--set train.tokens=5000000`, it is refused with a line that names both; `--size` fills only
those dimensions that the command does not give.

*Unset* means that nothing is asked for: hairpin chooses, or does without, and the meaning says
which. What it chose is in the `config.toml` of the run, which says everything that a repeat needs:
`hairpin train --config RUN/config.toml`. Unknown keys, impossible values and contradictions are
refused, all of them at once."""

# Settings that are text for pydantic, and a name in a registry for people.
_REGISTRIES = {
    **{key: BUILT_IN[kind] for kind, key in KEYS.items()},
    "model.size": tuple(SIZES),
}
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "boolean": "`true` or `false`",
    "string": "text",
    "array": "list of texts",
}
_MIN_AS_POWER = 10**6
_OUR_NAME = re.compile(r"--\w+|\w+\.\w+")


def reference() -> str:
    """Return the page, as Markdown that ends with a newline."""
    tables = [name for name, info in Config.model_fields.items() if isinstance(info.default, Table)]
    plain = [name for name in Config.model_fields if name not in tables]
    sections = [
        _INTRO,
        "## At the top of the file",
        _keys(Config, plain),
        "### `[[plugins]]`",
        " ".join((Plugin.__doc__ or "").split()),
        _keys(Plugin, list(Plugin.model_fields)),
        *(section for name in tables for section in _table_section(name)),
        *_recipes(),
        *_sizes(),
        *_foreign_names(),
    ]
    return "\n\n".join(sections) + "\n"


def fields_of(table: type[Table]) -> dict[str, dict[str, Any]]:
    """Return key → its JSON Schema, without the alternative "not set"."""
    fields = {}
    for name, schema in table.model_json_schema()["properties"].items():
        set_ones = [kind for kind in schema.get("anyOf", ()) if kind["type"] != "null"]
        fields[name] = {**schema, **(set_ones[0] if set_ones else {})}
    return fields


def _table_section(name: str) -> Iterator[str]:
    table = type(Config.model_fields[name].default)
    yield f"## `[{name}]`"
    yield cleandoc(table.__doc__ or "")
    yield _keys(table, list(table.model_fields), f"{name}.")
    if table is Optimizer:
        yield "### `optimizer.kind`"
        yield _optimizers()
    if table is Schedule:
        yield f"### `[[{name}.extensions]]`"
        yield cleandoc(Extension.__doc__ or "")
        yield _keys(Extension, list(Extension.model_fields))
    if table is Data:
        yield f"### `[[{name}.sources]]`"
        yield cleandoc(Source.__doc__ or "")
        yield _keys(Source, list(Source.model_fields))


def _optimizers() -> str:
    """Return a table of the built-in optimizers."""
    heads = ("kind", "keys that it reads", "moments", "default `schedule.peak_lr`")
    rows = []
    for name, kind in OPTIMIZERS.items():
        moments = str(kind.moments)
        if kind.block_moments is not None:
            moments += f"; {kind.block_moments} of the matrices of blocks"
        keys = [key for key in Optimizer.model_fields if key in kind.settings]
        lr = f"`{kind.peak_lr:g}`" if kind.peak_lr else "by the width"
        rows.append((f"`{name}`", ", ".join(f"`{key}`" for key in keys), moments, lr))
    return _markdown_table(heads, rows)


def _keys(table: type[Table], names: Iterable[str], prefix: str = "") -> str:
    fields = fields_of(table)
    rows = [
        (
            f"`{prefix}{name}`",
            _type(prefix + name, fields[name]),
            _bounds(fields[name]),
            _default(fields[name]),
            fields[name]["description"],
        )
        for name in names
    ]
    return _markdown_table(("key", "type", "bounds", "default", "meaning"), rows)


def _type(key: str, field: dict[str, Any]) -> str:
    choices = _REGISTRIES.get(key) or field.get("enum")
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if "$ref" in field.get("items", {}):
        return "list of tables"
    return _TYPES[field["type"]]


def _bounds(field: dict[str, Any]) -> str:
    if "pattern" in field:
        return f"`{field['pattern']}`"
    if "minLength" in field:
        return f"{field['minLength']} to {_number(field['maxLength'])} characters"
    low = _bound(field, "minimum", "exclusiveMinimum", "above")
    high = _bound(field, "maximum", "exclusiveMaximum", "below")
    return " to ".join(bound for bound in (low, high) if bound)


def _bound(field: dict[str, Any], inclusive: str, exclusive: str, word: str) -> str:
    if inclusive in field:
        return _number(field[inclusive])
    return f"{word} {_number(field[exclusive])}" if exclusive in field else ""


def _number(value: float) -> str:
    """Format a bound for people: 65,536 or 10^15 or 0.5."""
    digits = str(int(value)) if value == int(value) else ""
    if value >= _MIN_AS_POWER and digits == "1" + "0" * (len(digits) - 1):
        return f"10^{len(digits) - 1}"
    return f"{int(value):,}" if digits else f"{value:g}"


def _default(field: dict[str, Any]) -> str:
    if "default" not in field:
        return "required"
    value = field["default"]
    if value is None or value == []:
        return "unset"
    if isinstance(value, str):
        return f"`{value}`".replace("\n", "\\n")
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _recipes() -> Iterator[str]:
    yield "## Recipes"
    yield "What `recipe` changes of the defaults above."
    rows = []
    for name, tables in RECIPES.items():
        changes = [
            f"`{table}.{key} = {json.dumps(value)}`"
            for table, values in tables.items()
            for key, value in values.items()
        ]
        rows.append((f"`{name}`", ", ".join(changes) or "nothing: these are the defaults"))
    yield _markdown_table(("recipe", "sets"), rows)


def _sizes() -> Iterator[str]:
    yield "## Sizes"
    yield "What `model.size` fills in where it is unset."
    columns = list(next(iter(SIZES.values())))
    rows = [(f"`{name}`", *(str(shape[key]) for key in columns)) for name, shape in SIZES.items()]
    yield _markdown_table(("size", *columns), rows)


def _foreign_names() -> Iterator[str]:
    yield "## Names from elsewhere"
    yield (
        "What other trainers call these settings. hairpin refuses the name and says its own, "
        "since units and meanings differ: `batch_size` counts sequences, "
        "`train.tokens_per_update` tokens."
    )
    rows = [
        (f"`{theirs}`", _OUR_NAME.sub(r"`\g<0>`", ours))
        for theirs, ours in sorted(FOREIGN_NAMES.items())
    ]
    yield _markdown_table(("elsewhere", "here"), rows)


def _markdown_table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def main(arguments: list[str]) -> None:
    """Write the page to the named file, or to standard output."""
    if arguments:
        Path(arguments[0]).write_text(reference(), encoding="utf-8", newline="\n")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
