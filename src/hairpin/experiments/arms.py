"""Arms to compare: the configs that files, `--vary` and factors ask for, not yet filled in."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hairpin.config.checks import value_of
from hairpin.config.layers import get
from hairpin.config.load import parse_override, with_values
from hairpin.config.settings import Config
from hairpin.errors import ConfigError
from hairpin.launch.request import Request, requested_config, requested_settings
from hairpin.reports.formats import short_names

# The three optional parts of a training loop, and the setting that turns each off.
FACTORS: dict[str, tuple[str, Any]] = {
    "warmup": ("schedule.warmup_updates", 0),
    "decay": ("schedule.kind", "constant"),
    "clip": ("clip.kind", "off"),
}
LENGTHS = ("train.updates", "train.tokens", "train.epochs")
_MAX_FACTORS = 5
# Key → its value in every run of an experiment, whatever is asked for, and a description.
_OVERRIDDEN: dict[str, tuple[Any, str]] = {
    "train.seed": (None, "left out: an experiment has seeds of its own, the same for all arms"),
    "evaluate.sample_tokens": (0, "left out: runs of an experiment generate no samples"),
    "execution.compile": ("off", "left out: runs of an experiment are not compiled"),
    "checkpoint.keep": (1, "left out: runs of an experiment keep no checkpoints"),
}


@dataclass(frozen=True)
class RequestedArm:
    """A config as requested, with its name and how it differs from the others."""

    name: str
    changes: Mapping[str, Any]
    config: Config


def overridden(request: Request) -> list[str]:
    """Return a line for each requested setting that an experiment overrides."""
    asked = requested_settings(request)
    return [
        f"{asked.typed[key]}: {words}"
        for key, (own, words) in _OVERRIDDEN.items()
        if key in asked.typed and get(asked.tree, key) != own
    ]


def arms_of_files(files: Sequence[Path], request: Request) -> list[RequestedArm]:
    """Return an arm for each config file; command-line settings apply to all."""
    names = _names_of(files)
    return [
        RequestedArm(name, {}, requested_config(replace(request, config=file)))
        for name, file in zip(names, files, strict=True)
    ]


def arms_of_variations(variations: Iterable[str], request: Request) -> list[RequestedArm]:
    """Return an arm for each value of a key, or for each combination if several are varied.

    Args:
        variations: "key=a,b".
        request: the shared settings.

    Raises:
        ConfigError: a line for every invalid variation.
    """
    varied = parse_variations(variations)
    arms = []
    for values in itertools.product(*varied.values()):
        changes = dict(zip(varied, values, strict=True))
        name = ", ".join(f"{_short(key, varied)}={value}" for key, value in changes.items())
        arms.append(RequestedArm(name, changes, requested_config(replace(request, varied=changes))))
    return arms


def parse_variations(variations: Iterable[str]) -> dict[str, list[Any]]:
    """Parse "key=a,b" into key → values; each is a TOML value if it parses as one.

    Raises:
        ConfigError: a line for each that has no `=`, or fewer than two different values.
    """
    varied: dict[str, list[Any]] = {}
    problems = []
    for variation in variations:
        key, equals, listed = variation.partition("=")
        values = [parse_override(f"key={value.strip()}")[1] for value in listed.split(",")]
        if not equals or not key.strip():
            problems.append(f"--vary {variation}: write it as --vary table.key=a,b")
        elif key.strip() in varied:
            problems.append(f"--vary {variation}: {key.strip()} is varied already")
        elif len(values) < 2 or len(set(map(repr, values))) < len(values):
            problems.append(f"--vary {variation}: give two or more different values, as in a,b")
        else:
            varied[key.strip()] = values
    if problems:
        raise ConfigError(problems)
    return varied


def arms_of_factors(
    factors: Sequence[str], variations: Iterable[str], request: Request
) -> tuple[list[RequestedArm], tuple[str, ...]]:
    """Return every on/off combination of the factors, all off first, and the factors' names.

    Args:
        factors: of `FACTORS`.
        variations: "key=off,on" for any other key.
        request: the shared settings; a factor that is on has its value from there.

    Raises:
        ConfigError: a factor is unknown, or there are too many.
    """
    base = requested_config(request)
    settings = {name: _factor(name, base) for name in factors}
    for key, values in parse_variations(variations).items():
        if len(values) != 2:
            raise ConfigError(f"--vary {key}: an ablation takes two values, off,on")
        requested_config(replace(request, varied={key: values[0]}))  # may contradict the call
        settings[key.rpartition(".")[2]] = (key, values[0], values[1])
    if not 1 <= len(settings) <= _MAX_FACTORS:
        raise ConfigError(
            f"{len(settings)} factors: an ablation takes 1 to {_MAX_FACTORS}, since every "
            "combination is trained"
        )
    arms = []
    for states in itertools.product((False, True), repeat=len(settings)):
        on = dict(zip(settings, states, strict=True))
        changes = {
            key: switched_on if on[name] else off
            for name, (key, off, switched_on) in settings.items()
        }
        alternatives = {"schedule.warmup_fraction": None, "schedule.warmup_tokens": None}
        unset = alternatives if changes.get("schedule.warmup_updates") == 0 else {}
        known = {key: value for key, value in changes.items() if value is not _UNCHANGED}
        name = " + ".join(name for name, is_on in on.items() if is_on) or "none"
        arms.append(RequestedArm(name, on, with_values(base, {**unset, **known})))
    return arms, tuple(settings)


_UNCHANGED = object()


def _factor(name: str, base: Config) -> tuple[str, Any, Any]:
    """Return key, value when off, value when on (from the config)."""
    if name not in FACTORS:
        raise ConfigError(
            f"--factors {name}: choose from {', '.join(FACTORS)}; "
            "any other key by --vary key=off,on"
        )
    key, off = FACTORS[name]
    if value_of(base, key) == off:
        raise ConfigError(
            f"--factors {name}: {key} is {off!r} in the config, so it would never be on"
        )
    return key, off, _UNCHANGED


def _names_of(files: Sequence[Path]) -> list[str]:
    stems = [file.stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    return short_names([file.absolute().parts for file in files])


def _short(key: str, varied: Mapping[str, Any]) -> str:
    """Return the key without its table if that is unambiguous."""
    last = key.rpartition(".")[2]
    is_alone = sum(other.rpartition(".")[2] == last for other in varied) == 1
    return last if is_alone and last != "kind" else key
