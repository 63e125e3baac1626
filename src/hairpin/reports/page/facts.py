"""Facts about a run for its page: settings, data, environment, samples."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hairpin.config.checks import FIXED_VOCABULARIES
from hairpin.config.layers import flat
from hairpin.config.load import build_config, changed_keys, to_toml, to_tree
from hairpin.config.settings import Config
from hairpin.config.shared import name_of_path, shared_tree, shared_value, without_paths
from hairpin.errors import ConfigError
from hairpin.reports.formats import format_bytes, format_count, safe_name
from hairpin.reports.history import of_kind
from hairpin.reports.page.markup import Table, cut
from hairpin.reports.series import Event
from hairpin.runs.folder import RunDirectory

_MAX_SAMPLES = 60
_MAX_SAMPLE_LENGTH = 20_000  # characters

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class SampleCard:
    """A generated text with its prompt; `kind` is a class of the style sheet."""

    title: str
    prompt: str
    text: str
    kind: str = ""


@dataclass(frozen=True)
class Samples:
    """The generated texts of a run, in order, and remarks needed to read them."""

    cards: Sequence[SampleCard]
    hint: str = ""
    left_out: str = ""


def settings_table(config: Config, events: Sequence[Event], *, full: bool = False) -> Table:
    """Return the settings that differ from the recipe's defaults, and their origin; paths are cut
    to their last names unless `full`.
    """
    start = first(events, "start")
    asked = flat(start.get("asked") or {})
    by_recipe = build_config(flags={"recipe": config.recipe})
    rows = [
        (
            key,
            _short(key, now if full else shared_value(key, now)),
            _short(key, was),
            "requested" if key in asked else "filled in",
        )
        for key, was, now in changed_keys(by_recipe, config)
    ]
    head = ("setting", "value", f"default of {config.recipe}", "origin")
    return Table("Settings that differ from the recipe's defaults", head, rows, words=4)


def config_toml(config: Config, *, full: bool = False) -> str:
    """Return all settings as TOML; paths are cut to their last names unless `full`."""
    return to_toml(to_tree(config) if full else shared_tree(config))


def data_rows(events: Sequence[Event], config: Config, done_tokens: int) -> Rows:
    """Return text, tokens, vocabulary and split."""
    plan, data = first(events, "plan"), config.data
    vocabulary = config.tokenizer.vocabulary or FIXED_VOCABULARIES.get(config.tokenizer.kind)
    names = ", ".join(map(name_of_path, data.texts))
    rows = [("text", plan.get("text") or data.corpus or names or "unknown")]
    if plan.get("examples"):
        rows.append(("training examples", f"{plan['examples']:,}"))
    if plan:
        rows.append(("training tokens", f"{plan['train_tokens']:,}"))
        rows.append(("validation tokens", f"{plan['val_tokens']:,}"))
        passes = f"{plan['epochs']:.3g} planned"
        if plan["train_tokens"] and not plan.get("labels"):
            passes = f"{done_tokens / plan['train_tokens']:.3g} so far, {passes}"
        rows.append(("passes over the training text", passes))
    for name, each in (plan.get("sources") or {}).items():
        words = (
            f"{each['share']:.1%} of training tokens, {each['epochs']:.3g} passes over "
            f"{each['train_tokens']:,.0f}; {each['val_tokens']:,.0f} for validation"
        )
        rows.append((f"source {safe_name(name)}", words))
    if data.column:
        rows.append(("column", data.column))
    rows.append(("tokenizer", config.tokenizer.kind))
    if vocabulary:
        rows.append(("vocabulary", f"{vocabulary:,} tokens"))
    if plan.get("labels"):
        rows.append(("labels", ", ".join(map(safe_name, plan["labels"]))))
    rows.append(("split", f"{data.split}, {data.validation_fraction:.3g} for validation"))
    if data.hash:
        rows.append(("SHA-256 of the documents", data.hash))
    if plan.get("start"):
        rows.append(("starts from", without_paths(plan["start"])))
    return rows


def environment_rows(run: RunDirectory, events: Sequence[Event], *, full: bool = False) -> Rows:
    """Return versions and hardware; the run's location and command only if `full`."""
    found: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(run.environment.read_text(encoding="utf-8"))
    command = found.get("command") or first(events, "start").get("command") or []
    rows = [("command", " ".join(map(str, command)))] if command and full else []
    names = ["git_commit", "python", "platform", "device", "gpu", "processor"]
    names = ["working_folder", *names] if full else names
    rows += [(name.replace("_", " "), str(found[name])) for name in names if found.get(name)]
    rows += [(name, str(found[name])) for name in ("cores", "threads") if found.get(name)]
    if found.get("memory_bytes"):
        rows.append(("memory", format_bytes(found["memory_bytes"])))
    packages = found.get("packages") or {}
    if packages:
        versions = ", ".join(f"{name} {version}" for name, version in packages.items() if version)
        rows.append(("packages", versions))
    return rows


def samples_of(events: Sequence[Event]) -> Samples:
    """Return the generated samples; the first stays visible while scrolling."""
    samples = of_kind(events, "sample")
    if not samples:
        return Samples(())
    kept, left_out = samples, ""
    if len(samples) > _MAX_SAMPLES:
        step = (len(samples) - 1) / (_MAX_SAMPLES - 1)
        kept = [samples[round(at * step)] for at in range(_MAX_SAMPLES)]
        left_out = f"{_MAX_SAMPLES} of {len(samples):,} samples, evenly spread over the run."
    cards = [
        sample_card(f"after {event['update']:,} updates", event, "first" if at == 0 else "")
        for at, event in enumerate(kept)
    ]
    hint = "The prompt is marked. "
    if len(kept) > 1:
        hint += "Scroll sideways; the first sample stays in place for comparison."
    return Samples(cards, hint, left_out)


def sample_card(title: str, event: Event, kind: str = "") -> SampleCard:
    """Return one sample, shortened if it is very long."""
    prompt = cut(event.get("prompt", ""), _MAX_SAMPLE_LENGTH)
    return SampleCard(title, prompt, cut(event.get("text", ""), _MAX_SAMPLE_LENGTH), kind)


def first(events: Sequence[Event], kind: str) -> Event:
    """Return the last event of a kind that occurs once per run; empty if there is none."""
    return next(reversed(of_kind(events, kind)), {})


def format_setting(value: Any) -> str:
    """Format a setting's value for people."""
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return cut(", ".join(map(format_setting, value)), 500) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name} {format_setting(entry)}" for name, entry in value.items())
    return cut(str(value), 500)


def _short(key: str, value: Any) -> str:
    """Format a setting's value; a hash is cut to its beginning."""
    words = format_setting(value)
    return f"{words[:12]}…" if key.endswith(".hash") and value else words


def settings_that_differ(configs: Sequence[Config]) -> list[tuple[str, ...]]:
    """Return each dotted key that differs between the configs, with its value in each of them."""
    keys: dict[str, None] = {}
    for config in configs[1:]:
        with contextlib.suppress(ConfigError):
            keys |= dict.fromkeys(key for key, _, _ in changed_keys(configs[0], config))
    trees = [flat(shared_value("", config.model_dump(mode="json"))) for config in configs]
    return [(key, *(_short(key, tree.get(key)) for tree in trees)) for key in keys]


def count_words(count: int | None) -> str:
    """Format a count for people; a dash if it is unknown."""
    return "–" if count is None else format_count(count)
