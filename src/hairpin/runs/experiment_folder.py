"""An experiment as a folder of runs: arms, learning rates and seeds, and the folder of each run.

OUT/
  experiment.json               the setup
  runs/<arm>/x0.5-seed-3/       an ordinary run, with trial.json once it is over
  results.json, report.html     the outcome
  plots/                        PNG
"""

import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hairpin.config.load import validate, with_values
from hairpin.config.settings import Config
from hairpin.errors import RunError
from hairpin.runs.folder import RunDirectory
from hairpin.system.access import reading
from hairpin.system.files import not_a_device, write_json

FORMAT = 1
# Tuning seeds are not used for the verdict, so that luck in tuning does not help an arm.
TUNING_SEEDS = (1_000_001, 1_000_002)
SCALES = (0.5, 1.0, 2.0, 4.0)
MIN_DIFFERENCE = 0.01


@dataclass(frozen=True)
class Arm:
    """One of the variants that are compared.

    Args:
        name: for people.
        changes: the keys in which it differs; in an ablation the factors, True if switched on.
        config: nested tables that `validate` takes, with a length and a peak learning rate; empty
            if its runs are finished ones.
        peak_lr: the learning rate whose multiples are tried.
        same_as: the name of an earlier arm with an equal config; this arm is not trained then.
        sources: finished runs, or files with another trainer's losses, instead of a config.
    """

    name: str
    changes: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    peak_lr: float = 0.0
    same_as: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """A valid folder name, different for different names."""
        plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", self.name).strip("-.")[:80]
        plain = not_a_device(plain)
        is_whole = plain == self.name and plain == plain.lower()  # some systems ignore case
        return plain if is_whole else f"{plain}-{zlib.crc32(self.name.encode()):08x}"


@dataclass(frozen=True)
class Trial:
    """One run of an arm: at `scale` times its peak learning rate, from `seed`."""

    arm: Arm
    scale: float
    seed: int


@dataclass(frozen=True)
class Experiment:
    """The setup of an experiment.

    Args:
        kind: "compare" or "ablate".
        text: the training text, in a few words.
        arms: the first is the baseline.
        seeds: of the verdict.
        scales: multiples of the peak learning rate that each arm tries on `TUNING_SEEDS`; with only
            one, nothing is tuned.
        equal: the budget that all arms share: "tokens", "updates" or "time"; "": they differ in
            length on purpose.
        smallest_difference: bits per byte below which a difference is irrelevant.
        model: a line that describes the model.
        asked: the command's request; an experiment is only resumed with the same one.
        factors: those of an ablation.
    """

    kind: Literal["compare", "ablate"]
    text: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    scales: tuple[float, ...] = SCALES
    equal: str = "tokens"
    smallest_difference: float = MIN_DIFFERENCE
    model: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    factors: tuple[str, ...] = ()

    @property
    def is_tuned(self) -> bool:
        """True if each arm searches its own learning rate."""
        return len(self.scales) > 1

    @property
    def trained(self) -> tuple[Arm, ...]:
        """The arms that are trained here: neither finished runs nor copies of other arms."""
        return tuple(arm for arm in self.arms if arm.config and arm.same_as is None)

    def config_of(self, trial: Trial) -> Config:
        """Return all settings of a run."""
        return with_values(
            validate(trial.arm.config),
            {
                "schedule.peak_lr": trial.arm.peak_lr * trial.scale,
                "train.seed": trial.seed,
            },
        )


@dataclass(frozen=True)
class ExperimentDirectory:
    """Paths in an experiment's folder."""

    path: Path

    @property
    def description(self) -> Path:
        """The setup, as JSON."""
        return self.path / "experiment.json"

    @property
    def results(self) -> Path:
        """The outcome, as JSON."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """The folder of pictures."""
        return self.path / "plots"

    def is_up_to_date(self, results: bytes) -> bool:
        """Return True if the page exists and results.json holds exactly these bytes."""
        try:
            return self.results.read_bytes() == results and self.report.exists()
        except OSError:
            return False

    def run_of(self, trial: Trial) -> RunDirectory:
        """Return the folder of a trial's run, which may not exist yet."""
        name = f"x{trial.scale:g}-seed-{trial.seed}"
        return RunDirectory(self.path / "runs" / trial.arm.folder / name)

    def scales_tried(self, arm: Arm) -> list[float]:
        """Return the multiples of an arm's learning rate that have runs, lowest first."""
        folder = self.path / "runs" / arm.folder
        found = {
            float(match[1]) for path in folder.glob("x*") if (match := _TRIAL.match(path.name))
        }
        return sorted(found)

    def write(self, experiment: Experiment) -> None:
        """Replace experiment.json."""
        write_json(self.description, {"format": FORMAT, **asdict(experiment)})

    def read(self) -> Experiment:
        """Read the setup.

        Raises:
            RunError: the folder holds no experiment, or it is damaged.
        """
        try:
            with reading(self.description):
                tree = json.loads(self.description.read_text(encoding="utf-8"))
            if tree.pop("format") != FORMAT:
                raise ValueError
            tree["arms"] = tuple(
                Arm(**{**arm, "sources": tuple(arm["sources"])}) for arm in tree["arms"]
            )
            for key in ("seeds", "scales", "factors"):
                tree[key] = tuple(tree[key])
            return Experiment(**tree)
        except FileNotFoundError:
            raise RunError(
                f"{self.path}: no experiment found; start one with `hairpin compare`"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RunError(
                f"{self.description}: not an experiment that this version can read; repeat it in "
                "another folder with --out"
            ) from None


_TRIAL = re.compile(r"x([0-9.e+-]+)-seed-\d+$")
