"""What one call says, by flags and by --set, is kept, or refused with the two that disagree."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hairpin as hairpin_package
from hairpin.config.checks import ALTERNATIVES
from hairpin.config.layers import nested
from hairpin.config.load import build_config, known_keys, to_toml, with_values
from hairpin.config.names import FLAG_OF, FLAGS
from hairpin.config.recipes import RECIPES, SIZES
from hairpin.config.settings import Config
from hairpin.data.tokenizers import ByteTokenizer
from hairpin.errors import ConfigError
from hairpin.launch.request import Request, requested_config
from hairpin.model.shape import Shape
from hairpin.planning.choose import (
    LADDER,
    fill_budgeted_schedule,
    fill_length,
    fill_size,
    is_open,
)
from hairpin.runs.folder import RunDirectory
from hairpin.weights.origin import Origin, with_start
from helpers import Hairpin, Watching, text_file, tiny

KEYS = frozenset(known_keys())


def refusal(*overrides: str, **flags: Any) -> list[str]:
    """The lines of the refusal of a call; flags by their names on the command line."""
    with pytest.raises(ConfigError) as caught:
        build_config(overrides=overrides, flags={FLAGS[name]: to for name, to in flags.items()})
    return list(caught.value.problems)


def test_a_size_fills_what_is_unset() -> None:
    for override, key in (
        ("model.context=16", "context"),
        ("model.layers=16", "layers"),
        ("model.heads=16", "heads"),
        ("model.width=16", "width"),
    ):
        config = build_config(overrides=[override], flags={"model.size": "nano"})
        filled = filled_of(config)
        expected = {**SIZES["nano"], key: 16}
        assert {name: getattr(filled.model, name) for name in expected} == expected
    both = build_config(flags={"model.size": "nano", "model.layers": 3, "model.context": 256})
    assert (both.model.layers, both.model.context, both.model.width) == (3, 256, None)


def test_a_size_that_the_call_names_replaces_the_shape_of_a_file_or_recipe(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[model]\nsize = "nano"\nlayers = 2\nheads = 2\nwidth = 64\ncontext = 128\n')
    assert filled_of(build_config(file=file)).model.width == 64
    small = build_config(file=file, overrides=["model.context=64"], flags={"model.size": "small"})
    assert (small.model.layers, small.model.width, small.model.context) == (None, None, 64)
    book = build_config(flags={"recipe": "book", "model.size": "nano", "model.context": 64})
    assert (book.model.layers, book.model.context) == (None, 64)


@pytest.mark.parametrize(
    ("overrides", "flags", "line"),
    [
        (
            ["train.tokens=3000"],
            {"updates": 30},
            "train.updates and train.tokens: they say the same thing in two ways; keep one "
            "(--set train.tokens=3000, --updates 30)",
        ),
        (
            [],
            {"updates": 30, "epochs": 2.5},
            "train.updates and train.epochs: they say the same thing in two ways; keep one "
            "(--updates 30, --epochs 2.5)",
        ),
        (
            ["schedule.peak_lr=0.1"],
            {"lr": 0.2},
            "schedule.peak_lr: --set schedule.peak_lr=0.1 and --lr 0.2 disagree; keep one",
        ),
        (
            ["train.seed=1", "train.seed=2"],
            {},
            "train.seed: --set train.seed=1 and --set train.seed=2 disagree; keep one",
        ),
        (
            ["recipe=gpt2"],
            {"recipe": "book"},
            "recipe: --set recipe=gpt2 and --recipe book disagree; keep one",
        ),
        (
            ["data.column=body"],
            {"column": "text"},
            "data.column: --set data.column=body and --column text disagree; keep one",
        ),
        (
            ["execution.device=cuda"],
            {"device": "cpu"},
            "execution.device: --set execution.device=cuda and --device cpu disagree; keep one",
        ),
        (
            ["model={width=64}", "model.width=32"],
            {},
            "model.width: --set model={width=64} and --set model.width=32 disagree; keep one",
        ),
        (
            ["model.width=65"],
            {"size": "nano"},
            "model.width: 65 is not a multiple of model.heads, 2 of model.size=nano "
            "(--set model.width=65, --size nano)",
        ),
        (
            ["model.heads=3"],
            {"size": "nano"},
            "model.width: 64 of model.size=nano is not a multiple of model.heads, 3 "
            "(--set model.heads=3, --size nano)",
        ),
        (
            ["train.tokens_per_update=1000"],
            {"size": "nano"},
            "train.tokens_per_update: 1000 is not a multiple of model.context, 128 of "
            "model.size=nano; 1024 is (--set train.tokens_per_update=1000, --size nano)",
        ),
        (
            ["train.tokens_per_update=64"],
            {"recipe": "book"},
            "train.tokens_per_update: 64 is not a multiple of model.context, 256; 256 is "
            "(recipe book, --set train.tokens_per_update=64)",
        ),
    ],
)
def test_two_that_disagree_are_named_as_they_were_typed(
    overrides: list[str], flags: dict[str, Any], line: str
) -> None:
    assert refusal(*overrides, **flags) == [line]


def test_all_that_disagrees_is_said_at_once() -> None:
    lines = refusal("train.seed=1", "train.tokens=9", "clip.kind=sometimes", seed=2, updates=3)
    assert [line.split(":")[0] for line in lines] == ["train.seed", "clip.kind"]
    lines = refusal("train.seed=1", "train.tokens=9", seed=2, updates=3)
    assert [line.split(":")[0] for line in lines] == [
        "train.seed",
        "train.updates and train.tokens",
    ]


def test_the_same_said_twice_is_said_once() -> None:
    overrides = ["train.updates=30", "schedule.peak_lr=1e-3", "data.texts=['a.txt']"]
    flags = {
        "train.updates": 30,
        "schedule.peak_lr": 0.001,
        "data.texts": [str(Path("a.txt").absolute())],
    }
    config = build_config(overrides=overrides, flags=flags)
    assert (config.train.updates, config.schedule.peak_lr) == (30, 0.001)
    assert config.data.texts == (str(Path("a.txt").absolute()),)


def test_a_length_that_the_call_gives_replaces_that_of_a_file_or_recipe(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[train]\nupdates = 5\n", encoding="utf-8")
    for asked in ({"train.tokens": 30}, {"train.epochs": 2.0}):
        for config in (
            build_config(file=file, flags=asked),
            build_config(flags={**asked, "recipe": "book"}),
        ):
            assert config.train.updates is None
            assert {**asked}.items() <= {f"train.{k}": v for k, v in config.train}.items()


def test_another_recipe_replaces_what_a_file_has_by_its_own(tmp_path: Path) -> None:
    """A run's config.toml has all settings, those of its recipe among them."""
    file = tmp_path / "config.toml"
    changed = {"optimizer.weight_decay": 0.02, "model.size": "nano", "train.updates": 9}
    run = filled_of(build_config(flags={"recipe": "modern", **changed}))
    file.write_text(to_toml(run), encoding="utf-8")
    assert build_config(file=file) == run
    other = build_config(file=file, flags={"recipe": "gpt2"})
    by_recipe = build_config(flags={"recipe": "gpt2"})
    for name in ("architecture", "bias", "qkv_bias", "tied"):
        assert getattr(other.model, name) == getattr(by_recipe.model, name)
    assert other.optimizer.kind == "adamw"
    assert other.optimizer.weight_decay == 0.02  # which was not the recipe's
    assert (other.model.width, other.train.updates) == (64, 9)
    again = build_config(file=file, flags={"recipe": "modern"})
    assert again == run


def test_the_line_names_the_file_that_disagrees_with_itself(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[train]\nupdates = 5\ntokens = 5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=re.escape(f"keep one (in {file})")):
        build_config(file=file)


@pytest.mark.parametrize(
    ("arguments", "settings", "key"),
    [
        ({"corpus": "stdlib"}, {"data.corpus": "verdict"}, "data.corpus"),
        ({"column": "body"}, {"data.column": "text"}, "data.column"),
        ({"start": "/a"}, {"start.path": "/b"}, "start.path"),
        ({"track": ["wandb"]}, {"track.tools": ["mlflow"]}, "track.tools"),
        ({}, {"data.texts": ["/b.txt"]}, "data.texts"),
    ],
)
def test_an_argument_of_a_function_does_not_overrule_its_settings(
    tmp_path: Path, arguments: dict[str, Any], settings: dict[str, Any], key: str
) -> None:
    texts = [] if "corpus" in arguments else ["/a.txt"]
    with pytest.raises(
        ConfigError, match=rf"^{re.escape(key)}: .* in the settings and .* disagree"
    ):
        hairpin_package.train(*texts, out=tmp_path / "r", settings=settings, **arguments)
    assert not (tmp_path / "r").exists()


def test_texts_and_corpora_are_named_as_they_were_typed(hairpin: Hairpin, tmp_path: Path) -> None:
    line = hairpin("train", tmp_path / "a.txt", "--corpus", "stdlib").refusal
    assert line.startswith("data.texts and data.corpus: they say the same thing in two ways")
    assert line.endswith(", --corpus stdlib)")
    short = hairpin("train", "a.txt", "--set", "data.texts=['b.txt']").refusal
    assert short.startswith("data.texts: --set data.texts=['b.txt'] and ")
    assert short.endswith("a.txt disagree; keep one")
    source = hairpin("train", "a.txt", "--source", "wiki=w.jsonl").refusal
    assert source.startswith("data.texts and data.sources: ") and "--source" in source


def test_a_flag_given_twice(hairpin: Hairpin) -> None:
    done = hairpin("schedule", "--updates", 9, "--updates=8", "--lr", 1)
    assert done.code == 2
    assert done.err == "hairpin: --updates 9 and --updates 8 disagree; keep one\n"
    assert hairpin("schedule", "--updates", 9, "--updates", 9, "--lr", 1).code == 0
    several = ["--set", "train.seed=1", "--set", "clip.kind=off"]
    assert hairpin("schedule", "--updates", 9, *several).code == 0


@pytest.mark.usefixtures("no_plots")
def test_a_vocabulary_that_the_text_has_not_is_said(tmp_path: Path) -> None:
    """A text of 12 words has few pairs that come together more than once."""
    watcher = Watching()
    settings = tiny(tokenizer__kind="bpe", tokenizer__vocabulary=5000, train__updates=5)
    run = hairpin_package.train(
        text_file(tmp_path), out=tmp_path / "run", settings=settings, watcher=watcher
    )
    there = run.config.tokenizer.vocabulary
    assert there and there < 1000
    (line,) = [line for line in watcher.notices if line.startswith("tokenizer.vocabulary: ")]
    assert f"5,000 were asked for, and the text has pairs for {there:,}" in line


# --- any call ---

VALUES: dict[str, tuple[Any, ...]] = {
    "recipe": tuple(RECIPES),
    "model.size": ("nano", "tiny", "small", "base"),
    "model.layers": (1, 3),
    "model.heads": (2, 4, 5),
    "model.width": (64, 96, 100),
    "model.context": (64, 128, 500),
    "model.tied": (True, False),
    "model.dropout": (0.0, 0.2),
    "optimizer.kind": ("adamw", "muon"),
    "schedule.kind": ("constant", "cosine", "wsd"),
    "schedule.peak_lr": (1e-4, 0.01),
    "schedule.min_lr": (0.0, 0.001),
    "schedule.warmup_updates": (0, 20),
    "schedule.warmup_tokens": (512, 100_000),
    "schedule.warmup_fraction": (0.0, 0.5),
    "train.updates": (10, 30),
    "train.tokens": (3000, 100_000),
    "train.epochs": (0.5, 2.0),
    "train.tokens_per_update": (512, 1000, 4096),
    "train.seed": (0, 7),
    "evaluate.every_updates": (1, 5),
    "clip.kind": ("off", "value"),
    "execution.precision": ("float32", "auto"),
    "execution.device": ("cpu", "auto"),
    "tokenizer.kind": ("bytes", "bpe", "gpt2"),
    "tokenizer.vocabulary": (257, 500),
    "data.column": ("body", "text"),
    "data.corpus": ("stdlib", "verdict"),
    "data.texts": (["/a.txt"], ["/b.txt"]),
}
LENGTHS = ("train.updates", "train.tokens", "train.epochs")
Said = tuple[str, Any]
SAID = st.sampled_from([(key, value) for key, values in VALUES.items() for value in values])


def summary_line(key: str, value: Any) -> str:
    """The override that says so."""
    return (
        f"{key}={value!r}"
        if isinstance(value, str)
        else tomli_w.dumps({"v": value}).replace("v = ", f"{key}=", 1).replace("\n", " ").strip()
    )


def keys_in(line: str) -> set[str]:
    """The settings that a line names."""
    return {word.strip(".") for word in re.findall(r"[a-z_.]+", line)} & KEYS


def value_in(config: Config, key: str) -> Any:
    found: Any = config
    for name in key.split("."):
        found = getattr(found, name)
    return list(found) if isinstance(found, tuple) else found


def filled_of(config: Config) -> Config:
    """The config with a size, as a run with a slow machine and little text fills it."""
    return fill_size(
        config, seconds_left=None, flops_per_second=lambda: 1e9, train_bytes=lambda: 10_000
    )


def expected_length(typed: dict[str, Any], config: Config, train_tokens: int) -> int | None:
    """The updates that the call asks for, worked out here; None: it does not say."""
    per_update = config.train.tokens_per_update
    assert per_update
    tokens = typed.get("train.tokens")
    if "train.epochs" in typed:
        tokens = int(-(-typed["train.epochs"] * train_tokens // 1))
    return typed.get("train.updates") or (tokens and -(-tokens // per_update))


@given(st.lists(SAID, max_size=3), st.lists(SAID, max_size=3), st.lists(SAID, max_size=4))
@settings(max_examples=2000, suppress_health_check=[*HealthCheck])
def test_whatever_is_typed_is_kept_or_the_two_that_disagree_are_named(
    tmp_path_factory: pytest.TempPathFactory,
    by_set: list[Said],
    by_flag: list[Said],
    in_file: list[Said],
) -> None:
    file = None
    if in_file:
        file = tmp_path_factory.getbasetemp() / "drawn.toml"
        tree: dict[str, Any] = {}
        for key, value in in_file:
            table, _, name = key.partition(".")
            tree.update({key: value} if not name else {table: {**tree.get(table, {}), name: value}})
        file.write_text(tomli_w.dumps(tree), encoding="utf-8")
    flags = dict(by_flag)
    typed = [*by_set, *flags.items()]
    doubled = {key for key, value in typed if any(k == key and v != value for k, v in typed)}
    rivals = [
        [key for key in group if key in dict(typed)]
        for group in ALTERNATIVES
        if len({key for key, _ in typed} & set(group)) > 1
    ]
    overrides = [summary_line(key, value) for key, value in by_set]
    try:
        config = build_config(file=file, overrides=overrides, flags=flags)
        assert not doubled and not rivals
        for key, value in typed:
            assert value_in(config, key) == value
        filled = filled_of(config)
        for key, value in typed:
            assert value_in(filled, key) == value
        if any(key in LENGTHS for key, _ in typed):
            long = fill_length(filled, 9000, None)
            assert long.train.updates == expected_length(dict(typed), filled, 9000)
        elif is_open(filled):  # a time budget says how long it is
            long = fill_length(fill_budgeted_schedule(filled), 9000, 50)
            for key, value in typed:
                in_updates = key in ("schedule.warmup_tokens", "schedule.warmup_fraction")
                assert in_updates or value_in(long, key) == value
    except ConfigError as error:
        lines = error.problems
        for line in lines:
            ways = [word for key, value in typed for word in _ways(key, value) if word in line]
            assert len(set(ways)) > 1 or len(keys_in(line)) > 1, line
        for key in doubled:
            assert any(line.startswith(f"{key}: ") and "disagree" in line for line in lines)
        for group in rivals if not doubled else ():
            assert any(" and ".join(group) in line for line in lines)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """A trained model, as far as it is looked at before its weights are read."""
    folder = tmp_path_factory.mktemp("start")
    flags = {"recipe": "gpt2", "model.size": "nano", "tokenizer.kind": "bytes"}
    config = with_values(filled_of(build_config(flags=flags)), {"tokenizer.vocabulary": 257})
    RunDirectory(folder).write_config(config)
    shape = Shape.of(config.model, 257)
    return Origin(folder, shape, ByteTokenizer(), {}, "0" * 64, "the best")


OF_A_START = st.sampled_from(
    [
        (key, value)
        for key, values in VALUES.items()
        for value in values
        if key.startswith(("model.", "tokenizer.", "recipe", "train.", "execution."))
    ]
)


@given(st.lists(OF_A_START, max_size=3, unique_by=lambda said: said[0]))
@settings(max_examples=300, suppress_health_check=[*HealthCheck])
def test_whatever_is_typed_beside_a_start_is_kept_or_named(start: Origin, said: list[Said]) -> None:
    flags = {**dict(said), "start.path": str(start.path)}
    try:
        config = with_start(requested_config(Request(["a.txt"], settings=flags)), start)
    except ConfigError as error:
        for line in error.problems:
            words = [word for key, value in said for word in _ways(key, value) if word in line]
            names_both = str(start.path) in line or len(words) > 1
            assert (words and names_both) or len(keys_in(line)) > 1, line
        return
    for key, value in said:
        assert value_in(config, key) == value
    assert Shape.of(config.model, 257) == replace(
        start.shape, dropout=config.model.dropout, context=config.model.context or 0
    )


def _ways(key: str, value: Any) -> list[str]:
    """How it may have been written in a call."""
    written = " ".join(value) if isinstance(value, list) else value
    flag = f"{FLAG_OF[key]} {written}".strip() if key in FLAG_OF else f"{key}={written}"
    return [f"--set {summary_line(key, value)}", flag]


def test_every_flag_sets_a_key_that_there_is() -> None:
    assert set(FLAGS.values()) <= KEYS
    assert nested("a.b", 1) == {"a": {"b": 1}}
    assert {rung.size for rung in LADDER} <= set(SIZES)
