import os
import re
import subprocess
import sys
from inspect import cleandoc
from pathlib import Path

from hairpin.config.load import known_keys
from hairpin.config.reference import fields_of, main, reference
from hairpin.config.settings import Config, Table

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "config.md"

# What a number in the settings can count or measure; a name or a description has one of these.
UNITS = re.compile(
    r"updates?\b|tokens?\b|fraction|share|passes|bytes|sequences|learning rate|norm\b|blocks|heads"
    r"|width|checkpoints|cycles|moment|seed|temperature",
    re.IGNORECASE,
)


def described_keys() -> list[tuple[str, dict[str, object]]]:
    """(dotted key, what the schema says of it) for every key."""
    tables: list[tuple[str, type[Table]]] = [("", Config)]
    for name, info in Config.model_fields.items():
        if isinstance(info.default, Table):
            tables.append((f"{name}.", type(info.default)))
    return [
        (prefix + key, field)
        for prefix, table in tables
        for key, field in fields_of(table).items()
        if "$ref" not in field
    ]


def test_the_page_in_docs_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "type: make docs"


def test_the_page_is_the_same_in_every_process(tmp_path: Path) -> None:
    path = tmp_path / "config.md"
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "hairpin.config.reference", str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        assert path.read_bytes() == reference().encode()


def test_without_a_path_the_page_goes_to_standard_output() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "hairpin.config.reference"], capture_output=True, check=True
    )
    assert completed.stdout.decode() == reference()


def test_every_key_is_a_row_with_its_meaning() -> None:
    assert [key for key, _ in described_keys()] == list(known_keys())
    rows = [line.split(" | ") for line in reference().splitlines() if line.startswith("| `")]
    meanings = {row[0].strip("| `"): row[-1].strip("| ") for row in rows}
    for key, field in described_keys():
        assert meanings[key] == field["description"]


def test_every_description_is_a_sentence() -> None:
    for key, field in described_keys():
        description = str(field["description"])
        assert description.endswith("."), f"{key}: {description}"
        assert description[0] == description[0].upper(), f"{key}: {description}"
        assert description == " ".join(description.split()), f"{key}: {description}"


def test_every_number_says_its_unit() -> None:
    for key, field in described_keys():
        if field["type"] in ("integer", "number"):
            assert UNITS.search(f"{field['description']}"), f"{key}: {field['description']}"


def test_every_table_says_what_it_is_about() -> None:
    for name, info in Config.model_fields.items():
        if isinstance(info.default, Table):
            words = cleandoc(type(info.default).__doc__ or "")
            assert words.endswith("."), name
            assert f"## `[{name}]`\n\n{words}\n" in reference()


def test_every_row_has_the_columns_of_its_table() -> None:
    columns = 0
    for before, line in zip(
        ["", *reference().splitlines()], reference().splitlines(), strict=False
    ):
        if line.startswith("|"):
            cells = len(re.findall(r"(?<!\\)\|", line))
            columns = columns if before.startswith("|") else cells
            assert cells == columns, line


def test_bounds_are_written_as_people_read_them() -> None:
    rows = {line.split("`")[1]: line for line in reference().splitlines() if line.startswith("| `")}
    for key, bounds in {
        "model.dropout": "0 to below 1",
        "schedule.peak_lr": "above 0 to 10",
        "model.context": "2 to 1,048,576",
        "train.updates": "1 to 10^15",
        "data.separator": "1 to 1,000 characters",
        "model.bias": "",
        "schedule.kind": "",
        "model.size": "",
    }.items():
        assert rows[key].split(" | ")[2].strip() == bounds, key
    assert " | `true` | " in rows["model.tied"]
    assert " | unset | " in rows["schedule.peak_lr"]


def test_main_writes_the_file(tmp_path: Path) -> None:
    main([str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_bytes().endswith(b"`schedule.warmup_updates` |\n")
