import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hairpin.config.checks import schedule_of
from hairpin.config.durations import parse_duration
from hairpin.config.load import (
    build_config,
    known_keys,
    parse_override,
    to_toml,
    to_tree,
    validate,
    with_values,
)
from hairpin.config.names import FOREIGN_NAMES
from hairpin.config.recipes import RECIPES, SIZES
from hairpin.config.reference import fields_of
from hairpin.config.settings import Config, Table
from hairpin.errors import ConfigError
from hairpin.plugins import registry as plugins
from hairpin.schedules.curves import CURVES, Schedule

KEYS = list(known_keys())
# A key may have the name of another trainer's setting only at another place.
OURS = {theirs: ours for theirs, ours in FOREIGN_NAMES.items() if ours in KEYS}


def problems_of(*overrides: str, file: Path | None = None, **flags: Any) -> list[str]:
    """The lines of the ConfigError that these settings give."""
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    with pytest.raises(ConfigError) as caught:
        build_config(file=file, overrides=overrides, flags=dotted)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def written(tmp_path: Path, toml: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(toml, encoding="utf-8")
    return path


# --- where a value comes from ---


def test_each_place_overrides_those_before_it(tmp_path: Path) -> None:
    file = written(tmp_path, 'recipe = "simple"\n[optimizer]\nbeta1 = 0.5\nbeta2 = 0.5')
    assert build_config().optimizer.beta2 == 0.95
    assert build_config(flags={"recipe": "simple"}).optimizer.beta2 == 0.999
    assert build_config(file=file).optimizer.beta2 == 0.5
    assert build_config(file=file, overrides=["optimizer.beta2=0.6"]).optimizer.beta2 == 0.6
    built = build_config(file=file, flags={"optimizer.beta2": 0.7})
    assert built.optimizer.beta2 == 0.7
    assert (built.optimizer.beta1, built.optimizer.epsilon) == (0.5, 1e-8)
    assert built.clip.kind == "off"  # the recipe's, which nobody overrode


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_valid_and_named(recipe: str) -> None:
    assert build_config(flags={"recipe": recipe}).recipe == recipe
    for table, values in RECIPES[recipe].items():
        assert {f"{table}.{key}" for key in values} <= set(KEYS)


def test_a_recipe_is_not_changed_by_what_comes_after_it() -> None:
    build_config(overrides=["recipe=simple", "schedule.peak_lr=0.5", "clip.threshold=7"])
    assert build_config(overrides=["recipe=simple"]).schedule.peak_lr == 4e-4


def test_an_unknown_recipe_names_those_there_are() -> None:
    (line,) = problems_of("recipe=gpt3")
    assert line == f"recipe: there is no 'gpt3'; choose one of {', '.join(RECIPES)}"
    assert problems_of("recipe=[1]") == [
        f"recipe: there is no [1]; choose one of {', '.join(RECIPES)}"
    ]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_valid(size: str) -> None:
    config = build_config(flags={f"model.{key}": value for key, value in SIZES[size].items()})
    assert config.model.width and config.model.heads
    assert config.model.width % config.model.heads == 0


# --- overrides ---


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("train.updates=10", "train.updates", 10),
        ("schedule.peak_lr=1e-3", "schedule.peak_lr", 1e-3),
        ("model.bias=false", "model.bias", False),
        ("data.texts=['a', \"b\"]", "data.texts", ["a", "b"]),
        ("schedule.kind=wsd", "schedule.kind", "wsd"),
        ("schedule.kind='wsd'", "schedule.kind", "wsd"),
        ("data.separator=a=b", "data.separator", "a=b"),
        ("data.separator=\n\n", "data.separator", "\n\n"),
        ('data.separator="\\n"', "data.separator", "\n"),
        ("evaluate.sample_prompt=", "evaluate.sample_prompt", ""),
        ("evaluate.sample_prompt=one # two", "evaluate.sample_prompt", "one # two"),
        (" train.seed =3", "train.seed", 3),
    ],
)
def test_an_override_is_toml_where_it_can_be_and_text_elsewhere(
    override: str, key: str, value: object
) -> None:
    assert parse_override(override) == (key, value)


@pytest.mark.parametrize("override", ["train.updates", "", "=3", "  =3"])
def test_an_override_without_key_or_value_says_how_to_write_it(override: str) -> None:
    assert problems_of(override) == [f"--set {override}: write it as --set table.key=value"]


def test_a_value_is_no_table_and_a_table_is_no_value() -> None:
    assert problems_of("train=3", "train.updates=4") == [
        "train.updates: train is a value, not a table"
    ]
    (line,) = problems_of("train=3")
    assert line.startswith("train: ") and "table" in line


# --- what is refused ---


def test_everything_that_is_wrong_is_said_at_once() -> None:
    lines = problems_of(
        "trian.updates=3", "train.updates=-3", "model.dropout=2", "clip.kind=sometimes"
    )
    assert [line.split(":")[0] for line in lines] == [
        "model.dropout",
        "clip.kind",
        "train.updates",
        "trian",
    ]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("train.update", "train.updates"),
        ("train.token_per_update", "train.tokens_per_update"),
        ("schedule.peaklr", "schedule.peak_lr"),
        ("optimizer.beta3", "optimizer.beta"),
        ("model.heads_", "model.heads"),
        ("schedule.threshold", "clip.threshold"),
        ("threshold", "clip.threshold"),
        ("evaluate.every_update", "evaluate.every_updates"),
        ("excution.device", "execution.device"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, nearest: str) -> None:
    (line,) = problems_of(f"{key}=1")
    assert "unknown key" in line
    assert nearest in line


def test_a_key_unlike_any_other_names_the_page_that_has_them_all() -> None:
    assert problems_of("zzz.qqqq=1") == ["zzz: unknown key; docs/config.md lists every key"]


@pytest.mark.parametrize(("theirs", "ours"), FOREIGN_NAMES.items())
def test_a_foreign_name_points_at_a_key_that_there_is(theirs: str, ours: str) -> None:
    for name in ours.split(" and "):
        table = name.partition(".")[0]
        if table in Config.model_fields:
            assert name in KEYS
    assert theirs not in Config.model_fields


@pytest.mark.parametrize(("theirs", "ours"), FOREIGN_NAMES.items())
def test_a_foreign_name_is_refused_with_ours(theirs: str, ours: str, tmp_path: Path) -> None:
    expected = f"hairpin calls it {ours}"
    for key in (theirs, f"model.{theirs}", f"execution.{theirs}"):
        if key not in KEYS:
            assert problems_of(f"{key}=1") == [f"{key}: unknown key; {expected}"]
    (line,) = problems_of(file=written(tmp_path, f"{theirs} = 1"))
    assert line == f"{theirs}: unknown key; {expected}"


NUMBER_KEYS = {
    f"{table}.{key}": field
    for table, info in Config.model_fields.items()
    if isinstance(info.default, Table)
    for key, field in fields_of(type(info.default)).items()
    if field["type"] in ("integer", "number")
}


@pytest.mark.parametrize("key", NUMBER_KEYS)
@pytest.mark.parametrize(
    "value", ["nan", "inf", "-inf", "1e309", "-1", "1" * 400, "true", "'1'", "[1]", "1979-05-27"]
)
def test_no_number_takes_what_is_not_a_number_in_its_bounds(key: str, value: str) -> None:
    (line,) = problems_of(f"{key}={value}")
    assert line.startswith(f"{key}")
    assert len(line) < 250


@pytest.mark.parametrize(("key", "field"), NUMBER_KEYS.items())
def test_the_bounds_themselves_are_legal_and_what_is_beyond_is_not(
    key: str, field: dict[str, Any]
) -> None:
    table, name = key.split(".")
    for bound, step in (("minimum", -1), ("maximum", 1)):
        if bound in field:
            legal = {name: field[bound]}
            if name.startswith("decay_"):
                legal["kind"] = "wsd"
            validate({table: legal})
            assert problems_of(**{f"{table}__{name}": field[bound] + step})
        if f"exclusive{bound.capitalize()}" in field:
            assert problems_of(**{f"{table}__{name}": field[f"exclusive{bound.capitalize()}"]})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.updates=10.0", "train.updates"),
        ("train.updates=1e3", "train.updates"),
        ("model.bias=1", "model.bias"),
        ("data.texts=book.txt", "data.texts"),
        ("data.texts=[3]", "data.texts.0"),
        ("data.separator=''", "data.separator"),
        ("data.hash=abc", "data.hash"),
        ("execution.precision=half", "'auto', 'float32', 'tf32', 'bfloat16' or 'float16'"),
        ("schedule.kind=cosin", "choose one of constant, linear, cosine"),
        ("model.size=huge", "choose one of nano, tiny"),
        ("train.seed=9223372036854775808", "train.seed"),
    ],
)
def test_a_wrong_type_names_the_key_and_what_it_takes(override: str, words: str) -> None:
    (line,) = problems_of(override)
    assert words in line


def test_whole_numbers_do_for_numbers_in_general() -> None:
    assert build_config(overrides=["clip.threshold=2"]).clip.threshold == 2.0


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.texts=['/a']", "data.corpus=stdlib"], "data.texts and data.corpus"),
        (["train.updates=9", "train.tokens=9"], "train.updates and train.tokens"),
        (["train.epochs=9", "train.tokens=9"], "train.tokens and train.epochs"),
        (
            ["schedule.warmup_updates=0", "schedule.warmup_fraction=0.1"],
            "schedule.warmup_updates and schedule.warmup_fraction",
        ),
        (
            ["schedule.kind=wsd", "schedule.decay_tokens=9", "schedule.decay_updates=9"],
            "schedule.decay_updates and schedule.decay_tokens",
        ),
        (["model.width=100", "model.heads=3"], "100 is not a multiple of model.heads, 3"),
        (["tokenizer.kind=bytes", "tokenizer.vocabulary=300"], "bytes has a fixed size"),
        (["tokenizer.kind=gpt2", "tokenizer.vocabulary=257"], "gpt2 has a fixed size"),
        (["train.tokens_per_update=1000", "model.context=256"], "256; 1024 is"),
        (["train.tokens_per_update=10", "model.context=256"], "256; 256 is"),
        (["schedule.peak_lr=0.1", "schedule.initial_lr=0.2"], "schedule.initial_lr: 0.2 is above"),
        (["schedule.peak_lr=0.1", "schedule.min_lr=0.2"], "schedule.min_lr: 0.2 is above"),
        (["schedule.kind=constant", "schedule.min_lr=0.1"], "does not decay to a minimum"),
        (["schedule.decay_updates=9"], "only for schedule.kind=wsd, not cosine"),
        (["schedule.decay_tokens=9"], "only for schedule.kind=wsd, not cosine"),
        (["schedule.decay_fraction=0.5"], "only for schedule.kind=wsd, not cosine"),
        (["train.updates=10", "schedule.warmup_updates=9"], "9 of 10 updates leave 1 for cosine"),
        (["train.updates=10", "schedule.warmup_updates=12"], "12 of 10 updates leave 0"),
        (
            ["schedule.kind=constant", "train.updates=10", "schedule.warmup_updates=10"],
            "leave 0 for constant, which needs 1",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides: list[str], words: str) -> None:
    (line,) = problems_of(*overrides)
    assert words in line


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.updates=10", "schedule.warmup_updates=8"],
        ["schedule.kind=constant", "train.updates=10", "schedule.warmup_updates=9"],
        ["schedule.peak_lr=0.1", "schedule.min_lr=0.1", "schedule.initial_lr=0.1"],
        ["tokenizer.kind=bytes", "tokenizer.vocabulary=257"],
        ["tokenizer.kind=gpt2", "tokenizer.vocabulary=50257"],
        ["train.tokens_per_update=1024", "model.context=256"],
        ["schedule.kind=wsd", "schedule.decay_fraction=1"],
    ],
)
def test_what_only_just_fits_is_accepted(overrides: list[str]) -> None:
    build_config(overrides=overrides)


# --- files ---


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[train\nupdates = 3", "not valid TOML"),
        (b"updates = 3\nupdates = 4", "not valid TOML"),
        (b"\xff\xfe", "cannot be read as UTF-8 text"),
        (b"a = " + b"[" * 5000, "not valid TOML"),
        (b"a = " + b"9" * 5000, "not valid TOML"),
    ],
)
def test_a_file_that_is_no_toml_says_so(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(content)
    (line,) = problems_of(file=path)
    assert line.startswith(f"{path}: {words}")


def test_a_file_that_is_missing_or_a_folder_says_so(tmp_path: Path) -> None:
    assert problems_of(file=tmp_path / "no.toml") == [
        f"{tmp_path / 'no.toml'}: no such config file"
    ]
    assert problems_of(file=tmp_path)[0].startswith(f"{tmp_path}: cannot be read")


def test_relative_texts_in_a_file_are_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere.txt"
    file = written(folder, f"[data]\ntexts = ['book.txt', '../more', '{elsewhere.as_posix()}']")
    texts = (str(folder / "book.txt"), str(folder / "../more"), str(elsewhere))
    assert build_config(file=file).data.texts == texts
    monkeypatch.chdir(folder)
    assert build_config(file=Path("mine.toml")).data.texts == texts


# --- out and in again ---


def test_a_config_written_down_is_read_back_equal(tmp_path: Path) -> None:
    config = build_config(
        overrides=["recipe=simple", "data.separator='\\r\\n\\u0000\"\\u2028'", "train.seed=3"]
    )
    assert build_config(file=written(tmp_path, to_toml(config))) == config


def test_unset_keys_are_not_written() -> None:
    assert "None" not in to_toml(build_config())
    assert "peak_lr" not in to_tree(build_config())["schedule"]


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build_config().train.seed = 4  # type: ignore[misc]


def test_with_values_gives_a_checked_copy() -> None:
    config = build_config(overrides=["train.updates=10"])
    changed = with_values(
        config, {"train.updates": None, "train.tokens": 100, "model.size": "nano"}
    )
    assert (changed.train.updates, changed.train.tokens) == (None, 100)
    assert changed.model.size == "nano"
    assert config.train.updates == 10
    with pytest.raises(ConfigError, match=r"train\.updates and train\.tokens"):
        with_values(config, {"train.tokens": 100})
    with pytest.raises(ConfigError, match=r"did you mean train\.updates"):
        with_values(config, {"train.update": 100})


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


EXTENSIONS = [{"at": 20, "policy": "rewarm"}, {"at": 40, "policy": "cooldown"}]
SOURCES = [
    {"name": "wiki", "texts": [str(Path("/wiki.jsonl"))], "weight": 0.7, "column": "body"},
    {"name": "code", "corpus": "stdlib", "weight": 0.3, "split": "tails"},
]


def values_for(field: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Legal values of a setting."""
    if "enum" in field:
        return st.sampled_from(field["enum"])
    if field["type"] == "boolean":
        return st.booleans()
    if field["type"] == "integer":
        return st.integers(field["minimum"], field["maximum"])
    if field["type"] == "number":
        low = field.get("minimum", field.get("exclusiveMinimum"))
        high = field.get("maximum", field.get("exclusiveMaximum"))
        return st.floats(
            low,
            high,
            exclude_min="exclusiveMinimum" in field,
            exclude_max="exclusiveMaximum" in field,
        )
    if field["type"] == "array":
        of_texts = st.lists(TEXTS, min_size=2, max_size=3, unique=True)
        of_tables = st.just(EXTENSIONS if "Extension" in str(field["items"]) else SOURCES)
        return st.just([]) | (of_tables if "$ref" in field["items"] else of_texts)
    return TEXTS.filter(lambda text: len(text) >= field.get("minLength", 0))


KINDS = {key: kind for kind, key in plugins.KEYS.items()}


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Configs of any legal values, but for keys that contradict others."""
    tree: dict[str, dict[str, Any]] = {}
    unset: tuple[tuple[dict[str, Any], list[str]], ...]
    for table, info in Config.model_fields.items():
        if not isinstance(info.default, Table):
            continue
        for key, field in fields_of(type(info.default)).items():
            if draw(st.booleans()) and f"{table}.{key}" not in (
                "data.hash",
                "start.hash",
                "tokenizer.vocabulary",
                "track.tools",
            ):
                kind = KINDS.get(f"{table}.{key}")
                legal = st.sampled_from(plugins.BUILT_IN[kind]) if kind else values_for(field)
                tree.setdefault(table, {})[key] = draw(legal)
    schedule = tree.setdefault("schedule", {})
    schedule["kind"] = draw(st.sampled_from(sorted(CURVES)))
    data, train, model = (tree.setdefault(name, {}) for name in ("data", "train", "model"))
    sources = data.get("sources")
    data["texts"] = [] if sources else [str(Path(f"/{draw(TEXTS)}"))]
    if "path" not in tree.get("start", {}) or sources:
        tree.get("finetune", {}).pop("kind", None)
    elif tree.get("finetune", {}).get("kind"):
        tree["finetune"]["template"] = draw(TEXTS) + "{instruction}"
    model["size"] = draw(st.sampled_from(sorted(SIZES)))
    unset = (
        (data, ["corpus"]),
        (schedule, ["decay_updates", "decay_tokens", "decay_fraction", "initial_lr", "min_lr"]),
        (schedule, ["warmup_updates", "warmup_tokens"]),
        (train, ["updates", "tokens", "tokens_per_update"]),
        (model, ["heads", "width"]),
    )
    for values, keys in unset:
        for key in keys:
            values.pop(key, None)
    recipe = draw(st.sampled_from(sorted(RECIPES)))
    if RECIPES[recipe]:  # it sets the warmup
        schedule.pop("warmup_fraction", None)
    if recipe == "book":  # its first learning rate, batch and length leave less room for these
        schedule.pop("extensions", None)
        schedule.pop("peak_lr", None)
        model.pop("context", None)
        fitting = [size for size in SIZES if 512 % SIZES[size]["context"] == 0]
        model["size"] = draw(st.sampled_from(sorted(fitting)))
    if model.get("architecture", recipe) in ("modern", "qwen3"):  # they have no biases, and so on
        model |= {"bias": False, "qkv_bias": False, "tied": False}
        model |= {"dropout": 0.0, "initialisation": "gpt2"}
    flags = {f"{table}.{key}": value for table, keys in tree.items() for key, value in keys.items()}
    return build_config(flags={"recipe": recipe, **flags})


@given(configs())
@settings(max_examples=100, deadline=None, suppress_health_check=[*HealthCheck])
def test_any_config_is_read_back_equal(
    tmp_path_factory: pytest.TempPathFactory, config: Config
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(to_toml(config), encoding="utf-8", newline="\n")
    again = build_config(file=path)
    assert again == config
    assert to_toml(again) == to_toml(config)


# --- whatever anybody types ---


def config_or_lines(**asked: Any) -> None:
    """A config comes of it, or an error of whole lines that a terminal can show."""
    try:
        build_config(**asked)
    except ConfigError as error:
        assert error.problems
        for line in error.problems:
            assert line
            assert line.isprintable(), ascii(line)


NAMES = st.one_of(st.sampled_from(KEYS), st.sampled_from(sorted(FOREIGN_NAMES)), st.text())
VALUES = st.one_of(
    st.text(),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "nan", "[]", "{}", "{a=1}", "[[1]]", "''", "0x" + "f" * 5000, "9" * 5000]),
)


@given(st.lists(st.one_of(st.text(), st.builds("{}={}".format, NAMES, VALUES)), max_size=5))
@example(["a\nb=1"])
@example(["\x1b[2J"])
@example(["train.seed=0x" + "f" * 5000])
@example(["recipe=0x" + "f" * 5000])
@example(["train.updates.more=1"])
@example([".=1"])
@example(["recipe.a=1"])
@example(["recipe=\ud800"])
@example(["data.separator=\ud800"])
@example(["data.texts=['\\u001b']", "data.hash=\x1b"])
@settings(max_examples=300, deadline=None)
def test_any_overrides_give_a_config_or_lines(overrides: list[str]) -> None:
    config_or_lines(overrides=overrides)


TOML_LINES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(sorted(Config.model_fields)).map("[{}]".format),
    st.sampled_from(sorted(Config.model_fields)).map("[[{}]]".format),
    st.builds("{} = {}".format, st.sampled_from(KEYS), VALUES),
    st.builds("{} = {}".format, st.sampled_from([key.split(".")[-1] for key in KEYS]), VALUES),
)


@given(st.lists(TOML_LINES, max_size=6).map("\n".join))
@example('"a\\nb" = 1')
@example('"\\u001b[2J" = 1')
@example("[train]\nseed = 0x" + "f" * 5000)
@example("train.seed = " + "9" * 5000)
@example("data.separator = '''\n'''")
@example("train.seed = 1979-05-27T07:32:00Z")
@example("[data]\ntexts = 'a'")
@example("[[data]]\ntexts = ['a']")
@example("data.texts = ['a\\u0000b']")
@settings(max_examples=300, deadline=None, suppress_health_check=[*HealthCheck])
def test_any_file_gives_a_config_or_lines(
    tmp_path_factory: pytest.TempPathFactory, toml: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.toml"
    path.write_bytes(toml.encode("utf-8", errors="surrogatepass"))
    config_or_lines(file=path)


# --- lengths of time ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1.5h", 5400),
        ("1d1h1m1s", 90_061),
        (" 3M ", 180),
        ("1s", 1),
        ("366d", 31_622_400),
    ],
)
def test_lengths_of_time(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "m",
        "10 m",
        "-3m",
        "0s",
        "0.5s",
        "367d",
        "30m1h",
        "1e3s",
        "nan",
        "inf",
        "9" * 400 + "s",
    ],
)
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="write a length of time such as 90s, 10m, 1h30m or 2d"):
        parse_duration(text)


@given(st.text())
@example("3m\n")
@example("\x1b[2J")
def test_any_length_of_time_is_seconds_or_a_line(text: str) -> None:
    try:
        assert math.isfinite(parse_duration(text))
    except ConfigError as error:
        assert [line.isprintable() for line in error.problems] == [True]


# --- the schedule that a config means ---


def schedule_for(*overrides: str) -> Schedule:
    fixed = ("train.updates=1000", "train.tokens_per_update=4096", "schedule.peak_lr=0.01")
    return schedule_of(build_config(overrides=[*fixed, *overrides]))


def test_a_schedule_with_nothing_said() -> None:
    expected = Schedule("cosine", 1000, 50, 0.01, None, 0.001, decay=200, cycles=4)
    assert schedule_for() == expected


@pytest.mark.parametrize(
    ("override", "warmup"),
    [
        ("schedule.warmup_updates=0", 0),
        ("schedule.warmup_updates=7", 7),
        ("schedule.warmup_tokens=0", 0),
        ("schedule.warmup_tokens=40960", 10),
        ("schedule.warmup_tokens=40961", 11),
        ("schedule.warmup_fraction=0.1", 100),
        ("schedule.warmup_fraction=0.0", 0),
    ],
)
def test_warmup_in_updates_tokens_or_a_fraction(override: str, warmup: int) -> None:
    assert schedule_for(override).warmup == warmup


@pytest.mark.parametrize(
    ("override", "decay"),
    [
        ("schedule.decay_updates=7", 7),
        ("schedule.decay_tokens=40960", 10),
        ("schedule.decay_fraction=0.5", 500),
    ],
)
def test_decay_in_updates_tokens_or_a_fraction(override: str, decay: int) -> None:
    assert schedule_for("schedule.kind=wsd", override).decay == decay


def test_min_lr_only_where_the_curve_decays() -> None:
    assert schedule_for("schedule.min_lr=0").min_lr == 0
    assert schedule_for("schedule.kind=constant").min_lr == 0
    assert schedule_for("schedule.kind=inverse-sqrt").min_lr == 0
