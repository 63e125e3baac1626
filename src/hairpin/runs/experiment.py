"""An experiment is a folder of runs: which arms, learning rates and seeds, and where each run is.

OUT/
  experiment.json               what is compared, and how
  runs/<arm>/x0.5-seed-3/       an ordinary run, with trial.json once it is over
  results.json, report.html     what came of it
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
from hairpin.files import not_a_device, write_json
from hairpin.reading import reading
from hairpin.runs.directory import RunDirectory

FORMAT = 1
# Seeds of tuning are kept out of the verdict, so that luck there does not help an arm here.
TUNING_SEEDS = (1_000_001, 1_000_002)
SCALES = (0.5, 1.0, 2.0, 4.0)
SMALLEST_DIFFERENCE = 0.01


@dataclass(frozen=True)
class Arm:
    """One of the things that are compared.

    Args:
        name: for people.
        changes: the keys in which it differs; of an ablation the factors, True where one is on.
        config: nested tables that `validate` takes, with a length and a peak learning rate; empty
            where its runs are finished ones.
        peak_lr: the learning rate that multiples of are tried.
        same_as: the name of an arm before it whose config is equal; it is not trained then.
        sources: finished runs, or files with another trainer's losses, in place of a config.
    """

    name: str
    changes: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    peak_lr: float = 0.0
    same_as: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """A name that a folder may have, different for different names."""
        plain = re.sub(r"[^A-Za-z0-9._=-]+", "-", self.name).strip("-.")[:80]
        plain = not_a_device(plain)
        is_whole = plain == self.name and plain == plain.lower()  # some systems know no capitals
        return plain if is_whole else f"{plain}-{zlib.crc32(self.name.encode()):08x}"


@dataclass(frozen=True)
class Trial:
    """One run of an arm: at `scale` times its peak learning rate, from `seed`."""

    arm: Arm
    scale: float
    seed: int


@dataclass(frozen=True)
class Experiment:
    """What is compared, and how.

    Args:
        kind: "compare" or "ablate".
        text: what is trained on, in a few words.
        arms: the first is what the others are compared with.
        seeds: of the verdict.
        scales: multiples of the peak learning rate that each arm tries on `TUNING_SEEDS`; one
            alone: nothing is tuned.
        equal: what arms have the same of: "tokens", "updates" or "time"; "": they differ in length
            on purpose.
        smallest_difference: bits per byte below which a difference does not matter.
        model: a line about what is trained.
        asked: what the command asked for; an experiment goes on only for the same.
        factors: of an ablation.
    """

    kind: Literal["compare", "ablate"]
    text: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    scales: tuple[float, ...] = SCALES
    equal: str = "tokens"
    smallest_difference: float = SMALLEST_DIFFERENCE
    model: str = ""
    asked: Mapping[str, Any] = field(default_factory=dict)
    factors: tuple[str, ...] = ()

    @property
    def is_tuned(self) -> bool:
        """Whether each arm looks for its own learning rate."""
        return len(self.scales) > 1

    @property
    def trained(self) -> tuple[Arm, ...]:
        """The arms that are trained here: those that are not finished runs, nor twins of others."""
        return tuple(arm for arm in self.arms if arm.config and arm.same_as is None)

    def config_of(self, trial: Trial) -> Config:
        """All settings of a run."""
        return with_values(
            validate(trial.arm.config),
            {
                "schedule.peak_lr": trial.arm.peak_lr * trial.scale,
                "train.seed": trial.seed,
            },
        )


@dataclass(frozen=True)
class ExperimentDirectory:
    """The places in an experiment's folder."""

    path: Path

    @property
    def description(self) -> Path:
        """What is compared, as JSON."""
        return self.path / "experiment.json"

    @property
    def results(self) -> Path:
        """What came of it, as JSON."""
        return self.path / "results.json"

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def plots(self) -> Path:
        """The folder of pictures."""
        return self.path / "plots"

    def is_told(self, results: bytes) -> bool:
        """Whether the page is there, and results.json has just this."""
        try:
            return self.results.read_bytes() == results and self.report.exists()
        except OSError:
            return False

    def run_of(self, trial: Trial) -> RunDirectory:
        """Where a trial's run is, or will be."""
        name = f"x{trial.scale:g}-seed-{trial.seed}"
        return RunDirectory(self.path / "runs" / trial.arm.folder / name)

    def scales_tried(self, arm: Arm) -> list[float]:
        """The multiples of an arm's learning rate of which there are runs, lowest first."""
        folder = self.path / "runs" / arm.folder
        found = {
            float(match[1]) for path in folder.glob("x*") if (match := _TRIAL.match(path.name))
        }
        return sorted(found)

    def write(self, experiment: Experiment) -> None:
        """Replace experiment.json."""
        write_json(self.description, {"format": FORMAT, **asdict(experiment)})

    def read(self) -> Experiment:
        """What is compared here.

        Raises:
            RunError: there is no experiment, or it is damaged.
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
                f"{self.path}: no experiment is there; make one with `hairpin compare`"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise RunError(
                f"{self.description}: not an experiment that this hairpin can read; make it again "
                "in another folder with --out"
            ) from None


_TRIAL = re.compile(r"x([0-9.e+-]+)-seed-\d+$")
